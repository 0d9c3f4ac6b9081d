"""`lisa-ros bag`: ask about the images of a recording, without a running ROS graph."""

from __future__ import annotations

import argparse
from pathlib import Path

from lisa_ros.cli import MODES, add_model_arguments, model_options
from lisa_ros.node.parameters import BY_NAME


def add_arguments(parser: argparse.ArgumentParser) -> None:
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
    add("--mode", default="auto", choices=MODES)
    least = BY_NAME["score.min"].default
    add(
        "--score-min",
        type=float,
        default=least,
        metavar="SCORE",
        help=f"leave masks with a lower score out (default: the node's score.min, {least:g})",
    )
    add_model_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Annotate, with a progress bar."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    from lisa_ros.engine.load import load_engine
    from lisa_ros.node.loading import Model
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
    model = Model(engine, engine.name, str(engine.device))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task(args.recording.name, total=None)
        for said in annotator.run(model):
            progress.update(task, total=annotator.total, advance=1)
            if said:
                progress.console.print(said, markup=False, highlight=False)
    console.print(f"{args.out}: {describe(annotator.summary)}", markup=False, highlight=False)
    return 1 if annotator.summary.faults else 0
