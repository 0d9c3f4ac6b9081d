"""`lisa-ros speak`: says the answers."""

from __future__ import annotations

import argparse
import signal
import threading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--command",
        dest="voice",
        default="espeak-ng --stdin",
        help="a program that says what it reads on its standard input (default: %(default)s)",
    )
    add("--namespace", default="lisa", help="of the node (default: lisa)")
    add("--ros-args", nargs=argparse.REMAINDER, default=[], help="as of `ros2 run`")


def run(args: argparse.Namespace) -> int:
    """Speak until SIGINT or SIGTERM."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from lisa_ros.speech.speak import Speaker

    ros_arguments = ["--ros-args", *args.ros_args] if args.ros_args else []
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = Speaker(args.voice, args.namespace.strip("/"))
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not stopping.is_set():
            executor.spin_once(timeout_sec=0.2)
        executor.shutdown()
        node.close()
    finally:
        rclpy.try_shutdown()
    return 0
