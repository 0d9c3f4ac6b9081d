"""`lisa-ros eval`: gIoU, cIoU, refusals, AP50 and names on the fixed test set, or on ReasonSeg."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lisa_ros.cli import add_model_arguments, model_options
from lisa_ros.errors import LisaError
from lisa_ros.writing import writable_file, writable_folder, write_file

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
        choices=("auto", "mask", "explain", "semantic"),
        default="auto",
        help="how to ask: auto lets the model decide (default); mask always wants a mask, as LISA's"
        " own evaluation does; semantic: one mask for a category (LISA++)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    parser.add_argument(
        "--sheet", type=Path, metavar="FILE", help="draw 40 answers as they fall (PNG or JPG)"
    )
    parser.add_argument(
        "--reliability", type=Path, metavar="PNG", help="draw how far scores can be trusted"
    )


def run(args: argparse.Namespace) -> int:
    """Ask, print the table, write what was asked for; 1 if there was what could not be asked."""
    for path in filter(None, (args.json, args.sheet, args.reliability)):
        writable_folder(path.parent)
        writable_file(path)
    from lisa_ros.evaluation.reasonseg import read_dataset, tabletop

    folder = args.dataset or tabletop().drawn_once("benchmark")
    items = read_dataset(folder)  # before torch is imported, which takes seconds
    from lisa_ros.engine.load import load_engine
    from lisa_ros.evaluation import calibration
    from lisa_ros.evaluation.evaluate import report
    from lisa_ros.evaluation.plots import choose, contact_sheet, draw_reliability

    comparable = _comparable(folder) if all(item.ours for item in items) else ""
    engine = load_engine(**model_options(args))
    chosen = choose(len(items))
    samples, shown = [], []
    for index, (sample, answer) in enumerate(ask(engine, items, args.mode)):
        samples.append(sample)
        if index in chosen and answer is not None:
            shown.append((sample, answer))
    asked, unasked = [s for s in samples if not s.fault], [s for s in samples if s.fault]
    results, scores = report(asked), calibration.figures(asked)
    _print(results, scores)
    found = {"model": args.model, "mode": args.mode, "questions": len(items)}
    found |= {"comparable": comparable, "results": results, "scores": scores}
    if unasked:
        found["unasked"] = {str(s.item.image): s.fault for s in unasked}
        found["results_with_unasked_as_zero"] = zeros = report(samples)
        _print_unasked(unasked, len(items), zeros)
    if comparable:
        print(comparable)
    if args.json:
        write_file(args.json, json.dumps(found, indent=2) + "\n")
    if args.sheet:
        contact_sheet(shown, args.sheet)
    if args.reliability:
        draw_reliability(asked, args.reliability)
    return 1 if unasked else 0


def _comparable(folder: Path) -> str:
    """Whether figures on a set of ours can be compared with the published ones, as a sentence."""
    from lisa_ros.evaluation.reasonseg import tabletop

    try:
        sets = tabletop()
        return sets.compare(sets.summarise(folder))
    except LisaError as error:
        return f"Not compared with the fixed test set: {error}"


def ask(engine: Engine, items: Sequence[Item], mode: str) -> Iterator[tuple[Sample, Answer | None]]:
    """Ask every question, with a progress bar."""
    from rich.progress import Progress

    from lisa_ros.evaluation.evaluate import evaluate

    with Progress(transient=True) as progress:
        yield from progress.track(
            evaluate(engine, items, mode), total=len(items), description=f"asking ({mode})"
        )


def _print_unasked(unasked: Sequence[Sample], count: int, zeros: dict) -> None:
    """Name what could not be asked, and the figures in which it counts as wrong."""
    print(f"{len(unasked)} of {count} questions could not be asked and are not in these figures:")
    for sample in unasked:
        print(f"  {sample.item.split}/{sample.item.image.name}: {sample.fault}")
    for split, kinds in zeros.items():
        row = list(kinds.values())[-1]
        print(
            f"with them as zero, {split}: gIoU {_cell(row['giou'])}, cIoU {_cell(row['ciou'])}"
            f" of {row['samples']}"
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
