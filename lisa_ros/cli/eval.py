"""`lisa-ros eval`: gIoU, cIoU and refusals on scenes and sentences that training never saw."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="nano", help="model folder or name (default: nano)")
    parser.add_argument("--scenes", type=int, default=100, help="test scenes (default: 100)")
    parser.add_argument("--questions", type=int, default=6, help="questions a scene (default: 6)")
    parser.add_argument(
        "--split",
        choices=("train", "test"),
        default="train",
        help="sentence patterns that training used, or those it never saw; scenes are always new",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="write a sheet of 40 answers")


def run(args: argparse.Namespace) -> int:
    """Ask, print the table, write what was asked for."""
    from rich.progress import Progress

    from lisa_ros.engine import Engine
    from lisa_ros.learn.evaluation import evaluate
    from lisa_ros.model.checkpoint import load

    engine = Engine(load(args.model))
    samples, meters = [], {}
    with Progress() as progress:
        task = progress.add_task("asking", total=args.scenes)
        for sample, meters in evaluate(engine, args.scenes, args.questions, args.split):  # noqa: B007
            samples.append(sample)
            progress.update(task, completed=len({s.view.record["seed"] for s in samples}))
        progress.update(task, completed=args.scenes)
    report = {name: meter.report() for name, meter in sorted(meters.items())}
    named = [sample.named for sample in samples if sample.named is not None]
    report["all"]["names_the_right_kind"] = sum(named) / max(1, len(named))
    _print(report)
    if args.json:
        args.json.write_text(json.dumps({**vars_of(args), "results": report}, indent=2) + "\n")
    if args.sheet:
        from lisa_ros.learn.contact_sheet import contact_sheet

        contact_sheet(samples, args.sheet)
    return 0


def vars_of(args: argparse.Namespace) -> dict:
    """What the figures depend on."""
    return {name: getattr(args, name) for name in ("model", "scenes", "questions", "split")}


def _print(report: dict[str, dict]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("questions", "samples", "gIoU", "cIoU", "refused rightly", "refused wrongly")
    for name, row in report.items():
        values = (row["giou"], row["ciou"], row["refusal_accuracy"], row["false_refusals"])
        cells = ("-" if value is None else f"{value:.3f}" for value in values)
        table.add_row(name, str(row["samples"]), *cells)
    Console().print(table)
    print(f"answers that name the right kind: {report['all']['names_the_right_kind']:.3f}")
