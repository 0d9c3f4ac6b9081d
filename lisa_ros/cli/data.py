"""`lisa-ros data check`: which of the published data sets are there, whole, and what is missing."""

from __future__ import annotations

import argparse
from pathlib import Path

from lisa_ros.errors import LisaError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=("check",))
    add("root", type=Path, metavar="ROOT", help="the folder that LISA's authors call dataset/")
    add("sets", nargs="*", metavar="SET", help="look for these alone (default: all)")
    add(
        "--pictures",
        type=int,
        default=100,
        metavar="N",
        help="of each set, draw the masks of N pictures spread over it (default: 100)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the table and what to get where; 1 unless every set is whole.

    Those of LISA++ may be missing, where they are not asked for by name: LISA does without.
    """
    from rich.console import Console

    from lisa_ros.evaluation.dataset_types import faults
    from lisa_ros.evaluation.json_files import DatasetError
    from lisa_ros.evaluation.published import CATALOGUE, Source, open_published
    from lisa_ros.text_tables import plain_table

    if not args.root.is_dir():
        raise LisaError(f"there is no folder {args.root}")
    if args.pictures < 1:
        raise LisaError(f"--pictures must be at least 1, not {args.pictures}")
    if unknown := [name for name in args.sets if name not in CATALOGUE]:
        raise LisaError(f"there is no set {unknown[0]}; there are {', '.join(CATALOGUE)}")
    table = plain_table(("data set", "is", "pictures", "asked for"))
    table.columns[1].justify = "left"
    table.add_column("licence")
    wrong: dict[str, list[str]] = {}
    needed: dict[Source, list[str]] = {}  # what is to be got, and for which sets
    code = 0
    for name in args.sets or CATALOGUE:
        known = CATALOGUE[name]
        absent = [one for one in known.sources if not (args.root / one.becomes).exists()]
        try:
            data = open_published(args.root, name)
        except DatasetError as error:
            state = "missing" if known.sources[0] in absent else "incomplete"
            table.add_row(name, state, "", "", known.licence)
            text = str(error).removeprefix(f"{name}: ")
            if state == "incomplete":
                wrong[name] = [text]
            # what is there but at fault is to be got anew: what the sentence names first
            places = {text.find(str(args.root / one.becomes)): one for one in known.sources}
            faulty = [places[place] for place in sorted(places) if place >= 0]
            for one in dict.fromkeys([*absent, *faulty[:1]]) or known.sources:
                needed.setdefault(one, []).append(name)
            if args.sets or known.group != "lisa_plus" or state == "incomplete":
                code = 1
            continue
        wrong[name] = faults(data, args.pictures)
        state = f"faults: {len(wrong[name])}" if wrong[name] else "whole"
        table.add_row(name, state, f"{len({*data.images}):,}", f"{data.things():,}", known.licence)
        code = 1 if wrong[name] else code
    Console(soft_wrap=True).print(table)
    for name, found in wrong.items():
        for sentence in found[:10]:
            print(f"{name}: {sentence}")
        if len(found) > 10:
            print(f"{name}: and {len(found) - 10} faults more")
    if needed:
        print(f"\nto get, for {args.root}:")
    for one, names in needed.items():
        print(f"{one.what} as {one.becomes}: for {', '.join(names)}; {one.licence}")
        print(f"  {one.address}")
    return code
