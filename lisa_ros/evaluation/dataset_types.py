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
from lisa_ros.evaluation.coco import CocoFile
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.reasonseg import Item
from lisa_ros.image_files import image_size, read_image, read_samples

UNLABELLED = 255  # in a label map: no class


@dataclass(frozen=True)
class Published:
    """Images by their number, of which one may come several times."""

    images: Sequence[Path]

    def __len__(self) -> int:
        return len(self.images)

    def things(self) -> int:
        """How many things in the images may be asked for."""
        return len(self)

    def check(self, index: int) -> None:
        """Compare what belongs to an image with it: sizes, masks that cannot be drawn.

        Raises:
            DatasetError, ImageError: what is wrong, and where.
        """


@dataclass(frozen=True)
class LabelMaps(Published):
    """Images with a class number at every pixel: ADE20K, COCO-Stuff, Mapillary Vistas."""

    labels: Sequence[Path]
    classes: Sequence[str]
    shift: int = 0
    """subtracted from the stored numbers; what falls below 0 has no class"""
    left_out: frozenset[int] = frozenset()
    """classes that are not asked for"""

    def check(self, index: int) -> None:
        self.label(index)

    def label(self, index: int) -> np.ndarray:
        """Class numbers uint8 (H,W) of one image, UNLABELLED where there is none.

        Raises:
            DatasetError: the map is of another size than its image, or has unknown numbers.
            ImageError: it is damaged.
        """
        path, image = self.labels[index], self.images[index]
        stored = read_samples(path)
        if stored.ndim != 2 or stored.dtype != np.uint8:
            raise DatasetError(f"{path} is no map of classes: it must have 8 bits and one channel")
        if stored.shape[::-1] != image_size(image):
            width, height = image_size(image)
            raise DatasetError(
                f"{path} is of {stored.shape[1]}x{stored.shape[0]}, its image {image.name} of"
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
class CocoImages(Published):
    """Images of a file of annotations; `ids`: of each image in it."""

    coco: CocoFile
    ids: Sequence[int]

    def check(self, index: int) -> None:
        _check_masks(self.coco, self.coco.of_image[self.ids[index]], self.images[index])


@dataclass(frozen=True)
class Parts(CocoImages):
    """Objects and their parts in COCO's form: PACO-LVIS, PASCAL-Part.

    `names`: by category a name, or (object, part).
    """

    names: Mapping[int, str | tuple[str, str]]

    def things(self) -> int:
        return sum(len(self.coco.of_image[one]) for one in self.ids)


@dataclass(frozen=True)
class Referring(CocoImages):
    """A split of one of REFER's sets: of each image sentences, with the annotation meant."""

    sentences: Sequence[Sequence[tuple[str, int]]]

    def things(self) -> int:
        return sum(map(len, self.sentences))


@dataclass(frozen=True)
class VisualDialogues(Published):
    """LLaVA-Instruct: images with dialogues of (question, answer), no masks."""

    turns: Sequence[Sequence[tuple[str, str]]]

    def things(self) -> int:
        return sum(map(len, self.turns))


@dataclass(frozen=True)
class Reasoning(Published):
    """A split of ReasonSeg, with the reasons that there are for some of its answers."""

    items: Sequence[Item]
    reasons: Mapping[str, str]

    def things(self) -> int:
        return sum(len(item.texts) for item in self.items)

    def check(self, index: int) -> None:
        self.items[index].truth()


@dataclass(frozen=True)
class Grounded(VisualDialogues):
    """LISA++'s data: dialogues whose answers hold a [SEG] for each of `annotations`, in order."""

    coco: CocoFile
    annotations: Sequence[Sequence[int]]
    groups: Sequence[Sequence[int]]
    """of each of `annotations` the number of its list, within which their order means nothing"""
    instances: bool
    """whether the answers are lists of masks, one an instance, or words with masks in them"""

    def check(self, index: int) -> None:
        own = [self.coco.annotations[one] for one in self.annotations[index]]
        _check_masks(self.coco, own, self.images[index])


def faults(data: Published, most: int) -> list[str]:
    """What is wrong with `most` images, the first and the last among them, a sentence each.

    They are read, and compared with what belongs to them.
    """
    found = []
    for index in sorted({*np.linspace(0, len(data) - 1, most).astype(int).tolist()}):
        try:
            data.check(index)
            read_image(data.images[index])
        except (DatasetError, ImageError) as error:
            found.append(str(error))
    return found


def _check_masks(coco: CocoFile, annotations: Sequence[Mapping], image: Path) -> None:
    """DatasetError where a mask cannot be drawn, or shows nothing: a question without an answer."""
    for annotation, mask in zip(annotations, coco.masks(annotations, image), strict=True):
        if not mask.any():
            raise DatasetError(
                f"{coco.place(annotation)}: the segmentation of annotation {annotation['id']}"
                f" covers no pixel of {coco.images[annotation['image_id']]['file_name']}"
            )
