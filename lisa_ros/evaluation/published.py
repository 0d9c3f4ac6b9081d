"""The public data sets that LISA learns from, each in the folder layout in which it is published.

    ROOT/ade20k/{images,annotations}/training     ROOT/cocostuff/train2017   ROOT/coco/train2017
    ROOT/mapillary/{config_v2.0.json,training}    ROOT/vlpart/{paco,pascal_part}
    ROOT/refer_seg/{refclef,refcoco,refcoco+,refcocog,images}     ROOT/llava_dataset
    ROOT/reason_seg/ReasonSeg/{train,val,test,explanatory}        ROOT/reason_seg_plus

ROOT is what LISA's authors call their `dataset` folder; classes and addresses are in
`published.yaml`. Opening a set lists its images and reads its annotations; no image is opened.
What is missing is said once, by the file's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml

from lisa_ros.evaluation.coco import CocoFile, read_refer
from lisa_ros.evaluation.dataset_types import (
    Grounded,
    LabelMaps,
    Parts,
    Published,
    Reasoning,
    Referring,
    VisualDialogues,
)
from lisa_ros.evaluation.json_files import (
    DatasetError,
    entries_of,
    place,
    read_json,
    require,
    text_of,
)
from lisa_ros.evaluation.reasonseg import read_dataset
from lisa_ros.model.config import SEG

_KNOWN = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


def _ade20k(root: Path) -> LabelMaps:
    folder = root / "ade20k"
    images = _images(folder / "images" / "training", ".jpg")
    labels = [folder / "annotations" / "training" / f"{one.stem}.png" for one in images]
    _all_there(labels, folder, lambda n: str(images[n]))
    return LabelMaps(images, labels, _KNOWN["classes"]["ade20k"], shift=1)


def _cocostuff(root: Path) -> LabelMaps:
    labels = _images(root / "cocostuff" / "train2017", ".png")
    images = [root / "coco" / "train2017" / f"{one.stem}.jpg" for one in labels]
    _all_there(images, root / "cocostuff", lambda n: str(labels[n]))
    classes = _KNOWN["classes"]["cocostuff"]
    # the names with a dash are kinds of a thing ("wall-brick"), which nobody says
    dashed = frozenset(i for i, name in enumerate(classes) if "-" in name)
    return LabelMaps(images, labels, classes, left_out=dashed)


def _mapillary(root: Path) -> LabelMaps:
    folder = root / "mapillary"
    config = folder / "config_v2.0.json"
    content, classes = read_json(config), []
    with entries_of(
        lambda: place(config, len(classes), "labels"), "gives no readable name of a class"
    ):
        for one in content["labels"]:
            classes.append(text_of(one, "readable").lower())
    labels = _images(folder / "training" / "v2.0" / "labels", ".png")
    images = [folder / "training" / "images" / f"{one.stem}.jpg" for one in labels]
    _all_there(images, folder, lambda n: str(labels[n]))
    return LabelMaps(images, labels, classes)


def _paco_lvis(root: Path) -> Parts:
    coco = CocoFile.read(root / "vlpart" / "paco" / "annotations" / "paco_lvis_v1_train.json")
    # "bench", "bottle_(drink):cap": what stands in brackets tells LVIS's senses apart
    names: dict[int, str | tuple[str, str]] = {}
    for key, name in coco.categories.items():
        thing, *part = (word.split("_(")[0] for word in name.strip().split(":"))
        names[key] = (thing, part[0]) if part else thing
    return _parts(coco, root / "coco", names)


def _pascal_part(root: Path) -> Parts:
    folder = root / "vlpart" / "pascal_part"
    coco = CocoFile.read(folder / "train.json")
    names = {key: tuple(name.strip().split(":")) for key, name in coco.categories.items()}
    for number, name in enumerate(names.values()):
        if len(name) != 2:
            where = place(coco.path, number, "categories")
            raise DatasetError(f"{where}: the category {':'.join(name)} is no object:part")
    return _parts(coco, folder / "VOCdevkit" / "VOC2010" / "JPEGImages", names)


def _parts(coco: CocoFile, folder: Path, names: Mapping) -> Parts:
    ids = sorted(coco.images)
    for one in coco.listed:
        if one.get("category_id") not in names:
            raise DatasetError(
                f"{coco.place(one)}: annotation {one['id']} has no category_id of the file's"
                " categories"
            )
    return Parts(_images_of(coco, folder, ids), coco, ids, names)


def open_referring(root: Path, name: str, split: str) -> Referring:
    """A split of refCLEF, refCOCO, refCOCO+ (all as UNC cut them) or refCOCOg (UMD)."""
    folder = root / "refer_seg"
    coco, sentences = read_refer(folder / name, "umd" if name == "refcocog" else "unc", split)
    below = "saiapr_tc-12" if name == "refclef" else "mscoco/images/train2014"
    images, ids = _images_of(coco, folder / "images" / below, sentences), list(sentences)
    return Referring(images, coco, ids, list(sentences.values()))


def _llava_instruct(root: Path) -> VisualDialogues:
    path = root / "llava_dataset" / "llava_instruct_150k.json"
    images, turns, numbers = [], [], []
    with _entries(path, "is no dialogue") as entries:
        for number, entry in entries:
            if "image" not in entry:  # the mix of LLaVA-1.5 has dialogues about nothing seen
                continue
            said = [(one["from"], text_of(one, "value").replace("<image>", "").strip())
                    for one in entry["conversations"]]  # fmt: skip
            said = said[bool(said) and said[0][0] != "human" :]
            pairs = list(zip(said[::2], said[1::2], strict=True))
            in_turns = all((q[0], a[0]) == ("human", "gpt") for q, a in pairs)
            require(pairs and in_turns, "human and gpt do not take turns")
            images.append(root / "coco" / "train2017" / text_of(entry, "image"))
            turns.append([(question, answer) for (_, question), (_, answer) in pairs])
            numbers.append(number)
    _all_there(images, path, lambda n: place(path, numbers[n]))
    return VisualDialogues(images, turns)


def open_reasonseg(root: Path, split: str, *, explained: bool = False) -> Reasoning:
    """A split of ReasonSeg; `explained`: with the reasons of `explanatory/train.json`."""
    folder = root / "reason_seg" / "ReasonSeg"
    if not (folder / split).is_dir():
        raise DatasetError(f"ReasonSeg has no split {split}: there is no folder {folder / split}")
    items, reasons = read_dataset(folder / split), {}
    if explained:
        path = folder / "explanatory" / "train.json"
        with _entries(path, "has no image and outputs") as entries:
            for _, entry in entries:
                reasons[text_of(entry, "image")] = text_of(entry, "outputs")
    return Reasoning([item.image for item in items], items, reasons)


_LISTED = re.compile(r"\[[^\[\]]*?\d[^\[\]]*?\]|[<《]\s*\d+\s*\|[^>》]*[>》]")
_ID = re.compile(r"<\s*(\d+)\s*[|>]|《\s*(\d+)\s*\|")


def _lisa_plus_instances(root: Path) -> Grounded:
    path = root / "reason_seg_plus" / "LISA_Plus_Instance_Seg.json"
    coco = CocoFile.read(root / "coco" / "annotations" / "instances_train2017.json")
    images, turns, annotations = [], [], []
    with _entries(path, "is no question") as entries:
        for number, entry in entries:
            ids = entry["ID"]
            numbers = isinstance(ids, list) and all(re.fullmatch(r"\d+", str(one)) for one in ids)
            require(numbers, f"ID must be a list of whole numbers, not {ids!r}")
            ids = [int(one) for one in ids]
            images.append(root / "coco" / "train2017" / Path(text_of(entry, "img_path")).name)
            turns.append([(text_of(entry, "English Question"), _enumerate(len(ids)) + ".")])
            annotations.append(_known(ids, coco, path, number, entry))
    _all_there(images, path, lambda n: place(path, n))
    groups = [[0] * len(ids) for ids in annotations]  # a list of instances has no order
    return Grounded(images, turns, coco, annotations, groups, instances=True)


def _lisa_plus_dialogues(root: Path) -> Grounded:
    path = root / "reason_seg_plus" / "LISA_Plus_Conversations.json"
    coco = CocoFile.read(root / "coco" / "annotations" / "instances_train2017.json")
    images, turns, annotations, groups = [], [], [], []
    ids: list[int] = []
    lists: list[int] = []

    def mark(match: re.Match) -> str:
        """[<380| remote>, <348| remote>] becomes a [SEG] each."""
        own = [int(a or b) for a, b in _ID.findall(match[0])]
        lists.extend([len(ids)] * len(own))
        ids.extend(own)
        return _enumerate(len(own)) if own else match[0]

    with _entries(path, "is no dialogue") as entries:
        for number, entry in entries:
            ids, lists = [], []
            said = re.split(r"<(person|robot)>:", text_of(entry, "output"))[1:]
            people, robots = said[1::4], said[3::4]
            takes_turns = said[::2] == ["person", "robot"] * len(people)
            require(takes_turns, "person and robot do not take turns")
            turns.append([
                (_LISTED.sub("", asked).strip(), _LISTED.sub(mark, told).strip())
                for asked, told in zip(people, robots, strict=True)
            ])  # fmt: skip
            images.append(root / "coco" / "train2017" / Path(text_of(entry, "img_path")).name)
            annotations.append(_known(ids, coco, path, number, entry))
            groups.append(lists)
    _all_there(images, path, lambda n: place(path, n))
    return Grounded(images, turns, coco, annotations, groups, instances=False)


def _enumerate(count: int) -> str:
    """`[SEG]`, `[SEG] and [SEG]`, `[SEG], [SEG] and [SEG]`."""
    first = ", ".join([SEG] * (count - 1))
    return f"{first} and {SEG}" if first else SEG


def _known(
    ids: Sequence[int], coco: CocoFile, path: Path, number: int, entry: Mapping
) -> Sequence[int]:
    if unknown := [one for one in ids if one not in coco.annotations]:
        raise DatasetError(
            f"{_place(path, number, entry)} is about annotation {unknown[0]}, which"
            f" {coco.path.name} does not have"
        )
    return ids


def _place(path: Path, number: int, entry: object) -> str:
    """The file, line and number of an entry, and what tells it from others in its own words."""
    known = entry if isinstance(entry, Mapping) else {}
    name = next((f": {key} {known[key]}" for key in ("id", "img_path") if key in known), "")
    return place(path, number) + name


@contextmanager
def _entries(path: Path, what: str) -> Iterator[Iterator[tuple[int, Mapping]]]:
    """The entries of a list, numbered; `what` one is not, is said with its place (`entries_of`)."""
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DatasetError(f"{path} must be a list of entries")
    number, entry = 0, None

    def walk() -> Iterator[tuple[int, Mapping]]:
        nonlocal number, entry
        for number, entry in enumerate(entries):  # noqa: UP028, it notes where it stands
            yield number, entry

    with entries_of(lambda: _place(path, number, entry), what):
        yield walk()


def _images(folder: Path, ending: str) -> list[Path]:
    """The files of a folder with that ending, by name."""
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}")
    found = sorted(path for path in folder.iterdir() if path.suffix == ending)
    if not found:
        raise DatasetError(f"{folder} holds no {ending} file")
    return found


def _images_of(coco: CocoFile, folder: Path, ids: Iterable[int]) -> list[Path]:
    """The images in a folder, each of them there."""
    entries = [coco.images[one] for one in ids]
    images = [folder / one["file_name"] for one in entries]
    _all_there(images, coco.path, lambda n: coco.place(entries[n]))
    return images


def _all_there(paths: Sequence[Path], names: Path, needed_by: Callable[[int], str]) -> None:
    """DatasetError unless every file is there that the file or folder `names` needs, and one is.

    A folder is listed once, however many it holds.
    """
    if not paths:
        raise DatasetError(f"{names} names no image: there is nothing to learn from it")
    listed: dict[Path, set[str]] = {}
    missing = []
    for number, path in enumerate(paths):
        if path.parent not in listed:
            there = path.parent.is_dir()
            listed[path.parent] = {one.name for one in os.scandir(path.parent)} if there else set()
        if path.name not in listed[path.parent]:
            missing.append(number)
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(paths)} files that its annotations need are not there, the"
            f" first is {paths[missing[0]]}, needed by {needed_by(missing[0])}"
        )


@dataclass(frozen=True)
class Source:
    """A part of a set: what is to be had where, what it becomes below ROOT, under which licence."""

    what: str
    address: str
    becomes: str
    licence: str


@dataclass(frozen=True)
class Catalogued:
    """A set by its name: how it is opened, and where its parts come from, its own ones first."""

    group: str
    open: Callable[[Path], Published]
    sources: Sequence[Source]

    @property
    def licence(self) -> str:
        return ", ".join(dict.fromkeys(one.licence for one in self.sources))


_OPENED: dict[str, Callable[[Path], Published]] = {
    "ade20k": _ade20k,
    "cocostuff": _cocostuff,
    "pascal_part": _pascal_part,
    "paco_lvis": _paco_lvis,
    "mapillary": _mapillary,
    "refclef": partial(open_referring, name="refclef", split="train"),
    "refcoco": partial(open_referring, name="refcoco", split="train"),
    "refcoco+": partial(open_referring, name="refcoco+", split="train"),
    "refcocog": partial(open_referring, name="refcocog", split="train"),
    "llava_instruct": _llava_instruct,
    "reasonseg": partial(open_reasonseg, split="train", explained=True),
    "lisa_plus_instances": _lisa_plus_instances,
    "lisa_plus_dialogues": _lisa_plus_dialogues,
}

CATALOGUE = {
    name: Catalogued(entry["group"], _OPENED[name], [Source(**one) for one in entry["sources"]])
    for name, entry in _KNOWN["sets"].items()
}


def open_published(root: Path, name: str) -> Published:
    """The training part of a set of CATALOGUE.

    Raises:
        DatasetError: what of it is missing or wrong.
    """
    try:
        return CATALOGUE[name].open(root)
    except DatasetError as error:
        raise DatasetError(f"{name}: {error}") from error
