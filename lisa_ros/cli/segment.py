"""`lisa-ros segment IMAGE "INSTRUCTION"`: answer one instruction about one image."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from lisa_ros.cli import MODES, add_model_arguments, model_options
from lisa_ros.image_files import image_format, read_image, write_image
from lisa_ros.serving.wire import instance_as_json
from lisa_ros.writing import writable_files, write_file

if TYPE_CHECKING:
    from lisa_ros.engine import Answer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("image", type=Path, metavar="IMAGE", help="an image file")
    add("instruction", metavar="INSTRUCTION", help='for example "the red mug"')
    add_model_arguments(parser)
    add(
        "--mode",
        choices=MODES,
        default="auto",
        help="auto: the model decides; mask: a mask only; explain: mask and reason; text: words",
    )
    add(
        "--clip-view",
        choices=("center", "squash", "tiles"),
        help="what the language model sees of a wide image (default: as the model was trained)",
    )
    add("--json", type=Path, metavar="FILE", help="write the answer as JSON")
    add("--overlay", type=Path, metavar="FILE", help="write the image with masks")


def run(args: argparse.Namespace) -> int:
    """Check what needs no model, load it, ask, print."""
    from lisa_ros.engine.load import load_engine
    from lisa_ros.engine.question import EngineConfig, Question, check_question

    image = read_image(args.image)
    check_question(Question(image, args.instruction, args.mode))
    writable_files(args.json, args.overlay, read=args.image)
    if args.overlay:
        image_format(args.overlay)
    config = EngineConfig(clip_view=args.clip_view)
    engine = load_engine(**model_options(args), config=config)
    answer = engine.segment(image, args.instruction, mode=args.mode)
    print(describe(answer))
    if args.json:
        write_file(args.json, json.dumps(as_json(answer), indent=2, ensure_ascii=False) + "\n")
    if args.overlay:
        from lisa_ros.node.results.overlay import fill_masks

        write_image(args.overlay, fill_masks(image, [one.mask for one in answer.instances]))
    return 0


def describe(answer: Answer) -> str:
    """The answer as a person reads it on a terminal."""
    lines = [f"answer    {answer.text or '(no words)'}", f"status    {answer.status.value}"]
    for number, instance in enumerate(answer.instances, start=1):
        x, y, width, height = instance.box
        lines.append(
            f"mask {number}    {instance.label}: {instance.area} pixels, box {width}x{height} at "
            f"({x}, {y}), score {instance.score:.2f}"
        )
    timings = ", ".join(f"{name} {value:.0f}" for name, value in answer.timings.items())
    counters = ", ".join(f"{name} {value}" for name, value in answer.counters.items())
    return "\n".join([*lines, f"time      {timings} (ms)", f"work      {counters}"])


def as_json(answer: Answer) -> dict:
    """The answer as plain data; masks as run lengths, row by row, beginning with background."""
    return {
        "text": answer.text,
        "status": answer.status.value,
        "stopped_by": answer.stopped_by,
        "instances": [instance_as_json(instance) for instance in answer.instances],
        "timings": answer.timings,
        "counters": answer.counters,
    }
