"""ReasonSeg's files: `x.jpg` with `x.json` beside it, whose polygons are the mask that is meant.

The format and its drawing rules are those of the LISA paper's data set (Lai et al., arXiv
2308.00692). A JSON holds `text` (the instruction first, then rephrasings), `is_sentence` (false: a
phrase such as "the dog's toy") and `shapes`, each with a `label` ("target", "ignore", "flag") and
`points` [[x, y], ...] in pixels. Our own sets (benchmark.py) have one key more, `lisa_ros`, which
such a reader passes over; what it holds is written in docs/benchmark.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from lisa_ros.errors import LisaError
from lisa_ros.image_files import image_size, read_image, read_samples

OURS = "lisa_ros"  # the key of a JSON that holds what ReasonSeg has no field for
TARGET, IGNORED = 1, 255  # values of a truth mask; ignored pixels count for nobody
SUMMARY = "dataset.json"  # of a whole set of ours; no question
PHRASE = "What is {} in this image?"  # how LISA asks for what is no sentence


class DatasetError(LisaError):
    """A folder of questions cannot be read, or cannot be written where it was asked for."""


@dataclass(frozen=True)
class Item:
    """One question of a data set; `ours` is what our own sets say beyond ReasonSeg, else {}."""

    split: str
    picture: Path
    instruction: str
    shapes: Sequence[Mapping]
    ours: Mapping

    @property
    def kind(self) -> str:
        """The kind of question, such as "plain" or "use"; in ReasonSeg all are alike."""
        return self.ours.get("type", "reasoning")

    @property
    def scene(self) -> tuple[str, str]:
        """Equal for questions about the same picture."""
        return self.split, self.ours.get("instances", self.picture.name)

    @property
    def history(self) -> list[tuple[str, str]]:
        """Earlier turns of the dialogue, instruction and answer."""
        return [(asked, said) for asked, said in self.ours.get("history", ())]

    def rgb(self) -> np.ndarray:
        """The picture, uint8 (H,W,3)."""
        return read_image(self.picture)

    def ids(self) -> np.ndarray:
        """The object that every pixel shows, uint8 (H,W), 0 for none; sets of ours only."""
        return read_samples(self._instances)

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """The mask that is meant, uint8 (H,W) of 0, TARGET and IGNORED, and its instances.

        The instances are bool (N,H,W): exact where the set has them, else all of the target as one.
        """
        if self.ours:
            ids = self.ids()
            instances = np.stack([ids == one["id"] for one in self.ours["targets"]] or [ids < 0])
            instances = instances[: len(self.ours["targets"])]
            return instances.any(0).astype(np.uint8) * TARGET, instances
        mask = draw(self.shapes, image_size(self.picture))
        target = (mask == TARGET)[None]
        return mask, target[: int(target.any())]

    def check(self) -> None:
        """Raise LisaError where picture and mask are no pair; only their headers are read."""
        size = image_size(self.picture)
        if self.ours and (ids := image_size(self._instances)) != size:
            raise DatasetError(
                f"{self._instances} is {ids[0]}x{ids[1]} but its picture {self.picture.name} "
                f"{size[0]}x{size[1]}; masks and picture must have the same size"
            )

    @property
    def _instances(self) -> Path:
        return self.picture.parent / self.ours["instances"]


def read_dataset(folder: Path) -> list[Item]:
    """Every question of a folder of JPG and JSON pairs, or of its sub-folders (its splits).

    Everything but the pixels is checked now, so that no evaluation breaks off in the middle.
    """
    if not folder.is_dir():
        raise DatasetError(f"there is no data set folder {folder}")
    folders = [f for f in (folder, *sorted(folder.iterdir())) if f.is_dir() and _questions(f)]
    if not folders:
        raise DatasetError(
            f"{folder} holds no data set: neither it nor a folder in it has pairs of JPG and JSON"
        )
    items = [_read_item(path) for split in folders for path in _questions(split)]
    for item in items:
        item.check()
    return items


def draw(shapes: Sequence[Mapping], size: tuple[int, int]) -> np.ndarray:
    """The mask of `shapes`, uint8 (H,W) of 0, TARGET and IGNORED; `size` is width, height.

    As LISA draws it: filled and with a closed outline one pixel wide, large shapes first so that
    small ones lie on top; "flag" is no shape, a label with "ignore" in it is ignored.
    """
    layers = []
    for shape in shapes:
        if shape["label"].lower() == "flag":
            continue
        layer = np.zeros(size[::-1], np.uint8)
        points = np.array(shape["points"], dtype=np.int32).reshape(1, -1, 2)
        cv2.polylines(layer, points, isClosed=True, color=1, thickness=1)
        cv2.fillPoly(layer, points, color=1)
        value = IGNORED if "ignore" in shape["label"].lower() else TARGET
        layers.append((layer.astype(bool), value))
    mask = np.zeros(size[::-1], np.uint8)
    for layer, value in sorted(layers, key=lambda one: -one[0].sum()):
        mask[layer] = value
    return mask


def outlines(mask: np.ndarray) -> list[list[list[int]]]:
    """Polygons [[x, y], ...] that `draw` turns into the mask bool (H,W) again.

    One ring for each connected part; a hole, as in the handle of a mug, is reached by a cut from
    the outer edge that is walked there and back.
    """
    contours, tree = cv2.findContours(
        mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    rings = []
    for index, contour in enumerate(contours):
        _, _, hole, parent = tree[0][index]
        if parent >= 0:
            continue
        ring = contour[:, 0]
        while hole >= 0:
            ring = _cut_to(ring, contours[hole][:, 0])
            hole = tree[0][hole][0]
        rings.append(ring.tolist())
    return rings


def _cut_to(ring: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """One ring (N+M+2,2) around `ring` and `hole`, joined where they are nearest."""
    gaps = np.linalg.norm(ring[:, None] - hole[None], axis=-1)
    i, j = np.unravel_index(gaps.argmin(), gaps.shape)
    return np.concatenate([ring[: i + 1], hole[j:], hole[: j + 1], ring[i:]])


def _questions(folder: Path) -> list[Path]:
    """The JSON of every pair in the folder itself; either half may turn out to be missing."""
    halves = (*folder.glob("*.jpg"), *folder.glob("*.json"))
    return sorted({half.with_suffix(".json") for half in halves if half.name != SUMMARY})


def _read_item(path: Path) -> Item:
    picture = path.with_suffix(".jpg")
    for half, other in ((path, picture), (picture, path)):
        if not half.exists():
            raise DatasetError(f"{other} has no {half.name} beside it")
    entry = _read_json(path)
    try:
        text, is_sentence, shapes = entry["text"][0], entry["is_sentence"], entry["shapes"]
        for shape in shapes:
            np.array(shape["points"], dtype=float).reshape(-1, 2), shape["label"].lower()
        ours = dict(entry.get(OURS, {}))
        if ours:
            [one["id"] for one in ours["targets"]], str(ours["instances"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise DatasetError(
            f"{path} is not ReasonSeg's format (text, is_sentence, shapes with label and points): "
            f"{type(error).__name__} {error}"
        ) from error
    instruction = text if is_sentence else PHRASE.format(text)
    return Item(path.parent.name, picture, instruction, shapes, ours)


def _read_json(path: Path) -> dict:
    try:
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            text = raw.decode("cp1252")  # some of ReasonSeg's own files
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}") from error
