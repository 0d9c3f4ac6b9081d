"""`lisa-ros finetune`: teach a model the questions of a folder, or implicit ones of the simulator.

The experiment of the paper with 239 questions is `python -m benchmarks.implicit_questions`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from lisa_ros.cli import add_model_arguments, model_options
from lisa_ros.errors import LisaError
from lisa_ros.writing import writable_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_arguments(parser, remote=False)
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
    add("--output", type=Path, required=True, help="folder for the new checkpoint")
    add("--steps", type=int, default=300, help="of 8 questions each (default: 300)")
    add("--rate", type=float, default=3e-4, help="peak learning rate (default: LISA's own, 3e-4)")
    add("--seed", type=int, default=0)


def run(args: argparse.Namespace) -> int:
    """Fine-tune and write; nothing is trained before model, questions and room are found good."""
    for name in ("steps", "rate", "questions"):
        value = getattr(args, name)
        if value is not None and not value > 0:  # NaN too
            raise LisaError(f"--{name} must be more than 0, not {value}")
    if (args.output / "model.safetensors").exists():
        raise LisaError(f"{args.output} holds a checkpoint already; name a new folder")
    from lisa_ros.evaluation.reasonseg import read_items, tabletop

    tables = None if args.dataset else tabletop()
    items = read_items(args.dataset) if args.dataset else []
    writable_folder(args.output)
    from lisa_ros.engine.load import load_lisa

    lisa = load_lisa(**model_options(args))
    if tables:  # minutes: what the model lacks has been told by now
        print(f"drawing {args.output / 'questions'}")
        items = tables.implicit_questions(args.output / "questions", args.questions, args.seed)
    print(f"{len(items)} questions about {len({item.scene for item in items})} images")
    from lisa_ros.training.recipe import finetune

    try:
        finetune(lisa, items, args.output, steps=args.steps, lr=args.rate, seed=args.seed)
    except KeyboardInterrupt as stopped:
        print(f"{stopped or 'stopped'}: the same command goes on from there", file=sys.stderr)
        return 130
    print(
        f"{args.output}: a native checkpoint; `lisa-ros calibrate` makes its scores mean something"
    )
    return 0
