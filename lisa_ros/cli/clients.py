"""`lisa-ros web`, `mcp`, `listen`, `speak`: who asks a running perception node, and is told."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lisa_ros.cli import check_model, refuse_given
from lisa_ros.errors import LisaError
from lisa_ros.listening import (
    LOOPBACK,
    check_certificate,
    is_loopback,
    link_to,
    listen,
    own_address,
)
from lisa_ros.resources import use_large_image_transport

if TYPE_CHECKING:
    from lisa_ros.speech.listen import Listener
    from lisa_ros.speech.speak import Speaker
    from lisa_ros.web.pages import Demo


def _add_node_arguments(parser: argparse.ArgumentParser, *, demo: bool = False) -> None:
    """Where the perception node is; with `demo`, that one may be brought along."""
    add = parser.add_argument
    if demo:
        add("--demo", action="store_true", help="bring a node and a recorded camera along")
        add("--model", help="model of --demo (default: nano)")
    add("--namespace", default="lisa", help="of the node (default: lisa)")
    add("--ros-args", nargs=argparse.REMAINDER, default=[], help="as of `ros2 run`")


def _node_names(args: argparse.Namespace) -> tuple[str, list[str]]:
    """The namespace, and what `rclpy.init` is given."""
    from rclpy.validate_namespace import validate_namespace

    namespace = args.namespace.strip("/")
    validate_namespace(f"/{namespace}")  # a node that fails by it also warns of a leak
    return namespace, ["--ros-args", *args.ros_args]


# --- with a camera's image ---------------------------------------------------------------------


def add_web_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--port", type=int, default=8080, help="default: 8080; 0: any free one")
    add(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default: this machine alone); 0.0.0.0: everybody who has the "
        "link with the token",
    )
    add("--tls", action="store_true", help="HTTPS with a certificate of our own (microphone)")
    add("--tls-cert", type=Path, metavar="PEM", help="HTTPS with this certificate")
    add("--tls-key", type=Path, metavar="PEM", help="and its key")
    add(
        "--speech-model", default="", help="of the page's microphone, as --model of lisa-ros listen"
    )
    _add_node_arguments(parser, demo=True)


def run_web(args: argparse.Namespace) -> int:
    """Print the link, serve until SIGINT or SIGTERM."""
    from lisa_ros.web import access
    from lisa_ros.web.pages import WebServer

    names = _node_names(args)
    certificate, key = args.tls_cert, args.tls_key
    check_certificate(certificate, key)
    if args.tls and certificate is None:
        certificate = key = access.self_signed(own_address(args.host))
    listening = listen(args.host, args.port)
    port = listening.getsockname()[1]
    token = "" if is_loopback(args.host) else secrets.token_urlsafe(16)  # 128 bits
    with _demonstration(args) as demo:
        server = WebServer(*names, token, port, demo, args.speech_model)
        link = f"{link_to(args.host, port, tls=certificate is not None)}/"
        if token:
            link += f"?token={token}"
            if "utf" in (getattr(sys.stdout, "encoding", "") or "").lower():
                import segno  # a QR code of block letters, which other terminals do not have

                segno.make(link, error="l").terminal(compact=True)
        print(f"The page: {link}", flush=True)
        if certificate:
            print(f"SHA-256 of its certificate: {access.fingerprint(certificate)}", flush=True)
        elif token:
            print("Over plain http browsers give no microphone; --tls makes it https.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve(listening, certificate, key)
    return 0


def add_mcp_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--http", action="store_true", help="streamable HTTP at /mcp (default: standard streams)")
    add("--host", help=f"of --http: one of {', '.join(LOOPBACK)} (default: {LOOPBACK[0]})")
    add("--port", type=int, help="of --http (default: 8001); 0: any free one")
    _add_node_arguments(parser, demo=True)


def run_mcp(args: argparse.Namespace) -> int:
    """Serve until the agent hangs up, SIGINT or SIGTERM."""
    from lisa_ros.agents.mcp_server import Eyes, serve

    names = _node_names(args)
    if not args.http:
        refuse_given(args, ("host", "port"), "without --http")
    host, port = args.host or LOOPBACK[0], 8001 if args.port is None else args.port
    if args.http:
        if host not in LOOPBACK:  # mcp keeps pages of other origins out at these alone
            raise LisaError(
                "whoever reaches this server sees what the robot sees, and it has no password: "
                f"--host takes {', '.join(LOOPBACK)}; from elsewhere reach it by "
                f"`ssh -L {port}:127.0.0.1:{port} ROBOT`"
            )
        with listen(host, port) as free:  # what is wrong with them is said before all else
            port = free.getsockname()[1]
    with _demonstration(args):
        eyes = Eyes(*names)
        if args.http:
            print(f"MCP server: {link_to(host, port)}/mcp", file=sys.stderr, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            serve(eyes, "http" if args.http else "stdio", host, port)
    return 0


@contextlib.contextmanager
def _demonstration(args: argparse.Namespace) -> Iterator[Demo | None]:
    """With `--demo` a recorded camera and a perception node that looks at it, until the end."""
    use_large_image_transport()
    # uvicorn raises a signal once more when it has ended; what --demo has started must end too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not args.demo:
        refuse_given(args, ["model"], "without --demo")
        yield None
        return
    model = args.model or "nano"
    check_model(model)
    from lisa_ros.demo.demonstration import ended_with, started
    from lisa_ros.demo.recorded_camera import read_questions
    from lisa_ros.web.pages import Demo

    tables: dict[int, list[str]] = {}
    for question in read_questions():
        tables.setdefault(question.seed, []).append(question.instruction)
    with (
        tempfile.TemporaryDirectory(prefix="lisa_ros_demo_") as folder,
        started(model, Path(folder), args.namespace) as (domain, node, camera),
        ended_with(node, camera, args.namespace.strip("/")),
    ):
        # standard output belongs to the protocol of `mcp`
        print(f"Look on with ROS_DOMAIN_ID={domain}.", file=sys.stderr, flush=True)
        yield Demo(list(tables.items()), camera.tell)


# --- with a voice --------------------------------------------------------------------------------


def add_listen_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--wav", type=Path, help="hear this file and end")
    source.add_argument("--topic", help="hear an audio topic (audio_common_msgs)")
    source.add_argument("--device", default="", help="number or name of a microphone")
    add("--rate", type=int, help="of a topic of AudioData (default: 16000)")
    add("--channels", type=int, help="of a topic of AudioData (default: 1)")
    add(
        "--model",
        default="",
        help="folder or hub id of a Whisper or Moonshine (default: pocketsphinx, the tabletop's "
        "sentences)",
    )
    add("--wake-word", default="", help="what an instruction must begin with")
    _add_node_arguments(parser)


def run_listen(args: argparse.Namespace) -> int:
    """Listen until the file ends, SIGINT or SIGTERM; 1 where not all of a file was asked."""
    from lisa_ros.speech import audio
    from lisa_ros.speech.recognizer import load_recognizer

    # what cannot be is said before anything is loaded
    namespace, ros_arguments = _node_names(args)
    if not args.topic:
        refuse_given(args, ("rate", "channels"), "without --topic")
    rate = 16_000 if args.rate is None else args.rate
    channels = 1 if args.channels is None else args.channels
    if args.wav:
        recorded = audio.resample(*audio.read_wav(args.wav))
    elif args.topic:
        audio.check_sound(rate, channels)
    else:
        audio.sound_device()
    recognizer = load_recognizer(args.model)

    from lisa_ros.speech.listen import Listener

    with _spinning(lambda: Listener(recognizer, args.wake_word, namespace), ros_arguments) as node:
        if args.wav:
            sound = node.recording(recorded)
        elif args.topic:
            sound = node.topic(args.topic, rate, channels)
        else:
            sound = audio.microphone(args.device)
        count = node.hear(sound)
        if not args.wav or 0 < count == node.asked:
            return 0
        what = "nobody says anything"
        if count:
            missed = (
                f"{count - node.asked} of {count} sentences not" if node.asked else "nothing was"
            )
            what = f"{missed} understood surely enough to be asked"
        elif node.not_called:
            what = f"nobody says the wake word {args.wake_word!r}"
        node.get_logger().warning(f"{what} in {args.wav}")
        return 1


def add_speak_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--command",
        dest="voice",
        default="espeak-ng --stdin",
        help="a program that says what it reads on its standard input (default: %(default)s)",
    )
    _add_node_arguments(parser)


def run_speak(args: argparse.Namespace) -> int:
    """Speak until SIGINT or SIGTERM."""
    from lisa_ros.speech.speak import Speaker

    namespace, ros_arguments = _node_names(args)
    with _spinning(lambda: Speaker(args.voice, namespace), ros_arguments) as node:
        node.stopping.wait()
        node.close()
    return 0


@contextlib.contextmanager
def _spinning(
    make: Callable[[], Listener | Speaker], ros_arguments: list[str]
) -> Iterator[Listener | Speaker]:
    """A node on a thread of its own; SIGINT and SIGTERM set its `stopping`."""
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from lisa_ros.node.run import spin

    rclpy.init(args=ros_arguments, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = make()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: node.stopping.set())
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        spinning = threading.Thread(target=spin, args=(executor, node, node.stopping), daemon=True)
        spinning.start()
        try:
            yield node
        finally:
            node.stopping.set()
            spinning.join(2.0)
    finally:
        rclpy.try_shutdown()
