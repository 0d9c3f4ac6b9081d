"""`lisa-ros data check`: which of the published data sets are there, whole, and what is missing."""

from __future__ import annotations

import argparse
from pathlib import Path

from lisa_ros.errors import LisaError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("check",))
    parser.add_argument(
        "root", type=Path, metavar="ROOT", help="the folder that LISA's authors call dataset/"
    )
    parser.add_argument(
        "--pictures",
        type=int,
        default=100,
        metavar="N",
        help="of each set, draw the masks of N pictures spread over it (default: 100)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table; 1 if a set that is there has a fault."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from lisa_ros.evaluation.dataset_types import count, faults
    from lisa_ros.evaluation.published import CATALOGUE, open_published
    from lisa_ros.evaluation.reasonseg import DatasetError

    if not args.root.is_dir():
        raise LisaError(f"there is no folder {args.root}")
    if args.pictures < 1:
        raise LisaError(f"--pictures must be at least 1, not {args.pictures}")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name, justify in (("data set", "left"), ("is", "left"), ("pictures", "right")):
        table.add_column(name, justify=justify, no_wrap=True)
    table.add_column("asked for", justify="right", no_wrap=True)
    table.add_column("licence")
    missing, wrong = {}, {}
    for name, known in CATALOGUE.items():
        try:
            data = open_published(args.root, name)
        except DatasetError as error:
            missing[name] = str(error)
            table.add_row(name, "missing", "", "", known.licence)
            continue
        found = faults(data, args.pictures)
        if found:
            wrong[name] = found
        pictures, things = count(data)
        state = f"faults: {len(found)}" if found else "whole"
        table.add_row(name, state, f"{pictures:,}", f"{things:,}", known.licence)
    Console(soft_wrap=True).print(table)
    for sentence in missing.values():
        print(sentence)
    for name in missing:
        print(f"get {name}: {CATALOGUE[name].get} ({CATALOGUE[name].licence})")
    for name, found in wrong.items():
        for sentence in found[:10]:
            print(f"{name}: {sentence}")
        if len(found) > 10:
            print(f"{name}: and {len(found) - 10} faults more")
    return 1 if wrong else 0
