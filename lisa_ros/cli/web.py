"""`lisa-ros web`: the page that people open in a browser."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lisa_ros.web.pages import Demo


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    add("--demo", action="store_true", help="bring a perception node and a recorded camera along")
    add("--model", default="nano", help="model of --demo (default: nano)")
    add(
        "--speech-model", default="", help="of the page's microphone, as --model of lisa-ros listen"
    )
    add("--namespace", default="lisa", help="of the node (default: lisa)")
    add("--ros-args", nargs=argparse.REMAINDER, default=[], help="as of `ros2 run`")


def run(args: argparse.Namespace) -> int:
    """Print the link, serve until SIGINT or SIGTERM."""
    from lisa_ros.fastdds import use_large_image_transport
    from lisa_ros.web import access
    from lisa_ros.web.pages import WebServer

    certificate, key = args.tls_cert, args.tls_key
    if (certificate is None) != (key is None):
        raise access.WebError("--tls-cert and --tls-key belong together: name both or neither")
    address = access.own_address(args.host)
    if certificate is not None:
        access.check_certificate(certificate, key)
    elif args.tls:
        certificate = key = access.self_signed(address)
    listening = access.listen(args.host, args.port)
    port = listening.getsockname()[1]
    token = "" if access.is_loopback(args.host) else access.new_token()
    use_large_image_transport()
    ros_arguments = ["--ros-args", *args.ros_args] if args.ros_args else []
    with contextlib.ExitStack() as stack:
        demo = None
        if args.demo:
            demo = stack.enter_context(demonstration(args.model, args.namespace))
        # uvicorn raises a signal once more when it has ended; what --demo has started must end too
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        server = WebServer(
            args.namespace.strip("/"), ros_arguments, token, port, demo, args.speech_model
        )
        link = f"http{'s' if certificate else ''}://{address}:{port}/"
        if token:
            link += f"?token={token}"
            show_qr(link)
        print(f"The page: {link}", flush=True)
        if certificate:
            print(f"SHA-256 of its certificate: {access.fingerprint(certificate)}", flush=True)
        elif token:
            print("Over plain http browsers give no microphone; --tls makes it https.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve(listening, certificate, key)
    return 0


def show_qr(link: str) -> None:
    """The link as a QR code of block letters."""
    import segno

    encoding = (getattr(sys.stdout, "encoding", "") or "").lower()
    if "utf" in encoding:  # other terminals have no such letters
        segno.make(link, error="l").terminal(compact=True)


@contextlib.contextmanager
def demonstration(model: str, namespace: str) -> Iterator[Demo]:
    """A recorded camera and a perception node that looks at it, in a ROS domain of their own."""
    from lisa_ros.demo.client import NodeProcess, own_domain
    from lisa_ros.demo.recorded_camera import IMAGE, read_questions
    from lisa_ros.web.pages import Demo

    tables: dict[int, list[str]] = {}
    for question in read_questions():
        tables.setdefault(question.seed, []).append(question.instruction)
    python = [sys.executable, "-m"]
    node = [*python, *f"lisa_ros.cli node --image {IMAGE} --namespace {namespace}".split()]
    with (
        own_domain(),
        tempfile.TemporaryDirectory(prefix="lisa_ros_web_") as folder,
        NodeProcess(
            [*python, "lisa_ros.demo.recorded_camera"],
            Path(folder) / "recorded_camera.log",
            name="recorded camera",
            talks=True,
        ) as player,
        NodeProcess([*node, "--model", model], Path(folder) / "perception_node.log"),
    ):

        def show(seed: int) -> None:
            assert player.process.stdin is not None
            with contextlib.suppress(OSError):  # the camera has ended; the page says so
                player.process.stdin.write(f"{seed}\n")
                player.process.stdin.flush()

        yield Demo(list(tables.items()), show)
