"""The public data sets that LISA learns from, each in the folder layout in which it is published.

    ROOT/ade20k/{images,annotations}/training     ROOT/cocostuff/train2017   ROOT/coco/train2017
    ROOT/mapillary/{config_v2.0.json,training}    ROOT/vlpart/{paco,pascal_part}
    ROOT/refer_seg/{refclef,refcoco,refcoco+,refcocog,images}     ROOT/llava_dataset
    ROOT/reason_seg/ReasonSeg/{train,val,test,explanatory}        ROOT/reason_seg_plus

ROOT is what LISA's authors call their `dataset` folder. Opening a set lists its pictures and reads
its annotations; no picture is opened. What is missing is said once, by the file's name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lisa_ros.engine.answer import SEG
from lisa_ros.evaluation.coco import CocoFile, Refer
from lisa_ros.evaluation.dataset_types import (
    Grounded,
    LabelMaps,
    Parts,
    Published,
    Reasoning,
    Referring,
    VisualDialogues,
)
from lisa_ros.evaluation.reasonseg import DatasetError, read_dataset, read_json


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.replace("\n", " ").split(",")]


ADE20K = _names("""
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk,
person, earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf,
house, sea, mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub,
railing, cushion, base, box, column, signboard, chest of drawers, counter, sand, sink,
skyscraper, fireplace, refrigerator, grandstand, path, stairs, runway, case, pool table, pillow,
screen door, stairway, river, bridge, bookcase, blind, coffee table, toilet, flower, book, hill,
bench, countertop, stove, palm, kitchen island, computer, swivel chair, boat, bar, arcade
machine, hovel, bus, towel, light, truck, tower, chandelier, awning, streetlight, booth,
television receiver, airplane, dirt track, apparel, pole, land, bannister, escalator, ottoman,
bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer, plaything,
swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball, food,
step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket,
sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate,
monitor, bulletin board, shower, radiator, glass, clock, flag
""")
COCO_STUFF = _names("""
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire
hydrant, street sign, stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow,
elephant, bear, zebra, giraffe, hat, backpack, umbrella, shoe, eye glasses, handbag, tie,
suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife, spoon, bowl, banana,
apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted
plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase,
scissors, teddy bear, hair drier, toothbrush, hair brush, banner, blanket, branch, bridge,
building-other, bush, cabinet, cage, cardboard, carpet, ceiling-other, ceiling-tile, cloth,
clothes, clouds, counter, cupboard, curtain, desk-stuff, dirt, door-stuff, fence, floor-marble,
floor-other, floor-stone, floor-tile, floor-wood, flower, fog, food-other, fruit, furniture-
other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal, mirror-stuff, moss,
mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform,
playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky,
skyscraper, snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-
other, towel, tree, vegetable, wall-brick, wall-concrete, wall-other, wall-panel, wall-stone,
wall-tile, wall-wood, water-other, waterdrops, window-blind, window-other, wood
""")


def _ade20k(root: Path) -> LabelMaps:
    folder = root / "ade20k"
    images = _pictures(folder / "images" / "training", ".jpg")
    labels = [folder / "annotations" / "training" / f"{one.stem}.png" for one in images]
    return LabelMaps(images, _all_there(labels), ADE20K, shift=1)


def _cocostuff(root: Path) -> LabelMaps:
    labels = _pictures(root / "cocostuff" / "train2017", ".png")
    images = _all_there([root / "coco" / "train2017" / f"{one.stem}.jpg" for one in labels])
    # the names with a dash are kinds of a thing ("wall-brick"), which nobody says
    dashed = frozenset(i for i, name in enumerate(COCO_STUFF) if "-" in name)
    return LabelMaps(images, labels, COCO_STUFF, left_out=dashed)


def _mapillary(root: Path) -> LabelMaps:
    folder = root / "mapillary"
    config = folder / "config_v2.0.json"
    try:
        classes = [one["readable"].lower() for one in read_json(config)["labels"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{config} gives no readable name for each of its labels") from error
    labels = _pictures(folder / "training" / "v2.0" / "labels", ".png")
    images = [folder / "training" / "images" / f"{one.stem}.jpg" for one in labels]
    return LabelMaps(_all_there(images), labels, classes)


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
    if wrong := [name for name in names.values() if len(name) != 2]:
        raise DatasetError(f"{coco.path}: the category {':'.join(wrong[0])} is no object:part")
    return _parts(coco, folder / "VOCdevkit" / "VOC2010" / "JPEGImages", names)


def _parts(coco: CocoFile, folder: Path, names: Mapping) -> Parts:
    ids = sorted(coco.images)
    _all_there([folder / coco.images[one]["file_name"] for one in ids])
    return Parts(coco, folder, names, ids)


def open_referring(root: Path, name: str, split: str) -> Referring:
    """A split of refCLEF, refCOCO, refCOCO+ (all as UNC cut them) or refCOCOg (UMD)."""
    folder = root / "refer_seg"
    refer = Refer.read(folder / name, "umd" if name == "refcocog" else "unc")
    refs = refer.by_image(split)
    below = "saiapr_tc-12" if name == "refclef" else "mscoco/images/train2014"
    pictures = folder / "images" / below
    _all_there([pictures / refer.coco.images[one]["file_name"] for one in refs])
    return Referring(refer, pictures, refs, list(refs))


def _llava_instruct(root: Path) -> VisualDialogues:
    path = root / "llava_dataset" / "llava_instruct_150k.json"
    images, turns = [], []
    for number, entry in enumerate(_entries(path)):
        try:
            if "image" not in entry:  # the mix of LLaVA-1.5 has dialogues about nothing seen
                continue
            said = [(one["from"], one["value"].replace("<image>", "").strip())
                    for one in entry["conversations"]]  # fmt: skip
            said = said[said[0][0] != "human" :]
            pairs = list(zip(said[::2], said[1::2], strict=True))
            if not pairs or any((q[0], a[0]) != ("human", "gpt") for q, a in pairs):
                raise ValueError("human and gpt do not take turns")
            images.append(root / "coco" / "train2017" / entry["image"])
            turns.append([(question, answer) for (_, question), (_, answer) in pairs])
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise DatasetError(f"{path}: entry {number} is no dialogue: {error}") from error
    _all_there(images)
    return VisualDialogues(images, turns)


def open_reasonseg(root: Path, split: str, *, explained: bool = False) -> Reasoning:
    """A split of ReasonSeg; `explained`: with the reasons of `explanatory/train.json`."""
    folder = root / "reason_seg" / "ReasonSeg"
    if not (folder / split).is_dir():
        raise DatasetError(f"ReasonSeg has no split {split}: there is no folder {folder / split}")
    items, reasons = read_dataset(folder / split), {}
    if explained:
        path = folder / "explanatory" / "train.json"
        for number, entry in enumerate(_entries(path)):
            try:
                reasons[entry["image"]] = str(entry["outputs"])
            except (KeyError, TypeError) as error:
                raise DatasetError(f"{path}: entry {number} has no image and outputs") from error
    return Reasoning(items, reasons)


_LISTED = re.compile(r"\[[^\[\]]*?\d[^\[\]]*?\]|[<《]\s*\d+\s*\|[^>》]*[>》]")
_ID = re.compile(r"<\s*(\d+)\s*[|>]|《\s*(\d+)\s*\|")


def _lisa_plus_instances(root: Path) -> Grounded:
    path = root / "reason_seg_plus" / "LISA_Plus_Instance_Seg.json"
    coco = CocoFile.read(root / "coco" / "annotations" / "instances_train2017.json")
    images, turns, annotations = [], [], []
    for number, entry in enumerate(_entries(path)):
        try:
            ids = [int(one) for one in entry["ID"]]
            images.append(root / "coco" / "train2017" / Path(entry["img_path"]).name)
            turns.append([(entry["English Question"], _enumerate(len(ids)) + ".")])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path}: entry {number} is no question: {error}") from error
        annotations.append(_known(ids, coco, f"{path}: entry {number}"))
    _all_there(images)
    groups = [[0] * len(ids) for ids in annotations]  # a list of instances has no order
    return Grounded(coco, images, turns, annotations, groups, instances=True)


def _lisa_plus_dialogues(root: Path) -> Grounded:
    path = root / "reason_seg_plus" / "LISA_Plus_Conversations.json"
    coco = CocoFile.read(root / "coco" / "annotations" / "instances_train2017.json")
    images, turns, annotations, groups = [], [], [], []
    for number, entry in enumerate(_entries(path)):
        ids: list[int] = []
        lists: list[int] = []

        def mark(match: re.Match, ids: list[int] = ids, lists: list[int] = lists) -> str:
            """[<380| remote>, <348| remote>] becomes a [SEG] each."""
            own = [int(a or b) for a, b in _ID.findall(match[0])]
            lists.extend([len(ids)] * len(own))
            ids.extend(own)
            return _enumerate(len(own)) if own else match[0]

        try:
            said = re.split(r"<(person|robot)>:", entry["output"])[1:]
            people, robots = said[1::4], said[3::4]
            if said[::4] != ["person"] * len(people) or said[2::4] != ["robot"] * len(people):
                raise ValueError("person and robot do not take turns")
            pairs = [
                (_LISTED.sub("", asked).strip(), _LISTED.sub(mark, told).strip())
                for asked, told in zip(people, robots, strict=True)
            ]
            images.append(root / "coco" / "train2017" / Path(entry["img_path"]).name)
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{path}: entry {number} is no dialogue: {error}") from error
        turns.append(pairs)
        annotations.append(_known(ids, coco, f"{path}: entry {number}"))
        groups.append(lists)
    _all_there(images)
    return Grounded(coco, images, turns, annotations, groups, instances=False)


def _enumerate(count: int) -> str:
    """`[SEG]`, `[SEG] and [SEG]`, `[SEG], [SEG] and [SEG]`."""
    first = ", ".join([SEG] * (count - 1))
    return f"{first} and {SEG}" if first else SEG


def _known(ids: Sequence[int], coco: CocoFile, place: str) -> Sequence[int]:
    if unknown := [one for one in ids if one not in coco.annotations]:
        raise DatasetError(f"{place} is about annotation {unknown[0]}, not in {coco.path.name}")
    return ids


def _entries(path: Path) -> Iterable[Mapping]:
    entries = read_json(path)
    if not isinstance(entries, list):
        raise DatasetError(f"{path} must be a list of entries")
    return entries


def _pictures(folder: Path, ending: str) -> list[Path]:
    """The files of a folder with that ending, by name."""
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}")
    found = sorted(path for path in folder.iterdir() if path.suffix == ending)
    if not found:
        raise DatasetError(f"{folder} holds no {ending} file")
    return found


def _all_there(paths: Sequence[Path]) -> Sequence[Path]:
    """DatasetError unless every file is there; a folder is listed once, however many it holds."""
    listed: dict[Path, set[str]] = {}
    missing = []
    for path in paths:
        if path.parent not in listed:
            there = path.parent.is_dir()
            listed[path.parent] = {one.name for one in os.scandir(path.parent)} if there else set()
        if path.name not in listed[path.parent]:
            missing.append(path)
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(paths)} files that its annotations need are not there, the"
            f" first is {missing[0]}"
        )
    return paths


@dataclass(frozen=True)
class Catalogued:
    """A set by its name: how it is opened, and where it comes from under which licence."""

    group: str
    open: Callable[[Path], Published]
    get: str
    licence: str


def _refer(name: str) -> Callable[[Path], Published]:
    return lambda root: open_referring(root, name, "train")


_COCO = "pictures: COCO train2017 into coco/train2017"
_REFER = "REFER's archive of that name into refer_seg/; pictures: COCO train2014 into"
_REFER += " refer_seg/images/mscoco/images/train2014"
_PLUS = "Hugging Face Senqiao/LISA_Plus_{} into reason_seg_plus/, COCO's instances_train2017.json"
_PLUS += " into coco/annotations; " + _COCO

CATALOGUE: dict[str, Catalogued] = {
    "ade20k": Catalogued(
        "sem_seg", _ade20k, "ADEChallengeData2016.zip, unpacked as ade20k/", "BSD-3 (labels)"
    ),
    "cocostuff": Catalogued(
        "sem_seg",
        _cocostuff,
        "stuffthingmaps_trainval2017.zip into cocostuff/; " + _COCO,
        "CC BY 4.0 (labels), Flickr's terms (pictures)",
    ),
    "pascal_part": Catalogued(
        "sem_seg",
        _pascal_part,
        "VLPart's train.json into vlpart/pascal_part/; pictures: VOC2010's VOCdevkit beside it",
        "Flickr's terms (pictures)",
    ),
    "paco_lvis": Catalogued(
        "sem_seg",
        _paco_lvis,
        "paco_lvis_v1_train.json into vlpart/paco/annotations/; " + _COCO,
        "MIT (PACO), CC BY 4.0 (LVIS)",
    ),
    "mapillary": Catalogued(
        "sem_seg",
        _mapillary,
        "Mapillary Vistas v2.0, unpacked as mapillary/",
        "CC BY-NC-SA 4.0: not for commercial use",
    ),
    "refclef": Catalogued(
        "refer_seg",
        _refer("refclef"),
        "REFER's refclef.zip into refer_seg/; pictures: saiapr_tc-12.zip into refer_seg/images",
        "research only (SAIAPR TC-12)",
    ),
    **{
        name: Catalogued(
            "refer_seg", _refer(name), _REFER, "Apache-2.0 (REFER), Flickr's terms (pictures)"
        )
        for name in ("refcoco", "refcoco+", "refcocog")
    },
    "llava_instruct": Catalogued(
        "vqa",
        _llava_instruct,
        "Hugging Face liuhaotian/LLaVA-Instruct-150K: llava_instruct_150k.json into"
        " llava_dataset/; " + _COCO,
        "CC BY-NC 4.0: not for commercial use",
    ),
    "reasonseg": Catalogued(
        "reason_seg",
        lambda root: open_reasonseg(root, "train", explained=True),
        "LISA's repository names the folder: train, val, test, explanatory into"
        " reason_seg/ReasonSeg/",
        "Apache-2.0 (annotations); OpenImages CC BY 2.0, ScanNet: on request",
    ),
    "lisa_plus_instances": Catalogued(
        "lisa_plus", _lisa_plus_instances, _PLUS.format("Instance_Seg"), "Apache-2.0"
    ),
    "lisa_plus_dialogues": Catalogued(
        "lisa_plus", _lisa_plus_dialogues, _PLUS.format("Caption"), "Apache-2.0"
    ),
}


def open_published(root: Path, name: str) -> Published:
    """The training part of a set of CATALOGUE.

    Raises:
        DatasetError: what of it is missing or wrong, and where it is to be had.
    """
    known = CATALOGUE[name]
    try:
        return known.open(root)
    except DatasetError as error:
        raise DatasetError(f"{name}: {error}") from error
