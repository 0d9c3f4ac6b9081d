"""`lisa-ros segment`, `bag`, `video`, `views`: ask about an image, a recording, a clip, a place."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lisa_ros.cli import add_model_arguments, model_options
from lisa_ros.engine.question import (
    MODES,
    EngineConfig,
    Question,
    check_instruction,
    check_mode,
    check_question,
)
from lisa_ros.errors import LisaError, check_number, counted
from lisa_ros.image_files import image_format, read_image, write_image
from lisa_ros.node.parameters import BY_NAME
from lisa_ros.serving.wire import instance_as_json
from lisa_ros.writing import writable_files, writable_folder, write_file

if TYPE_CHECKING:
    from lisa_ros.engine import Answer
    from lisa_ros.geometry import Object3D
    from lisa_ros.recordings import FusedAnswer, Shot

Z_UP = (0.0, 0.0, 1.0)
WRITTEN = ("object.ply", "object.json", "view_[0-9][0-9].png")  # by `views`, into its folder


def add_segment_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="an image file")
    add("instruction", metavar="INSTRUCTION", help='for example "the red mug"')
    add_model_arguments(parser)
    _add_mode(parser)
    add(
        "--clip-view",
        choices=("center", "squash", "tiles"),
        help="what the language model sees of a wide image (default: as the model was trained)",
    )
    add("--json", type=Path, metavar="FILE", help="write the answer as JSON")
    add("--overlay", type=Path, metavar="FILE", help="write the image with masks")


def _add_mode(parser: argparse.ArgumentParser) -> None:
    modes = "; ".join(f"{mode}: {what}" for mode, what in MODES.items())
    parser.add_argument("--mode", choices=MODES, default="auto", help=f"{modes} (default: auto)")


def run_segment(args: argparse.Namespace) -> int:
    """Check what needs no model, load it, ask, print."""
    from lisa_ros.engine.load import load_engine

    image = read_image(args.image)
    check_question(Question(image, args.instruction, args.mode))
    writable_files(args.json, args.overlay, read=args.image)
    if args.overlay:
        image_format(args.overlay)
    config = EngineConfig(clip_view=args.clip_view)
    engine = load_engine(**model_options(args), config=config)
    answer = engine.segment(image, args.instruction, mode=args.mode)
    print(describe_answer(answer))
    if args.json:
        write_file(
            args.json, json.dumps(answer_as_json(answer), indent=2, ensure_ascii=False) + "\n"
        )
    if args.overlay:
        from lisa_ros.node.results.overlay import fill_masks

        write_image(args.overlay, fill_masks(image, [one.mask for one in answer.instances]))
    return 0


def describe_answer(answer: Answer) -> str:
    """The answer as a person reads it on a terminal."""
    lines = [f"answer    {answer.text or '(no words)'}", f"status    {answer.status.value}"]
    for number, instance in enumerate(answer.instances, start=1):
        x, y, width, height = instance.box
        lines.append(
            f"mask {number}    {instance.label}: {counted(instance.area, 'pixel')}, box "
            f"{width}x{height} at ({x}, {y}), score {instance.score:.2f}"
        )
    timings = ", ".join(f"{name} {value:.0f}" for name, value in answer.timings.items())
    counters = ", ".join(f"{name} {value}" for name, value in answer.counters.items())
    return "\n".join([*lines, f"time      {timings} (ms)", f"work      {counters}"])


def answer_as_json(answer: Answer) -> dict:
    """The answer as plain data; masks as run lengths, row by row, beginning with background."""
    return {
        "text": answer.text,
        "status": answer.status.value,
        "stopped_by": answer.stopped_by,
        "instances": [instance_as_json(instance) for instance in answer.instances],
        "timings": answer.timings,
        "counters": answer.counters,
    }


def add_bag_arguments(parser: argparse.ArgumentParser) -> None:
    """The recording, the questions and the model."""
    add = parser.add_argument
    add("recording", type=Path, help="a bag's folder, or a .mcap or .db3 file")
    add("--query", action="append", required=True, help="what to ask; may be given several times")
    add("--out", type=Path, required=True, help="the annotated bag to write")
    add(
        "--every",
        type=float,
        default=1.0,
        metavar="SECONDS",
        help="recorded time from one question to the next; 0: every image (default: 1)",
    )
    add("--image", default="", metavar="TOPIC", help="the camera, if several")
    add("--depth", default="", metavar="TOPIC", help="its registered depth images, for 3-D poses")
    add("--camera-info", default="", metavar="TOPIC", help="their intrinsics, if several")
    _add_mode(parser)
    least = BY_NAME["score.min"].default
    add(
        "--score-min",
        type=float,
        default=least,
        metavar="SCORE",
        help=f"leave masks with a lower score out (default: the node's score.min, {least:g})",
    )
    add_model_arguments(parser)


def run_bag(args: argparse.Namespace) -> int:
    """Annotate, with a progress bar."""
    from rich.console import Console
    from rich.progress import Progress

    from lisa_ros.engine.load import load_engine
    from lisa_ros.recordings.annotate import Annotator, describe

    console = Console()
    annotator = Annotator(
        args.recording,
        args.out,
        args.query,
        every=args.every,
        topic=args.image,
        depth=args.depth,
        info=args.camera_info,
        mode=args.mode,
        least_score=args.score_min,
    )
    with console.status("loading the model ..."):
        engine = load_engine(**model_options(args))
    check_mode(args.mode, engine.modes)
    with Progress(console=console) as progress:
        task = progress.add_task(args.recording.name, total=None)
        for said in annotator.run(engine):
            progress.update(task, total=annotator.total, advance=1)
            if said:
                console.print(said, markup=False, highlight=False, soft_wrap=True)
    print(f"{args.out}: {describe(annotator.summary)}")
    return 1 if annotator.summary.faults else 0


def add_video_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "clip", type=Path, metavar="CLIP",
        help="a video file, a folder of images, or a recording of ROS 2 (a bag)",
    )  # fmt: skip
    add("instruction", metavar="INSTRUCTION", help='for example "the red mug"')
    add("--out", type=Path, metavar="FILE", help="write the clip with its masks: .mp4 or .gif")
    add("--json", type=Path, metavar="FILE", help="write text and masks (COCO's run lengths)")
    add("--topic", default="", help="the camera of a recording, if there are several")
    add("--keys", type=int, default=6, metavar="N", help="key frames to ask about (default: 6)")
    trackers = ("lisa", "sam2")
    add("--tracker", choices=trackers, default="lisa", help="who carries masks (default: lisa)")
    add("--sam2", metavar="DIR", help="folder of SAM 2 or EdgeTAM, for that tracker")
    add_model_arguments(parser)


def run_video(args: argparse.Namespace) -> int:
    """Ask, follow, write; 1 if nothing was found, or not all of the clip could be read."""
    from rich.progress import Progress

    from lisa_ros.engine.load import load_engine
    from lisa_ros.recordings.clip_files import open_frames
    from lisa_ros.recordings.video import follow_video, write_video
    from lisa_ros.serving.remote_tracker import new_tracker
    from lisa_ros.tracking.follow import Follower, load_sam2
    from lisa_ros.tracking.tracker import MAX_TRACKS

    check_number("--keys", args.keys, 1)
    check_instruction(args.instruction)
    writable_files(args.out, args.json, read=args.clip)
    if args.out and args.out.suffix.lower() not in (".mp4", ".gif"):
        raise LisaError(f"--out must end in .mp4 or .gif, it is {args.out}")
    # what is missing is told now, and not when everything has been asked
    import_module("pycocotools.mask")
    if args.out and args.out.suffix.lower() == ".mp4":
        import_module("av")
    sam2 = load_sam2([args.tracker], args.sam2)
    bar = Progress(transient=True, disable=not sys.stdout.isatty())
    with open_frames(args.clip, args.topic) as source, bar as progress:
        tasks: dict[str, object] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            progress.update(tasks[what], completed=done)

        engine = load_engine(**model_options(args))
        found = follow_video(
            engine,
            source,
            args.instruction,
            lambda: Follower(engine, new_tracker(engine, sam2)(MAX_TRACKS)),
            keys=args.keys,
            report=report,
        )
        if args.out:
            write_video(found, args.out, report)
    if args.json:
        write_file(args.json, json.dumps(found.as_json()) + "\n")
    frames = counted(len(found.masks), "frame")
    print(f"answer    {found.text}")
    print(f"clip      {frames}, {source.times[-1]:.1f} s, {source.size[1]}x{source.size[0]}")
    asked = f"about frame{'s' * (len(found.answers) > 1)} {', '.join(map(str, found.answers))}"
    if found.asked_again:
        asked += f", and {counted(found.asked_again, 'question')} more on the way"
    print(f"asked     {asked}")
    for number, label in found.labels.items():
        seen = sum(
            one[2] == "visible" for masks in found.masks for one in masks if one[0] == number
        )
        print(
            f"thing {number}   {label}: seen in {seen} of {frames}; taken from frame {found.chosen}"
        )
    for fault in source.faults:
        print(f"missing   {fault}")
    for note in source.notes:
        print(f"note      {note}")
    if found.chosen is None:
        print("status    NOT_FOUND")
    return 1 if found.chosen is None or source.faults else 0


def add_views_arguments(parser: argparse.ArgumentParser) -> None:
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


def run_views(args: argparse.Namespace) -> int:
    """Read the views, ask, fuse, write; 1 if there is no object in space."""
    check_number("--voxel", args.voxel, 0, above=True)
    check_number("--every", args.every, 0)
    check_instruction(args.query)
    if args.out.resolve() == args.views.resolve():
        raise LisaError(f"--out {args.out} is the folder of the views: name another")
    writable_folder(args.out)
    _check_is_ours(args.out)
    shots, up, notes = read_views(args)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)

    from lisa_ros.engine.load import load_engine
    from lisa_ros.recordings import ask_views

    engine = load_engine(**model_options(args))
    seen = ask_views(engine, shots, args.query, up=up, voxel=args.voxel)
    write_results(args.out, shots, seen)
    print(describe_views(shots, seen))
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


def _check_is_ours(out: Path) -> None:
    """Raise `LisaError` for a folder with files of our names that no earlier run has written."""
    taken = [path for name in WRITTEN for path in sorted(out.glob(name))]
    try:
        earlier = json.loads((out / "object.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        earlier = None
    ours = isinstance(earlier, dict) and {"reason", "views", "agreement"} <= earlier.keys()
    if taken and not ours:
        raise LisaError(
            f"{taken[0]} is not of an earlier `lisa-ros views` and would be overwritten: name a "
            "new folder with --out"
        )


def write_results(out: Path, shots: list[Shot], seen: FusedAnswer) -> None:
    """The cloud, the box and each view with its mask."""
    from lisa_ros.geometry import ply
    from lisa_ros.node.results.overlay import fill_masks

    write_file(out / "object.ply", ply(seen.obj.points, seen.colors))
    write_file(out / "object.json", json.dumps(object_as_json(seen.obj), indent=2) + "\n")
    for number, (shot, answer) in enumerate(zip(shots, seen.answers, strict=True), start=1):
        masks = [instance.mask for instance in answer.instances[:1]]
        write_image(out / f"view_{number:02d}.png", fill_masks(shot.image, masks))


def object_as_json(obj: Object3D) -> dict[str, Any]:
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


def describe_views(shots: list[Shot], seen: FusedAnswer) -> str:
    """What was found in which view, and the object."""
    lines = []
    for shot, answer in zip(shots, seen.answers, strict=True):
        first = answer.instances[:1]
        found = answer.status.value
        if first:
            found = f"{first[0].label}: {counted(first[0].area, 'pixel')}"
        lines.append(f"view {shot.name}    {found}")
    obj = seen.obj
    if obj.box is None:
        return "\n".join([*lines, f"no object: {obj.reason}"])
    center = ", ".join(f"{value:.3f}" for value in obj.box.center)
    size = " x ".join(f"{100 * value:.1f}" for value in obj.box.size)
    lines.append(f"object    {size} cm at ({center}) m, {counted(len(obj.points), 'point')}")
    lines.append(f"agreement {obj.agreement:.2f} of {counted(obj.views, 'view')}")
    return "\n".join(lines)
