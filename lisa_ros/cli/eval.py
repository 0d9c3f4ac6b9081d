"""`lisa-ros eval`: gIoU, cIoU, refusals, AP50 and names on the fixed test set, or on ReasonSeg."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lisa_ros.cli import add_model_arguments, model_options
from lisa_ros.writing import write_file

if TYPE_CHECKING:
    from lisa_ros.engine import Answer, Engine
    from lisa_ros.evaluation.evaluate import Sample
    from lisa_ros.evaluation.reasonseg import Item

COLUMNS = {
    "asked": "samples",
    "gIoU": "giou",
    "cIoU": "ciou",
    "refused\nrightly": "refusal_accuracy",
    "refused\nwrongly": "false_refusals",
    "AP50": "ap50",
    "names\nit": "named",
    "and its\ncolour": "named_with_color",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="folder of `lisa-ros sim-benchmark` or of ReasonSeg (default: the fixed test set,"
        " drawn the first time)",
    )
    parser.add_argument(
        "--mode",
        choices=("auto", "mask", "explain"),
        default="auto",
        help="how to ask: auto lets the model decide (default); mask always wants a mask, as LISA's"
        " own evaluation does",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="draw 40 answers as they fall (PNG or JPG)"
    )
    parser.add_argument(
        "--reliability", type=Path, metavar="PNG", help="draw how far scores can be trusted"
    )


def run(args: argparse.Namespace) -> int:
    """Ask, print the table, write what was asked for."""
    from lisa_ros.engine.load import load_engine
    from lisa_ros.evaluation import calibration
    from lisa_ros.evaluation.contact_sheet import choose, contact_sheet
    from lisa_ros.evaluation.evaluate import report
    from lisa_ros.evaluation.reasonseg import read_dataset
    from lisa_tabletop.cli.sim_benchmark import drawn_before
    from lisa_tabletop.evaluation.fixed_test_set import BENCHMARK

    items = read_dataset(args.dataset or drawn_before("benchmark", BENCHMARK))
    engine = load_engine(**model_options(args))
    chosen = choose(len(items))
    samples, shown = [], []
    for index, (sample, answer) in enumerate(ask(engine, items, args.mode)):
        samples.append(sample)
        if index in chosen:
            shown.append((sample, answer))
    results, scores = report(samples), calibration.figures(samples)
    _print(results, scores)
    if args.json:
        asked = {"model": args.model, "mode": args.mode, "questions": len(items)}
        found = {**asked, "results": results, "scores": scores}
        write_file(args.json, json.dumps(found, indent=2) + "\n")
    if args.sheet:
        contact_sheet(shown, args.sheet)
    if args.reliability:
        calibration.draw_reliability(samples, args.reliability)
    return 0


def ask(engine: Engine, items: Sequence[Item], mode: str) -> Iterator[tuple[Sample, Answer]]:
    """Ask every question, with a progress bar."""
    from rich.progress import Progress

    from lisa_ros.evaluation.evaluate import evaluate

    with Progress(transient=True) as progress:
        yield from progress.track(
            evaluate(engine, items, mode), total=len(items), description=f"asking ({mode})"
        )


def _print(results: dict[str, dict[str, dict]], scores: dict) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("questions", no_wrap=True)
    for name in COLUMNS:
        table.add_column(name, justify="right", no_wrap=True)
    for split, kinds in results.items():
        table.add_row(f"[bold]{split}")
        for kind, row in kinds.items():
            table.add_row(f"  {kind}", *(_cell(row[name]) for name in COLUMNS.values()))
        table.add_section()
    Console().print(table)
    print(
        f"scores of {scores['masks']} masks, {scores['right']} of them right: calibration error "
        f"{_cell(scores['calibration_error'])}, separation {_cell(scores['separation'])}"
    )


def _cell(value: float | int | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"
