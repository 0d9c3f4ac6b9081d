"""`lisa-ros video CLIP "INSTRUCTION"`: what an instruction means in a clip, through all of it."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path

from lisa_ros.cli import add_model_arguments, model_options
from lisa_ros.errors import LisaError
from lisa_ros.writing import writable_files, write_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "clip", type=Path, metavar="CLIP",
        help="a video file, a folder of pictures, or a recording of ROS 2 (a bag)",
    )  # fmt: skip
    add("instruction", metavar="INSTRUCTION", help='for example "the red mug"')
    add("--out", type=Path, metavar="FILE", help="write the clip with its masks: .mp4 or .gif")
    add("--json", type=Path, metavar="FILE", help="write text and masks (COCO's run lengths)")
    add("--topic", default="", help="the camera of a recording, if there are several")
    add(
        "--keys",
        type=int,
        default=6,
        metavar="N",
        help="key frames that are asked about (default: 6)",
    )
    add(
        "--tracker",
        choices=("lisa", "sam2"),
        default="lisa",
        help="who carries the masks (default: lisa)",
    )
    add("--sam2", metavar="DIR", help="folder of SAM 2 or EdgeTAM, for that tracker")
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, follow, write; 1 if nothing was found, or not all of the clip could be read."""
    from rich.progress import Progress

    from lisa_ros.cli.eval import check_trackers, make_follower
    from lisa_ros.engine.question import check_instruction
    from lisa_ros.recordings.video import follow_video, open_frames, write_video

    if args.keys < 1:
        raise LisaError(f"--keys must be 1 or more, it is {args.keys}")
    check_instruction(args.instruction)
    check_trackers([args.tracker], args.sam2)
    writable_files(args.out, args.json, read=args.clip)
    if args.out and args.out.suffix.lower() not in (".mp4", ".gif"):
        raise LisaError(f"--out must end in .mp4 or .gif, it is {args.out}")
    # what is missing is told now, and not when everything has been asked
    import_module("pycocotools.mask")
    if args.out and args.out.suffix.lower() == ".mp4":
        import_module("av")
    with open_frames(args.clip, args.topic) as source, Progress(transient=True) as progress:
        tasks: dict[str, object] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total or None)
            progress.update(tasks[what], completed=done)

        from lisa_ros.engine.load import load_engine

        engine = load_engine(**model_options(args))
        found = follow_video(
            engine,
            source,
            args.instruction,
            lambda: make_follower(engine, args.tracker, args.sam2),
            keys=args.keys,
            report=report,
        )
        if args.out:
            write_video(found, args.out, report)
    if args.json:
        write_file(args.json, json.dumps(found.as_json()) + "\n")
    frames = len(found.masks)
    print(f"answer    {found.text}")
    print(f"clip      {frames} frames, {source.times[-1]:.1f} s, {source.size[1]}x{source.size[0]}")
    again = f", and {found.asked_again} questions more on the way" if found.asked_again else ""
    print(f"asked     about frames {', '.join(map(str, found.answers))}{again}")
    for number, label in found.labels.items():
        seen = sum(
            one[2] == "visible" for masks in found.masks for one in masks if one[0] == number
        )
        print(
            f"thing {number}   {label}: seen in {seen} of {frames} frames; taken from frame"
            f" {found.chosen}"
        )
    for fault in source.faults:
        print(f"missing   {fault}")
    for note in source.notes:
        print(f"note      {note}")
    if found.chosen is None:
        print("status    NOT_FOUND")
    return 1 if found.chosen is None or source.faults else 0
