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
        "--seed", type=int, default=0,
        help="which series of tables: 0 is the fixed one (default); tune a tracker on another",
    )  # fmt: skip
    add(
        "--seconds", type=float, default=10.0,
        help="length of each clip, into which all that happens is squeezed (default: 10)",
    )  # fmt: skip
    add("--processes", type=int, default=os.cpu_count(), help="how many draw side by side")
    add("--check", action="store_true", help="write nothing: say whether FOLDER is the fixed set")


def run(args: argparse.Namespace) -> int:
    """Write the clips, or read them; say how many there are and whether they are the fixed ones."""
    from lisa_ros.errors import check_number
    from lisa_tabletop.evaluation.fixed_clips import (
        CLIPS,
        SERIES,
        compare_clips,
        draw_clips,
        summarise_clips,
    )
    from lisa_tabletop.world.moving_table import RATE, STRIDE

    if not args.check:
        clips = CLIPS if args.clips is None else args.clips
        check_number("--clips", clips, 1, STRIDE)
        check_number("--seed", args.seed, 0, SERIES - 1)
        check_number("--seconds", args.seconds, 1, 600)
        check_number("--processes", args.processes, 1)
        draw_clips(args.folder, clips, args.seed, args.seconds, args.processes)
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
