"""`lisa-ros sim-clips`: clips of the simulated tabletop, in DAVIS 2017's folders."""

from __future__ import annotations

import argparse
import os
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, help="where to write them: a new folder")
    add("--clips", type=int, help="how many (default: as the fixed set, 63)")
    add(
        "--seed", type=int,
        help="which series of tables: 0 is the fixed one (default); tune a tracker on another",
    )  # fmt: skip
    add(
        "--seconds", type=float,
        help="length of each clip, into which all that happens is squeezed (default: 10)",
    )  # fmt: skip
    add("--processes", type=int, help="how many draw side by side (default: one a processor)")
    add("--check", action="store_true", help="write nothing: say whether FOLDER is the fixed set")


def run(args: argparse.Namespace) -> int:
    """Write the clips, or read them; say how many there are and whether they are the fixed ones."""
    from lisa_ros.cli import refuse_given
    from lisa_ros.errors import check_number
    from lisa_tabletop.evaluation.fixed_clips import (
        CLIPS,
        SERIES,
        compare_clips,
        draw_clips,
        summarise_clips,
    )
    from lisa_tabletop.world.moving_table import RATE, STRIDE

    if args.check:
        refuse_given(args, ("clips", "seed", "seconds", "processes"), "with --check")
    else:
        clips = CLIPS if args.clips is None else args.clips
        series, seconds = args.seed or 0, 10.0 if args.seconds is None else args.seconds
        processes = os.cpu_count() if args.processes is None else args.processes
        check_number("--clips", clips, 1, STRIDE)
        check_number("--seed", series, 0, SERIES - 1)
        check_number("--seconds", seconds, 1, 600)
        check_number("--processes", processes, 1)
        draw_clips(args.folder, clips, series, seconds, processes)
    summary = summarise_clips(args.folder)
    print(
        f"{summary['frames']} frames at {RATE} a second in {sum(summary['clips'].values())} clips:"
    )
    for kind, count in summary["clips"].items():
        print(f"{kind:>10}  {count}")
    for part, value in summary["sha256"].items():
        print(f"{part:>10}  sha256 {value}")
    print(compare_clips(summary))
    return 0
