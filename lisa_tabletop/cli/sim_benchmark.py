"""`lisa-ros sim-benchmark`: the fixed test set of the simulated tabletop, in ReasonSeg's format."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lisa_tabletop.evaluation.fixed_test_set import Split


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="where to write it: a new folder")
    parser.add_argument(
        "--images", type=int, help="pictures of each split (default: as many as the fixed set has)"
    )
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count(), help="how many draw side by side"
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing: say whether FOLDER is the fixed set"
    )


def run(args: argparse.Namespace) -> int:
    """Write the set, or read one; say how many questions it has and whether it is the fixed one."""
    from lisa_ros.errors import LisaError
    from lisa_tabletop.evaluation.fixed_test_set import BENCHMARK, IMAGES, compare, summarise

    if not args.check:
        images = IMAGES if args.images is None else args.images
        if images < 1 or args.processes < 1:
            raise LisaError("--images and --processes must be at least 1")
        draw(args.folder, BENCHMARK, images, args.processes)
    summary = summarise(args.folder)
    for split, count in summary["questions"].items():
        print(f"{split:>13}  {count} questions")
    for part, value in summary["sha256"].items():
        print(f"{part:>13}  sha256 {value}")
    print(compare(summary))
    return 0


def draw(folder: Path, splits: Mapping[str, Split], images: int, processes: int) -> None:
    """Write splits into a new folder, with a progress bar."""
    from rich.progress import Progress

    from lisa_tabletop.evaluation.fixed_test_set import tables, write_splits

    with Progress(transient=True) as progress:
        for _ in progress.track(
            write_splits(folder, splits, images, processes),
            total=len(tables(splits, images)),
            description="drawing tables",
        ):
            pass


def drawn_before(name: str, splits: Mapping[str, Split]) -> Path:
    """The folder in which a set lies since it was first needed; drawn now if that is now."""
    from lisa_tabletop.evaluation.fixed_test_set import IMAGES, cached

    folder = cached(name)
    if not folder.exists():
        print(f"drawing {folder}")
        draw(folder, splits, IMAGES, os.cpu_count() or 1)
    return folder
