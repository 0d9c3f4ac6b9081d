"""`lisa-ros train-nano`: render the world, teach the parts, join them, write the checkpoint."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

STAGES = ("render", "see", "look", "read", "join")
PARTS = ("see", "look", "read")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/nano"),
        help="where the run lives; a second start goes on",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shards", type=int, default=48, help="rendered shards of 300 views each")
    parser.add_argument("--see-steps", type=int, default=8200)
    parser.add_argument("--look-steps", type=int, default=14200)
    parser.add_argument("--read-steps", type=int, default=5300)
    parser.add_argument("--join-steps", type=int, default=1600)
    parser.add_argument(
        "--stages", nargs="+", choices=STAGES, default=STAGES, help="only these, in this order"
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="begin stages that have no checkpoint yet with the parts of this model, as they fit",
    )
    parser.add_argument(
        "--init-parts",
        nargs="+",
        choices=PARTS,
        default=PARTS,
        help="only these parts of it; `read` also brings its tokenizer",
    )
    parser.add_argument(
        "--without-implicit",
        action="store_true",
        help="read and join never ask by use or in two steps (for the experiment of headline.py)",
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: the GPU where there is one; several GPUs: start the command with torchrun",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="processor threads")
    parser.add_argument(
        "--curves", type=Path, metavar="PNG", help="only draw the curves of the run so far"
    )


def run(args: argparse.Namespace) -> int:
    """Train, or draw what a run has done."""
    if args.curves:
        from lisa_tabletop.training.curves import draw_curves

        draw_curves(args.folder, args.curves)
        return 0
    from lisa_tabletop.training import run_nano

    run_nano.train_nano(args)
    return 0
