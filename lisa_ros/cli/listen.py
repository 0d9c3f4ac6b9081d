"""`lisa-ros listen`: instructions by voice."""

from __future__ import annotations

import argparse
import contextlib
import signal
import threading
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wav", type=Path, help="hear this file and end")
    source.add_argument("--topic", help="hear an audio topic (audio_common_msgs)")
    source.add_argument("--device", default="", help="number or name of a microphone")
    add("--rate", type=int, default=16_000, help="of a topic of AudioData")
    add("--channels", type=int, default=1, help="of a topic of AudioData")
    add(
        "--model",
        default="",
        help="folder or hub id of a Whisper or Moonshine (default: pocketsphinx, the tabletop's "
        "sentences)",
    )
    add("--wake-word", default="", help="what an instruction must begin with")
    add("--namespace", default="lisa", help="of the node (default: lisa)")
    add("--ros-args", nargs=argparse.REMAINDER, default=[], help="as of `ros2 run`")


def run(args: argparse.Namespace) -> int:
    """Listen until the file ends, SIGINT or SIGTERM; 1 where nothing was heard in a file."""
    from lisa_ros.speech.audio import read_wav, sound_device
    from lisa_ros.speech.recognizer import load_recognizer

    # what cannot be is said before anything is loaded
    if args.wav:
        read_wav(args.wav)
    elif not args.topic:
        sound_device()
    recognizer = load_recognizer(args.model)

    import rclpy
    from rclpy.executors import ExternalShutdownException
    from rclpy.signals import SignalHandlerOptions

    from lisa_ros.speech.listen import Listener

    ros_arguments = ["--ros-args", *args.ros_args] if args.ros_args else []
    rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
    node = Listener(recognizer, args.wake_word, args.namespace.strip("/"))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: node.stopping.set())

    def spin() -> None:
        with contextlib.suppress(ExternalShutdownException):
            rclpy.spin(node)

    spinning = threading.Thread(target=spin, daemon=True)
    spinning.start()
    try:
        if args.wav:
            sound = node.file(args.wav)
        elif args.topic:
            sound = node.topic(args.topic, args.rate, args.channels)
        else:
            sound = node.microphone(args.device)
        count = node.hear(sound)
        if args.wav and not count:
            node.get_logger().warning(f"nobody says anything in {args.wav}")
        return 1 if args.wav and not count else 0
    finally:
        rclpy.try_shutdown()
        spinning.join(2.0)
