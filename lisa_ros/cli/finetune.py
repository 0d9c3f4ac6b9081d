"""`lisa-ros finetune`: teach a model the questions of a folder, or implicit ones of the simulator.

The experiment of the paper with 239 questions is `python -m benchmarks.implicit_questions`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from lisa_ros.cli import add_model_arguments, model_options
from lisa_ros.errors import LisaError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="questions in ReasonSeg's format, as `lisa-ros sim-benchmark` also writes them",
    )
    source.add_argument(
        "--questions",
        type=int,
        metavar="N",
        help="N implicit questions about simulated tables, drawn into OUTPUT/questions",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for the new checkpoint")
    parser.add_argument("--steps", type=int, default=300, help="of 8 questions each (default: 300)")
    parser.add_argument(
        "--rate", type=float, default=3e-4, help="peak learning rate (default: LISA's own, 3e-4)"
    )
    parser.add_argument("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Fine-tune and write; nothing is written before the model and the questions are found good."""
    from rich.progress import Progress

    for name in ("steps", "rate", "questions"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            raise LisaError(f"--{name} must be more than 0, not {value}")
    if args.output.exists() and not args.output.is_dir():
        raise LisaError(f"{args.output} is a file; name a folder for the new checkpoint")
    if (args.output / "config.json").exists():
        raise LisaError(f"{args.output} holds a checkpoint already; name a new folder")
    from lisa_ros.engine.load import load_lisa
    from lisa_ros.evaluation.reasonseg import tabletop
    from lisa_ros.training.finetune import finetune, read_items, save_half

    lisa = load_lisa(**model_options(args))
    if args.dataset:
        items = read_items(args.dataset)
    else:
        folder = args.output / "questions"
        print(f"drawing {folder}")
        items = tabletop().implicit_questions(folder, args.questions, args.seed)
    print(f"{len(items)} questions about {len({item.scene for item in items})} pictures")
    lessons = finetune(lisa, items, steps=args.steps, rate=args.rate, seed=args.seed)
    with Progress() as progress:
        task = progress.add_task("fine-tuning", total=args.steps)
        for losses in lessons:
            text = " ".join(f"{name} {value:.3f}" for name, value in losses.items())
            progress.update(task, advance=1, description=text)
    save_half(lisa, args.output)
    print(
        f"{args.output}: a native checkpoint; `lisa-ros calibrate` makes its scores mean something"
    )
    return 0
