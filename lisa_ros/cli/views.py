"""`lisa-ros views`: one object out of several views of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisa_ros.cli import add_model_arguments, model_options
from lisa_ros.engine.question import check_instruction
from lisa_ros.errors import LisaError
from lisa_ros.writing import writable_folder, write_file

if TYPE_CHECKING:
    from lisa_ros.geometry import Object3D
    from lisa_ros.recordings import FusedAnswer, Shot

Z_UP = (0.0, 0.0, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The views, the question and the model."""
    add = parser.add_argument
    add(
        "views",
        type=Path,
        help="a folder with views.yaml (images, depth images, poses; docs/geometry.md), or a bag",
    )
    add("--query", required=True, help='what to look for, such as "the red mug"')
    add("--out", type=Path, required=True, help="folder for object.ply, object.json and images")
    add("--voxel", type=float, default=0.005, metavar="METRES", help="default: 0.005")
    bag = parser.add_argument_group("recordings")
    bag.add_argument("--image", metavar="TOPIC", default="", help="the camera, if several")
    bag.add_argument("--depth", metavar="TOPIC", help="the depth images registered to it")
    bag.add_argument("--camera-info", metavar="TOPIC", help="their intrinsics")
    bag.add_argument("--frame", help="the frame to fuse in, z up, such as map or base_link")
    bag.add_argument(
        "--every", type=float, default=1.0, metavar="SECONDS", help="between two views; default: 1"
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Read the views, ask, fuse, write; 1 if there is no object in space."""
    if not args.voxel > 0:  # NaN too
        raise LisaError("--voxel must be above 0")
    if not args.every >= 0:
        raise LisaError(f"--every must be 0 or more seconds, not {args.every:g}")
    check_instruction(args.query)
    if args.out.resolve() == args.views.resolve():
        raise LisaError(f"--out {args.out} is the folder of the views: name another")
    writable_folder(args.out)
    shots, up, notes = read_views(args)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)

    from lisa_ros.engine.load import load_engine
    from lisa_ros.recordings import ask_views

    engine = load_engine(**model_options(args))
    seen = ask_views(engine, shots, args.query, up=up, voxel=args.voxel)
    write_results(args.out, shots, seen)
    print(describe(shots, seen))
    return 0 if seen.obj.box is not None else 1


def read_views(args: argparse.Namespace) -> tuple[list[Shot], Any, list[str]]:
    """The views, the direction against gravity if it is known, and what could not be used."""
    needed = {"depth", "camera_info", "frame"}
    given = {name for name in needed | {"image"} if getattr(args, name)}
    if not given and not (args.views.is_file() or (args.views / "metadata.yaml").exists()):
        from lisa_ros.recordings.views import read_folder

        return *read_folder(args.views), []
    if missing := sorted(needed - given):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise LisaError(f"a recording also needs {names}")
    from lisa_ros.recordings.bag_views import read_bag

    topics = (args.image, args.depth, args.camera_info)
    shots, notes = read_bag(args.views, *topics, args.frame, args.every)
    return shots, Z_UP, notes


def write_results(out: Path, shots: list[Shot], seen: FusedAnswer) -> None:
    """The cloud, the box and each view with its mask."""
    from lisa_ros.geometry import ply
    from lisa_ros.image_files import write_image
    from lisa_ros.node.results.overlay import fill_masks

    write_file(out / "object.ply", ply(seen.obj.points, seen.colors))
    write_file(out / "object.json", json.dumps(as_json(seen.obj), indent=2) + "\n")
    for number, (shot, answer) in enumerate(zip(shots, seen.answers, strict=True), start=1):
        masks = [instance.mask for instance in answer.instances[:1]]
        write_image(out / f"view_{number:02d}.png", fill_masks(shot.image, masks))


def as_json(obj: Object3D) -> dict[str, Any]:
    """Box, centroid and agreement as plain data; lengths in metres."""
    result: dict[str, Any] = {
        "reason": obj.reason,
        "views": obj.views,
        "agreement": round(obj.agreement, 4),
        "points": len(obj.points),
    }
    if obj.box is not None and obj.centroid is not None:
        box = obj.box
        result |= {
            "center": box.center.tolist(),
            "quaternion": box.quaternion.tolist(),
            "size": box.size.tolist(),
            "centroid": obj.centroid.tolist(),
        }
    return result


def describe(shots: list[Shot], seen: FusedAnswer) -> str:
    """What was found in which view, and the object."""
    lines = []
    for shot, answer in zip(shots, seen.answers, strict=True):
        first = answer.instances[:1]
        found = f"{first[0].label}: {first[0].area} pixels" if first else answer.status.value
        lines.append(f"view {shot.name}    {found}")
    obj = seen.obj
    if obj.box is None:
        return "\n".join([*lines, f"no object: {obj.reason}"])
    center = ", ".join(f"{value:.3f}" for value in obj.box.center)
    size = " x ".join(f"{100 * value:.1f}" for value in obj.box.size)
    lines.append(f"object    {size} cm at ({center}) m, {len(obj.points)} points")
    lines.append(f"agreement {obj.agreement:.2f} of {obj.views} views")
    return "\n".join(lines)
