"""`lisa-ros node`: the perception node without a launch system."""

from __future__ import annotations

import argparse
import json

COMPRESSED, COMPRESSED_DEPTH = "/compressed", "/compressedDepth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Shorthands for the most used parameters and remappings; everything else by --ros-args."""
    add = parser.add_argument
    add(
        "--model",
        help="name of a shipped model, a checkpoint's folder, or its id in the hub's cache",
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


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM."""
    from lisa_ros.node.run import run as run_node

    return run_node(ros_arguments(args))
