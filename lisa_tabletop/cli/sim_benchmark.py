"""`lisa-ros sim-benchmark`: the fixed test set of the simulated tabletop, in ReasonSeg's format."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="where to write it: a new folder")
    add("--images", type=int, help="images of each split (default: as many as the fixed set has)")
    add("--processes", type=int, help="how many draw side by side (default: one a processor)")
    add("--check", action="store_true", help="write nothing: say whether FOLDER is the fixed set")


def run(args: argparse.Namespace) -> int:
    """Write the set, or read one; say how many questions it has and whether it is the fixed one."""
    from lisa_ros.cli import refuse_given
    from lisa_ros.errors import check_number
    from lisa_tabletop.evaluation.fixed_test_set import (
        BENCHMARK,
        IMAGES,
        compare,
        draw_set,
        summarise,
    )

    if args.check:
        refuse_given(args, ("images", "processes"), "with --check")
    else:
        images = IMAGES if args.images is None else args.images
        check_number("--images", images, 1)
        processes = os.cpu_count() if args.processes is None else args.processes
        check_number("--processes", processes, 1)
        draw_set(args.folder, BENCHMARK, images, processes)
    summary = summarise(args.folder)
    for split, count in summary["questions"].items():
        print(f"{split:>13}  {count} questions")
    for part, value in summary["sha256"].items():
        print(f"{part:>13}  sha256 {value}")
    print(compare(summary))
    return 0
