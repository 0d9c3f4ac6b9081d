"""The kinds of data sets that LISA learns from: label maps, parts, references, dialogues, reasons.

A set of any of them is made by `published.py` from its files; here is what can be asked of it, and
what may be wrong with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisa_ros.errors import ImageError
from lisa_ros.evaluation.coco import CocoFile, Refer
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.reasonseg import Item
from lisa_ros.image_files import image_size, read_image, read_samples

UNLABELLED = 255  # in a label map: no class


@dataclass(frozen=True)
class LabelMaps:
    """Pictures with a class number at every pixel: ADE20K, COCO-Stuff, Mapillary Vistas."""

    images: Sequence[Path]
    labels: Sequence[Path]
    classes: Sequence[str]
    shift: int = 0
    """subtracted from the stored numbers; what falls below 0 has no class"""
    left_out: frozenset[int] = frozenset()
    """classes that are not asked for"""

    def __len__(self) -> int:
        return len(self.images)

    def label(self, index: int) -> np.ndarray:
        """Class numbers uint8 (H,W) of one picture, UNLABELLED where there is none.

        Raises:
            DatasetError: the map is of another size than its picture, or has unknown numbers.
            ImageError: it is damaged.
        """
        path, image = self.labels[index], self.images[index]
        stored = read_samples(path)
        if stored.ndim != 2 or stored.dtype != np.uint8:
            raise DatasetError(f"{path} is no map of classes: it must have 8 bits and one channel")
        if stored.shape[::-1] != image_size(image):
            width, height = image_size(image)
            raise DatasetError(
                f"{path} is of {stored.shape[1]}x{stored.shape[0]}, its picture {image.name} of"
                f" {width}x{height}"
            )
        label = stored.copy()
        if self.shift:
            label[stored < self.shift] = UNLABELLED
            label[stored >= self.shift] -= self.shift
            label[stored == UNLABELLED] = UNLABELLED
        label[np.isin(label, list(self.left_out))] = UNLABELLED
        unknown = np.argwhere((label >= len(self.classes)) & (label != UNLABELLED))
        if len(unknown):
            y, x = unknown[0]
            raise DatasetError(
                f"{path} holds the class number {label[y, x]}, but there are {len(self.classes)}:"
                f" at x {x}, y {y}"
            )
        return label


@dataclass(frozen=True)
class Parts:
    """Objects and their parts in COCO's form: PACO-LVIS, PASCAL-Part.

    `names`: by category a name, or (object, part).
    """

    coco: CocoFile
    folder: Path
    names: Mapping[int, str | tuple[str, str]]
    ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, image_id: int) -> Path:
        return self.folder / self.coco.images[image_id]["file_name"]


@dataclass(frozen=True)
class Referring:
    """One of REFER's sets, a split of it: pictures, each with references of several sentences."""

    refer: Refer
    folder: Path
    refs: Mapping[int, Sequence[Mapping]]
    ids: Sequence[int]

    def __len__(self) -> int:
        return len(self.ids)

    def image(self, image_id: int) -> Path:
        return self.folder / self.refer.coco.images[image_id]["file_name"]


@dataclass(frozen=True)
class VisualDialogues:
    """LLaVA-Instruct: pictures with dialogues of (question, answer), no masks."""

    images: Sequence[Path]
    turns: Sequence[Sequence[tuple[str, str]]]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Reasoning:
    """A split of ReasonSeg, with the reasons that there are for some of its answers."""

    items: Sequence[Item]
    reasons: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class Grounded:
    """LISA++'s data: dialogues whose answers hold a [SEG] for each of `annotations`, in order."""

    coco: CocoFile
    images: Sequence[Path]
    turns: Sequence[Sequence[tuple[str, str]]]
    annotations: Sequence[Sequence[int]]
    groups: Sequence[Sequence[int]]
    """of each of `annotations` the number of its list, within which their order means nothing"""
    instances: bool
    """whether the answers are lists of masks, one an instance, or words with masks in them"""

    def __len__(self) -> int:
        return len(self.images)


Published = LabelMaps | Parts | Referring | VisualDialogues | Reasoning | Grounded


def count(data: Published) -> tuple[int, int]:
    """How many pictures a set has, and how many things in them may be asked for."""
    match data:
        case Parts():
            return len(data), sum(len(data.coco.of_image[one]) for one in data.ids)
        case Referring():
            refs = [ref for some in data.refs.values() for ref in some]
            return len(data), sum(len(ref["sentences"]) for ref in refs)
        case VisualDialogues() | Grounded():
            return len({*data.images}), sum(map(len, data.turns))
        case Reasoning():
            return len(data), sum(len(item.texts) for item in data.items)
    return len(data), len(data)


def faults(data: Published, most: int = 100) -> list[str]:
    """What is wrong with `most` pictures, the first and the last among them, a sentence each.

    They are read, and compared with what belongs to them: sizes of label maps and of annotations,
    masks that cannot be drawn.
    """
    found, chosen = [], sorted({*np.linspace(0, len(data) - 1, most).astype(int).tolist()})
    for index in chosen:
        try:
            match data:
                case LabelMaps():
                    image = data.images[index]
                    data.label(index)
                case Parts() | Referring():
                    coco = data.coco if isinstance(data, Parts) else data.refer.coco
                    image = data.image(data.ids[index])
                    check_size(coco, data.ids[index], image)
                    _check_masks(coco, coco.of_image[data.ids[index]])
                case Reasoning():
                    image = data.items[index].image
                    data.items[index].truth()
                case Grounded():
                    image = data.images[index]
                    known = [data.coco.annotations[one] for one in data.annotations[index]]
                    _check_masks(data.coco, known)
                case _:
                    image = data.images[index]
            read_image(image)
        except (DatasetError, ImageError) as error:
            found.append(str(error))
    return found


def _check_masks(coco: CocoFile, annotations: Sequence[Mapping]) -> None:
    """DatasetError where a mask cannot be drawn, or shows nothing: a question without an answer."""
    for annotation in annotations:
        if not coco.mask(annotation).any():
            raise DatasetError(
                f"{coco.place(annotation)}: the segmentation of annotation {annotation['id']}"
                f" covers no pixel of {coco.images[annotation['image_id']]['file_name']}"
            )


def check_size(coco: CocoFile, image_id: int, image: Path) -> None:
    """DatasetError unless a picture has the size that its annotations were drawn for."""
    entry, size = coco.images[image_id], image_size(image)
    if size != (entry["width"], entry["height"]):
        raise DatasetError(
            f"{image} is of {size[0]}x{size[1]}, but {coco.place(entry)} says"
            f" {entry['width']}x{entry['height']}"
        )
