"""`lisa-ros node`, `demo`, `serve`: the node, a camera and questions for it, a model for many."""

from __future__ import annotations

import argparse
import json
import os
import signal
import threading
from dataclasses import fields
from pathlib import Path

from lisa_ros.cli import add_model_arguments, check_model, model_options
from lisa_ros.listening import link_to
from lisa_ros.writing import writable_folder

COMPRESSED, COMPRESSED_DEPTH = "/compressed", "/compressedDepth"


def add_node_arguments(parser: argparse.ArgumentParser) -> None:
    """Shorthands for the most used parameters and remappings; everything else by --ros-args."""
    add = parser.add_argument
    add(
        "--model",
        help="name of a shipped model, a checkpoint's folder, its id in the hub's cache, or a "
        "server's address",
    )
    add("--device", help="auto, cpu, cuda or cuda:N")
    add("--image", metavar="TOPIC", help="the camera, for example /camera/color/image_raw")
    add("--depth", metavar="TOPIC", help="the depth image that is registered to it")
    add("--camera-info", metavar="TOPIC", help="the depth image's intrinsics")
    add("--namespace", help="where the node's names lie; default /lisa")
    add(
        "--ros-args",
        nargs=argparse.REMAINDER,
        default=[],
        help="everything that `ros2 run` takes, for example --ros-args --params-file FILE",
    )


def ros_arguments(args: argparse.Namespace) -> list[str]:
    """What the shorthands mean in ROS's own words, followed by what was given in these."""
    words: list[str] = []
    parameters = {"model.path": args.model, "model.device": args.device}
    if args.image and args.image.endswith(COMPRESSED):
        parameters["input.transport"] = "compressed"
    if args.depth and args.depth.endswith(COMPRESSED_DEPTH):
        parameters["depth.transport"] = "compressed"
    for name, value in parameters.items():
        if value:
            # quoted as YAML, or a folder called 7 would be a number
            words += ["-p", f"{name}:={json.dumps(value)}"]
    if args.image:
        words += _remapped("image", args.image, COMPRESSED)
    if args.depth:
        words += _remapped("depth", args.depth, COMPRESSED_DEPTH)
    if args.camera_info:
        words += ["-r", f"camera_info:={args.camera_info}"]
    if args.namespace:
        words += ["-r", f"__ns:=/{args.namespace.strip('/')}"]
    return ["--ros-args", *words, *args.ros_args]


def _remapped(name: str, topic: str, compressed: str) -> list[str]:
    """A topic and its compressed twin, whichever of the two was named."""
    plain = topic.removesuffix(compressed)
    return ["-r", f"{name}:={plain}", "-r", f"{name}{compressed}:={plain}{compressed}"]


def run_node(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM."""
    from lisa_ros.node.run import run as run_node

    return run_node(ros_arguments(args))


def add_demo_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="nano", help="shipped model or folder (default: nano)")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder for images and logs"
    )


def run_demo(args: argparse.Namespace) -> int:
    """Ask everything, show a table, say what is wrong; 1 where a question got no answer at all."""
    check_model(args.model)
    writable_folder(args.output).mkdir(parents=True, exist_ok=True)
    from rich.console import Console

    from lisa_ros.demo.demonstration import ask_all, table_of

    # sentences are lines of their own in a file, whatever its width; the table is not
    console = Console(width=None if os.isatty(1) else 150, soft_wrap=not os.isatty(1))
    replies = ask_all(args.model, args.output, console)
    console.print(table_of(replies), soft_wrap=False)
    console.print(f"The node's overlay of each answer: {args.output}/NN_*.png")
    wrong = [reply for reply in replies if reply.fault]
    console.print(f"{len(replies) - len(wrong)} of {len(replies)} answers are right.")
    for reply in wrong:
        console.print(f"[yellow]wrong:[/] {reply.question.instruction}: {reply.fault}")
    return 0 if all(reply.answered for reply in replies) else 1


def add_serve_arguments(parser: argparse.ArgumentParser) -> None:
    from lisa_ros.serving.server import ServeOptions

    add_model_arguments(parser, remote=False)
    add = parser.add_argument
    add("--host", help="address to listen on (default: this machine alone); others need a token")
    add("--port", type=int, help="default: %(default)s")
    add("--replicas", type=int, help="engines; on GPUs one for each (default: %(default)s)")
    add("--max-replicas", type=int, help="add engines up to so many under load")
    add("--threads", type=int, help="processor threads of each; 0: by the model's size")
    add("--batch", type=int, help="most questions answered together (default: %(default)s)")
    add("--window", type=float, metavar="MS", help="wait for others (default: %(default)g ms)")
    add("--queue", type=int, help="questions that may wait (default: %(default)s)")
    add("--max-pixels", type=int, help="largest image that is taken (default: %(default)s)")
    add("--metrics-port", type=int, help="Ray's Prometheus metrics (default: %(default)s)")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM): speak https")
    add("--tls-key", type=Path, metavar="FILE", help="its private key (PEM)")
    add("--ray-address", help="a running Ray cluster; default: one of our own")
    parser.set_defaults(**{one.name: one.default for one in fields(ServeOptions)[1:]})


def run_serve(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    from lisa_ros.model.config import find
    from lisa_ros.serving.remote import read_token
    from lisa_ros.serving.server import ServeOptions, start, stop

    find(args.model)
    given = {one.name: getattr(args, one.name) for one in fields(ServeOptions)[1:]}
    options = ServeOptions(model_options(args), **given)
    stopping = threading.Event()
    ray_at = start(options, read_token())
    for number in (signal.SIGINT, signal.SIGTERM):  # now, in the place of Ray's handlers
        signal.signal(number, lambda *_: stopping.set())
    address = link_to(args.host, args.port, tls=args.tls_cert is not None)
    print(f"{args.model} answers at {address}; on a robot: lisa-ros node --model {address}")
    print(f"Ray's own head is at {ray_at}; stop with Ctrl-C", flush=True)
    stopping.wait()
    stop(options)
    return 0
