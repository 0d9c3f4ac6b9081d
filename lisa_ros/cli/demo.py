"""`lisa-ros demo`: the recorded camera, the node and some questions, over real ROS 2 topics."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from lisa_ros.writing import writable_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="nano", help="shipped model or folder (default: nano)")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder for images and logs"
    )


def run(args: argparse.Namespace) -> int:
    """Ask everything, show a table, say what is wrong; 1 where a question got no answer at all."""
    writable_folder(args.output)
    from rich.console import Console

    from lisa_ros.demo.demonstration import ask_all, table_of

    console = Console(width=None if os.isatty(1) else 150)
    replies = ask_all(args.model, args.output, console)
    console.print(table_of(replies))
    console.print(f"The node's overlay of each answer: {args.output}/NN_*.png")
    wrong = [reply for reply in replies if reply.fault]
    console.print(f"{len(replies) - len(wrong)} of {len(replies)} answers are right.")
    for reply in wrong:
        console.print(f"[yellow]wrong:[/] {reply.question.instruction}: {reply.fault}")
    return 0 if all(reply.answered for reply in replies) else 1
