"""`lisa-ros segment IMAGE "INSTRUCTION"`: answer one instruction about one picture."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from lisa_ros.errors import LisaError
from lisa_ros.image_files import read_image

if TYPE_CHECKING:
    from lisa_ros.engine import Answer, Instance

COLORS = ((230, 60, 60), (60, 130, 230), (60, 180, 75), (240, 160, 30), (160, 70, 200))
DTYPES = ("auto", "float32", "bfloat16", "float16")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("image", type=Path, metavar="IMAGE", help="a picture file")
    parser.add_argument("instruction", metavar="INSTRUCTION", help='for example "the red mug"')
    parser.add_argument("--model", default="nano", help="model folder or name (default: nano)")
    parser.add_argument("--vision-tower", help="folder of the CLIP tower, if the model has none")
    parser.add_argument(
        "--mode",
        choices=("auto", "mask", "explain", "text"),
        default="auto",
        help="auto: the model decides; mask: a mask only; explain: mask and reason; text: words",
    )
    parser.add_argument(
        "--clip-view",
        choices=("center", "squash", "tiles"),
        help="what the language model sees of a wide picture (default: as the model was trained)",
    )
    parser.add_argument(
        "--quantization",
        choices=("auto", "int8", "fp8", "int4", "nf4"),
        help="compress the language model's weights; auto: as far as a GPU's memory asks for it",
    )
    parser.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1 (default: a GPU if any)"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="auto: bfloat16 on a GPU, else float32"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the answer as JSON")
    parser.add_argument("--overlay", type=Path, metavar="FILE", help="write the picture with masks")


def run(args: argparse.Namespace) -> int:
    """Load the model, ask, print."""
    image = read_image(args.image)
    from lisa_ros.engine.load import load_engine
    from lisa_ros.engine.question import EngineConfig, Question, check_question

    check_question(Question(image, args.instruction, args.mode))
    engine = load_engine(
        args.model,
        device=args.device,
        dtype=args.dtype,
        quantization=args.quantization,
        vision_tower=args.vision_tower,
        config=EngineConfig(clip_view=args.clip_view),
    )
    answer = engine.segment(image, args.instruction, mode=args.mode)
    print(describe(answer))
    if args.json:
        write(args.json, json.dumps(as_json(answer), indent=2, ensure_ascii=False).encode() + b"\n")
    if args.overlay:
        save_picture(args.overlay, overlay(image, answer.instances))
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
        "instances": [
            {
                "label": instance.label,
                "score": instance.score,
                "seg_probability": instance.seg_probability,
                "box": list(instance.box),
                "area": instance.area,
                "size": list(instance.mask.shape),
                "runs": run_lengths(instance.mask),
            }
            for instance in answer.instances
        ],
        "timings": answer.timings,
        "counters": answer.counters,
    }


def run_lengths(mask: np.ndarray) -> list[int]:
    """Lengths of the runs of a mask (H, W), row by row, the first of background (maybe 0)."""
    flat = mask.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    edges = np.concatenate([[0], changes, [flat.size]])
    runs = np.diff(edges).tolist()
    return [0, *runs] if flat[0] else runs


def overlay(image: np.ndarray, instances: Iterable[Instance]) -> np.ndarray:
    """The picture (H, W, 3) with every mask tinted and outlined in a colour of its own."""
    shown = image.astype(np.float32)
    for number, instance in enumerate(instances):
        color = np.array(COLORS[number % len(COLORS)], dtype=np.float32)
        shown[instance.mask] = 0.5 * shown[instance.mask] + 0.5 * color
        shown[_outline(instance.mask)] = color
    return shown.astype(np.uint8)


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask that touch something else."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def write(path: Path, content: bytes) -> None:
    """Write a file; a place that cannot be written is the user's to mend."""
    try:
        path.write_bytes(content)
    except OSError as error:
        raise LisaError(f"cannot write {path}: {error.strerror}") from error


def save_picture(path: Path, picture: np.ndarray) -> None:
    """Write a picture in the format that the file's name asks for."""
    try:
        Image.fromarray(picture).save(path)
    except (OSError, ValueError) as error:
        raise LisaError(f"cannot write {path}: {error}") from error
