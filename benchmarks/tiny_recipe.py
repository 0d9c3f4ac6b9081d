"""The preset `tiny` on simulated tables, with words that nano never met, on held-out tables.

    python -m benchmarks.tiny_recipe --folder runs/tiny [--write docs/training.md]

Every kind of thing on the fixed test set's tables gets a made-up name; questions about some tables
are learnt from, those about others are the validation. ReasonSeg's format throughout. Ends with 1
unless gIoU rises by LEAST_GAIN with every seed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

import numpy as np

from benchmarks.generated_tables import page_option, show
from lisa_ros.evaluation.reasonseg import TARGET, Item, outlines, read_dataset, tabletop
from lisa_ros.model.checkpoint import load
from lisa_ros.text_tables import markdown_table
from lisa_ros.training.objective import Objective
from lisa_ros.training.recipe import follow, validation
from lisa_ros.training.recipe_file import read_recipe

LEAST_GAIN = 0.15  # of gIoU
SYLLABLES = ("ba", "do", "fi", "ku", "le", "mo", "ni", "pu", "ra", "su", "ti", "vo", "we", "zi")


def made_up(kinds: list[str]) -> dict[str, str]:
    """A name of three syllables for each kind, from a fixed seed."""
    random = np.random.default_rng(0)
    return {kind: "the " + "".join(random.choice(SYLLABLES, 3)) for kind in kinds}


def write_questions(folder: Path, items: list[Item], names: dict[str, str]) -> None:
    """Questions about single things in ReasonSeg's format, an image and a JSON each."""
    folder.mkdir(parents=True)
    for number, item in enumerate(items):
        mask = item.truth()[0] == TARGET
        shutil.copy(item.image, folder / f"{number:04d}{item.image.suffix}")
        shapes = [{"label": "target", "points": ring} for ring in outlines(mask)]
        entry = {"text": [names[item.ours["targets"][0]["name"]]], "is_sentence": False}
        (folder / f"{number:04d}.json").write_text(json.dumps(entry | {"shapes": shapes}))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--kinds", type=int, default=6, help="of things, the most frequent ones")
    parser.add_argument("--questions", type=int, default=120, help="learnt from")
    parser.add_argument("--held-out", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=3)
    page_option(parser, "--write", "tiny")
    args = parser.parse_args()
    items = [item for item in read_dataset(tabletop().drawn_once("benchmark"))
             if len(item.ours["targets"]) == 1 and not item.history]  # fmt: skip
    count = {}
    for item in items:
        count.setdefault(item.ours["targets"][0]["name"], set()).add(item.scene)
    kinds = sorted(count, key=lambda kind: (-len(count[kind]), kind))[: args.kinds]
    seen, chosen = set(), []
    for item in items:  # of a kind on a table one question
        key = item.scene, item.ours["targets"][0]["name"]
        if key[1] in kinds and key not in seen:
            seen.add(key)
            chosen.append(item)
    scenes = list(dict.fromkeys(item.scene for item in chosen))
    np.random.default_rng(1).shuffle(scenes)
    held = set(map(tuple, scenes[: len(scenes) // 4]))
    names = made_up(kinds)
    parts = {
        "train": [item for item in chosen if item.scene not in held][: args.questions],
        "held-out": [item for item in chosen if item.scene in held][: args.held_out],
    }
    for part, some in parts.items():
        if not (args.folder / part).exists():
            write_questions(args.folder / part, some, names)
    lisa = load("nano")
    before = validation(Objective(lisa.network, lisa.processor), lisa,
                        read_dataset(args.folder / "held-out"))  # fmt: skip
    rows, gains = [], []
    for seed in range(args.seeds):
        given = {"questions": str(args.folder / "train"), "output": str(args.folder / f"{seed}"),
                 "validation": str(args.folder / "held-out"), "seed": seed}  # fmt: skip
        after = follow(read_recipe("tiny", given))
        figures = [one[name] for name in ("giou", "ciou") for one in (before, after)]
        rows.append([str(seed), *(f"{one:.3f}" for one in figures)])
        gains.append(after["giou"] - before["giou"])
        print(" | ".join(rows[-1]), flush=True)
    head = ["seed", "gIoU before", "after", "cIoU before", "after"]
    show(markdown_table(head, rows), args.write, "tiny")
    return int(min(gains) < LEAST_GAIN)


if __name__ == "__main__":
    sys.exit(main())
