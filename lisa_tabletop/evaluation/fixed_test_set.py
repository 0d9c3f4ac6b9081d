"""The fixed test set of the simulated tabletop, as files that any other system can be scored on.

Every split is a folder in ReasonSeg's format (reasonseg.py): a JPG and a JSON for each question.
What that format has no field for lies beside it. docs/benchmark.md describes the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from rich.progress import Progress

from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.reasonseg import OURS, SUMMARY, Item, outlines, read_dataset
from lisa_ros.writing import cache_folder, locked, written_beside
from lisa_tabletop.language.curriculum import IMPLICIT
from lisa_tabletop.language.instructions import TYPES, compose
from lisa_tabletop.language.knowledge import load_knowledge
from lisa_tabletop.world.camera import SceneView, TabletopCamera
from lisa_tabletop.world.camera_model import simulate
from lisa_tabletop.world.tabletop import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS, Tabletop

FIXED = Path(__file__).with_name("fixed_test_set.json")  # the SUMMARY of the fixed set
IMAGES, QUESTIONS = 150, 4  # images of a split, questions about each
SPARE = 2  # more are drawn, for some are answered in words alone or mean too few things
QUALITY = 95  # of the JPGs
T, Drawn = TypeVar("T"), TypeVar("Drawn")
MASK_TYPES = {name: 1.0 for name in TYPES if name != "text"}  # each kind alike


@dataclass(frozen=True)
class Split:
    """Which tables, and what is asked about them: patterns in turn, types, fewest targets."""

    patterns: tuple[str, ...]
    types: Mapping[str, float]
    seeds: range = TEST_SEEDS
    held_out: bool = False
    targets: int = 0


BENCHMARK = {
    "test-seen": Split(("train",), MASK_TYPES),
    "test-phrases": Split(("test",), MASK_TYPES),
    "test-shapes": Split(("train",), MASK_TYPES, seeds=TEST_SEEDS[200_000:], held_out=True),
    "test-absent": Split(("train", "test"), {"absent": 1.0}),
    "test-several": Split(("train", "test"), {"plural": 1.0}, targets=2),
    # nouns and uses of whole classes that training never hears
    "test-unheard": Split(("train", "test"), {"unheard": 1.0}),
}
# neither trained on nor tested on: what a score means is learnt here
VALIDATION = {"validation": Split(("train",), MASK_TYPES, seeds=VALIDATION_SEEDS)}
SETS = {"benchmark": BENCHMARK, "validation": VALIDATION}
TABLES = TRAIN_SEEDS[4_000_000:]  # of fine-tuning; no stage of nano's training renders them


def look_at(seed: int, held_out: bool = False) -> SceneView:
    """A view of one table as a camera delivers it, 640x480; everything follows from the seed."""
    scene = Tabletop(seed, held_out=held_out)
    camera = TabletopCamera(scene)
    camera.move(np.random.default_rng((seed, 1)))
    view = camera.look()
    camera.close()
    return replace(view, rgb=simulate(view.rgb, np.random.default_rng((seed, 3))))


def ask(record: Mapping, split: Split, random: np.random.Generator) -> list[dict]:
    """Up to QUESTIONS questions about all of an image, each with its `patterns`."""
    questions = []
    share = QUESTIONS // len(split.patterns)
    for patterns in split.patterns:
        drawn = compose(
            record,
            random,
            share + SPARE,
            patterns,
            types=split.types,
            forms={"name": 1.0},
            whole_frame=True,
        )
        fit = [q for q in drawn if q["form"] != "text" and len(q["targets"]) >= split.targets]
        questions += [{**question, "patterns": patterns} for question in fit[:share]]
    return questions


def tables(splits: Mapping[str, Split], images: int) -> list[tuple[int, int, bool]]:
    """The different tables of the splits: number in the split, seed, held_out."""
    kinds = dict.fromkeys((split.seeds, split.held_out) for split in splits.values())
    return [(index, seeds[index], held_out) for index in range(images) for seeds, held_out in kinds]


def draw_set(
    folder: Path, splits: Mapping[str, Split], images: int = IMAGES, processes: int | None = None
) -> None:
    """Write splits into a new folder, which appears under its name when it is complete.

    Raises:
        DatasetError: the folder holds something already.
        WriteError: nothing can be written there, or no longer.
    """
    with new_set(folder) as beside:
        for name in splits:
            (beside / name / "instances").mkdir(parents=True)
        draw_all(partial(_write_table, beside, splits), tables(splits, images), processes)
        summary = {"images": images, **summarise(beside)}
        (beside / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")


@contextlib.contextmanager
def new_set(folder: Path) -> Iterator[Path]:
    """Where to write what will appear as the new `folder` when it is complete.

    Raises:
        DatasetError: the folder holds something already.
        WriteError: nothing can be written there, or no longer.
    """
    with locked(folder):
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise DatasetError(f"{folder} is there already; name a new folder, or remove it first")
        with written_beside(folder) as beside:
            yield beside


def draw_all(draw: Callable[[T], Drawn], todo: Sequence[T], processes: int | None) -> list[Drawn]:
    """What `draw` returns for each of `todo`, which several processes draw side by side."""
    # a fork of a process that has drawn before would wait for EGL's threads for ever
    pool = ProcessPoolExecutor(processes, get_context("spawn"))
    # a process that SIGTERM ends at once leaves its pool behind
    is_main = threading.current_thread() is threading.main_thread()
    before = is_main and signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
            drawn = pool.map(draw, todo)
            return list(progress.track(drawn, len(todo), description="drawing tables"))
    finally:
        pool.shutdown(cancel_futures=True)
        if is_main:
            signal.signal(signal.SIGTERM, before)


def drawn_once(name: str) -> Path:
    """The folder in which a set of SETS lies since it was first needed; drawn now if that is now.

    Another fixed set has another folder.
    """
    folder = cache_folder() / f"{name}-{hashlib.sha256(FIXED.read_bytes()).hexdigest()[:12]}"
    while not folder.exists():
        print(f"drawing {folder}")
        with contextlib.suppress(DatasetError):  # another process may have drawn it meanwhile
            draw_set(folder, SETS[name])
    return folder


def implicit_questions(folder: Path, count: int, seed: int) -> list[Item]:
    """`count` implicit questions about simulated tables, drawn into `folder` unless they lie there.

    Another `seed` has other tables. Two questions about each: the more images, the more to learn.
    """
    if not folder.exists():
        split = Split(("train",), dict.fromkeys(IMPLICIT, 1.0), seeds=TABLES[10_000 * seed :])
        draw_set(folder, {"train": split}, images=-(-count // 2))
    # the first questions of all images, then the second ones
    items = sorted(read_dataset(folder), key=lambda item: item.image.stem.split("_")[::-1])
    if len(items) < count:
        raise DatasetError(
            f"{folder} holds only {len(items)} questions of the {count} asked for;"
            " name a new folder"
        )
    return items[:count]


def views(scenes: int) -> Iterator[SceneView]:
    """One view of each of the first `scenes` tables of the test set."""
    return map(look_at, TEST_SEEDS[:scenes])


def _write_table(folder: Path, splits: Mapping[str, Split], table: tuple[int, int, bool]) -> None:
    index, seed, held_out = table
    view = look_at(seed, held_out)
    for number, (name, split) in enumerate(splits.items()):
        if split.seeds[index] == seed and split.held_out == held_out:
            questions = ask(view.record, split, np.random.default_rng((seed, 10 + number)))
            write_questions(folder / name, f"{index:04d}", view, questions)


def write_questions(folder: Path, name: str, view: SceneView, questions: list[dict]) -> None:
    """A pair of files for every question; their images are one file under several names."""
    ids = f"instances/{name}.png"
    if questions:
        Image.fromarray(view.instances).save(folder / ids)
    for number, question in enumerate(questions):
        image = folder / f"{name}_{number}.jpg"
        if number:
            _same_file(folder / f"{name}_0.jpg", image)
        else:
            Image.fromarray(view.rgb).save(image, quality=QUALITY, subsampling=0)
        entry = _entry(view, question, ids, image.name)
        image.with_suffix(".json").write_text(json.dumps(entry), encoding="utf-8")


def _same_file(file: Path, other: Path) -> None:
    try:
        os.link(file, other)
    except OSError:  # file systems without links
        shutil.copyfile(file, other)


def _entry(view: SceneView, question: dict, ids: str, image: str) -> dict:
    """The JSON of one question."""
    things = {thing["id"]: thing for thing in view.record["objects"]}
    targets = [_target(things[target]) for target in question["targets"]]
    union = np.isin(view.instances, question["targets"])
    shapes = [
        {"label": "target", "shape_type": "polygon", "image_name": image, "points": ring}
        for ring in outlines(union)
    ]
    ours = {key: question[key] for key in ("type", "patterns", "answer")}
    ours |= {"history": question.get("history", []), "targets": targets}
    ours |= {"instances": ids, "seed": view.record["seed"]}
    return {"text": [question["instruction"]], "is_sentence": True, "shapes": shapes, OURS: ours}


def _target(thing: Mapping) -> dict:
    name = load_knowledge().kind(thing["kind"]).name
    return {"id": thing["id"], "name": name, "kind": thing["kind"], "color": thing["color"]}


def summarise(folder: Path) -> dict:
    """How many questions a set of ours holds, and the SHA-256 of what its files say, in parts.

    `questions`: words, types and meant objects; `masks`: the instance ids; `images`: the pixels
    as the JPGs decode.
    """
    items = read_dataset(folder)
    counts: Counter[str] = Counter()
    hashes = {part: hashlib.sha256() for part in ("questions", "masks", "images")}
    seen = set()
    for item in items:
        if not item.ours:
            raise DatasetError(f"{item.image} belongs to no set of ours: it has no key '{OURS}'")
        counts[item.split] += 1
        hashes["questions"].update(json.dumps(_said(item)).encode())
        if item.scene not in seen:
            seen.add(item.scene)
            hashes["masks"].update(item.ids().tobytes())
            hashes["images"].update(item.rgb().tobytes())
    return {
        "questions": dict(counts),
        "sha256": {name: h.hexdigest() for name, h in hashes.items()},
    }


def compare(summary: Mapping) -> str:
    """In words: is the set of this summary the fixed one, and if not, what that means."""
    fixed = json.loads(FIXED.read_text())
    if summary["questions"] != fixed["questions"]:
        total = sum(fixed["questions"].values())
        return (
            f"Not the fixed test set: it has {fixed['images']} images a split"
            f" and {total} questions. Figures cannot be compared with the published ones."
        )
    return {
        "": "This is the fixed test set: questions, masks and images are the recorded ones.",
        "questions": "Not the fixed test set: other questions or other objects (another version of "
        "the simulator or of its sentences). Figures cannot be compared with the published ones.",
        "masks": "The questions are those of the fixed test set, the masks are not: another "
        "renderer has moved edges of objects by a pixel. Figures may differ in the third digit.",
        "images": "Questions and masks are those of the fixed test set, the pixels are not: "
        "another renderer or JPG library shades some of them a little differently. Figures "
        "compare.",
    }[first_difference(summary, fixed)]


def first_difference(summary: Mapping, fixed: Mapping) -> str:
    """The first part whose SHA-256 is not the recorded one; empty where all are."""
    recorded = fixed["sha256"].items()
    return next((part for part, value in recorded if summary["sha256"][part] != value), "")


def _said(item: Item) -> list:
    """What a question says, without anything that follows from pixels."""
    ours = item.ours
    targets = [[one["id"], one["kind"], one["color"]] for one in ours["targets"]]
    words = [item.instruction, ours["type"], ours["answer"], item.history, targets]
    return [item.split, item.image.stem, *words]
