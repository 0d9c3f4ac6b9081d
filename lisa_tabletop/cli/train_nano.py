"""`lisa-ros train-nano`: render the world, teach the parts, join them, write the checkpoint."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from lisa_ros.cli import LAST_SEED, refuse_given
from lisa_ros.errors import check_number
from lisa_ros.writing import writable_folder

STEPS = {
    "pretrain_sam": 8000,
    "pretrain_vision_tower": 14000,
    "pretrain_language": 8000,
    "train_joint": 4000,
}
STAGES = ("render", *STEPS)
PRETRAINING = tuple(STEPS)[:-1]


class _StepsAction(argparse.Action):
    """`--steps STAGE N` as often as one likes."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        name, steps = values
        if name not in STEPS or not steps.isdecimal():
            parser.error(f"{option_string} takes a stage ({', '.join(STEPS)}) and a number")
        namespace.steps = {**namespace.steps, name: int(steps)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.set_defaults(began=time.monotonic())  # before torch is imported: that takes time, too
    add(
        "--folder",
        type=Path,
        default=Path("runs/nano"),
        help="where the run lives; a second start goes on",
    )
    add("--seed", type=int, default=0, help="of all that is drawn by chance (default: 0)")
    add("--tables", type=int, default=12_000, help="tables of six views each")
    add(
        "--first-table",
        type=int,
        default=0,
        metavar="N",
        help="render no table before this one: those that an earlier run has learnt from",
    )
    add(
        "--minutes",
        type=float,
        help="time budget of the whole training, instead of steps; rendering goes on beside it",
    )
    add(
        "--steps",
        nargs=2,
        action=_StepsAction,
        default=STEPS,
        metavar=("STAGE", "N"),
        help="how many steps a stage takes; may be given several times",
    )
    add("--stages", nargs="+", choices=STAGES, default=STAGES, help="only these (default: all)")
    add(
        "--init",
        metavar="MODEL",
        help="begin stages that have no checkpoint yet with the parts of this model, as they fit;"
        " train_joint alone goes on with the whole of it",
    )
    add(
        "--init-parts",
        nargs="+",
        choices=PRETRAINING,
        help="only these parts of it; pretrain_language also brings its tokenizer",
    )
    add(
        "--without-implicit",
        action="store_true",
        help="never ask by use or in two steps, to measure what those questions bring",
    )
    add(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: the GPU where there is one; several GPUs: start the command with torchrun",
    )
    add("--threads", type=int, default=os.cpu_count(), help="processor threads")
    add(
        "--renderers",
        type=int,
        default=max(1, (os.cpu_count() or 1) - 6),
        help="processes that render",
    )
    add("--curves", type=Path, metavar="PNG", help="only draw the curves of the run so far")


def run(args: argparse.Namespace) -> int:
    """Train, or draw what a run has done."""
    if args.curves:
        from lisa_tabletop.training.run_nano import draw_curves

        draw_curves(args.folder, args.curves)
        return 0
    for name, least in (("tables", 1), ("threads", 1), ("renderers", 0), ("first_table", 0)):
        check_number(f"--{name.replace('_', '-')}", getattr(args, name), least)
    check_number("--minutes", args.minutes, 0, above=True)
    check_number("--seed", args.seed, 0, LAST_SEED)
    if not args.init:
        refuse_given(args, ["init_parts"], "without --init")
    args.init_parts = args.init_parts or PRETRAINING
    writable_folder(args.folder)
    from lisa_tabletop.training import run_nano

    run_nano.train_nano(args)
    return 0
