"""ReasonSeg's files: `x.jpg` with `x.json` beside it, whose shapes are the mask that is meant.

The format and its drawing rules are those of the LISA paper's data set (Lai et al., arXiv
2308.00692). A JSON holds `text` (the instruction first, then rephrasings), `is_sentence` (false: a
phrase such as "the dog's toy") and `shapes`, each with a `label` ("target", "ignore", "flag") and
`points` [[x, y], ...] in pixels; LabelMe, which people draw such files with, has more kinds of
shape. Our own sets have one key more, `lisa_ros`, which such a reader passes over; what it holds is
written in docs/benchmark.md.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
from PIL import Image

from lisa_ros.errors import ImageError
from lisa_ros.evaluation.json_files import DatasetError, entries_of, place, read_json, require
from lisa_ros.image_files import IMAGE_SUFFIXES, image_size, read_image, read_samples

OURS = "lisa_ros"  # the key of a JSON that holds what ReasonSeg has no field for
TARGET, IGNORED = 1, 255  # values of a truth mask; ignored pixels count for nobody
SUMMARY = "dataset.json"  # of a whole set of ours; no question
PHRASE = "What is {} in this image?"  # how LISA asks for what is no sentence
AREAS = {"polygon": 0, "oriented_rectangle": 3, "rectangle": 2, "circle": 2, "mask": 2}
"""LabelMe's shapes that enclose something, and how many points each has at least."""


@dataclass(frozen=True)
class Item:
    """One question of a data set; `ours` is what our own sets say beyond ReasonSeg, else {}.

    `texts`: the words as they stand in the file, rephrasings after them; `is_sentence`: whether
    they are whole sentences, which the paper's tables call long.
    """

    split: str
    image: Path
    instruction: str
    shapes: Sequence[Mapping]
    ours: Mapping
    texts: Sequence[str] = ()
    is_sentence: bool = True

    @property
    def kind(self) -> str:
        """The kind of question, such as "plain" or "use"; of ReasonSeg's queries short or long."""
        return self.ours.get("type", "long" if self.is_sentence else "short")

    @property
    def scene(self) -> tuple[str, str]:
        """Equal for questions about the same image."""
        return self.split, self.ours.get("instances", self.image.name)

    @property
    def history(self) -> list[tuple[str, str]]:
        """Earlier turns of the dialogue, instruction and true answer."""
        return [(asked, said) for asked, said in self.ours.get("history", ())]

    def rgb(self) -> np.ndarray:
        """The image, uint8 (H,W,3); ImageError where it is damaged."""
        return read_image(self.image)

    def ids(self) -> np.ndarray:
        """The object that every pixel shows, uint8 (H,W), 0 for none; sets of ours only."""
        return read_samples(self._instances)

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """The mask that is meant, uint8 (H,W) of 0, TARGET and IGNORED, and its instances.

        The instances are bool (N,H,W): exact where the set has them, else all of the target as one.
        DatasetError where a shape has no points.
        """
        if self.ours:
            ids = self.ids()
            instances = np.stack([ids == one["id"] for one in self.ours["targets"]] or [ids < 0])
            instances = instances[: len(self.ours["targets"])]
            return instances.any(0).astype(np.uint8) * TARGET, instances
        for index, shape in enumerate(self.shapes):
            if not _is_flag(shape) and not shape["points"]:
                where = place(self.image.with_suffix(".json"), index, "shapes")
                raise DatasetError(f"{where} has no points")
        mask = draw(self.shapes, image_size(self.image))
        target = (mask == TARGET)[None]
        return mask, target[: int(target.any())]

    @property
    def _instances(self) -> Path:
        return self.image.parent / self.ours["instances"]


def tabletop() -> ModuleType:
    """The simulated tabletop's own sets; DatasetError says how it comes if it is not here."""
    for entry in entry_points(group="lisa_ros.datasets", name="tabletop"):
        try:
            return entry.load()
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith("lisa_tabletop"):
                raise
    raise DatasetError(
        "the simulated tabletop, whose questions these are, is not installed here (colcon installs"
        " the robot's package alone): give --dataset DIR, or pip install 'lisa_ros[sim]'"
    )


def read_dataset(folder: Path) -> list[Item]:
    """Every question of a folder of image and JSON pairs, or of its sub-folders (its splits).

    Everything but the pixels is checked now, so that no evaluation breaks off in the middle.
    A JSON without image that is no question, such as ReasonSeg's `explanatory/train.json`, is none.

    Raises:
        DatasetError: which file, and which of its fields.
        ImageError: an image is no image.
    """
    if not folder.is_dir():
        raise DatasetError(f"there is no data set folder {folder}")
    folders = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    items = [item for split in folders for item in _read_split(split)]
    if not items:
        raise DatasetError(
            f"{folder} holds no data set: neither it nor a folder in it has pairs of JPG and JSON"
        )
    return items


def read_items(folder: Path) -> list[Item]:
    """All questions of a folder to learn from: `read_dataset`, and each marks a target.

    Raises:
        DatasetError, ImageError: a question means nothing, or its image is damaged; nothing was
            learnt yet.
    """
    items = read_dataset(folder)
    for item in items:
        if not item.ours and not (item.truth()[0] == TARGET).any():
            raise DatasetError(
                f"{item.image.with_suffix('.json')} marks nothing as target;"
                " there is nothing to learn from it, so take it out of the folder"
            )
    return items


def _read_split(folder: Path) -> list[Item]:
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda one: (one.suffix.lower() != ".jpg", one.name)):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            images.setdefault(path.stem, path)
    entries = [path for path in sorted(folder.glob("*.json")) if path.name != SUMMARY]
    items = []
    for path in entries:
        entry, image = read_json(path), images.get(path.stem)
        if image is not None:
            items.append(_read_item(path, image, entry))
        elif isinstance(entry, dict) and "shapes" in entry:
            raise DatasetError(f"{path} has no {path.stem}.jpg beside it")
    if items and (alone := sorted(images.keys() - {path.stem for path in entries})):
        raise DatasetError(f"{images[alone[0]]} has no {alone[0]}.json beside it")
    return items


def _read_item(path: Path, image: Path, entry: object) -> Item:
    """One question; DatasetError by file, line and field where it does not say what it must."""
    try:
        size = image_size(image)
    except ImageError as error:
        # an image too large to be opened is found by whoever asks about it, and counted
        if not isinstance(error.__context__, Image.DecompressionBombError):
            raise
        size = None
    field: tuple = ()  # where it is looked at: a key, or a number and the key of its list
    with entries_of(
        lambda: place(path, *field) if field else str(path),
        "is not ReasonSeg's format (text, is_sentence, shapes with label and points)",
    ):
        text, is_sentence, shapes = entry["text"], entry["is_sentence"], entry["shapes"]
        field = ("text",)
        require(isinstance(text, list) and text, "text must be a list of instructions")
        require(all(isinstance(t, str) and t.strip() for t in text), "text must hold only words")
        field = ("is_sentence",)
        require(isinstance(is_sentence, bool), "is_sentence must be true or false")
        field = ("shapes",)
        require(isinstance(shapes, list), "shapes must be a list")
        field = (OURS,)
        ours = dict(entry.get(OURS, {}))
        for index, shape in enumerate(shapes):  # those of ours are for other readers
            field = (index, "shapes")
            _check_shape(shape, f"shapes[{index}]", None if ours else size)
        field = ("imageWidth",)
        drawn_on = (entry.get("imageWidth"), entry.get("imageHeight"))
        if size and None not in drawn_on and drawn_on != size:
            raise ValueError(
                f"imageWidth and imageHeight are {drawn_on[0]}x{drawn_on[1]}, but {image.name} is"
                f" {size[0]}x{size[1]}: its shapes belong to another size"
            )
        if ours:
            field = (OURS,)
            _check_ours(ours, image, size)
    first = text[0].strip()
    instruction = first if is_sentence else PHRASE.format(first)
    return Item(path.parent.name, image, instruction, shapes, ours, text, is_sentence)


def _check_shape(shape: Mapping, name: str, size: tuple[int, int] | None) -> None:
    """Raise ValueError, KeyError or TypeError unless `draw` draws the shape as what it is."""
    require(isinstance(shape["label"], str), f"{name}.label must be a word")
    if _is_flag(shape):
        return
    kind, points = shape.get("shape_type") or "polygon", shape["points"]
    require(
        kind in AREAS, f"{name}.shape_type {kind!r} encloses nothing; use one of {', '.join(AREAS)}"
    )
    pairs = isinstance(points, list) and all(
        isinstance(p, list) and len(p) == 2 and all(type(v) in (int, float) for v in p)
        for p in points
    )
    require(pairs, f"{name}.points must be pairs [x, y] of numbers")
    require(len(points) >= AREAS[kind], f"{name}.points are {len(points)}, too few for a {kind}")
    if kind == "mask":
        _decode_mask(shape, name)
    if not points or size is None:
        return
    corners = np.array(points, dtype=float)
    require(np.isfinite(corners).all(), f"{name}.points must be finite")
    low, high = corners.min(0), corners.max(0)
    if kind == "circle":
        radius = math.dist(*points[:2])
        low, high = corners[0] - radius, corners[0] + radius
    require(
        high.max() > 1 or low.min() < 0 or max(size) <= 2,
        f"{name}.points lie between 0 and 1: they must be pixels, not shares of the size",
    )
    inside = np.minimum(high, np.array(size) - 1) - np.maximum(low, 0)
    require(
        (inside >= 0).all() and (inside * 2 >= high - low).all(),
        f"{name} reaches from {low.tolist()} to {high.tolist()}, outside the image of"
        f" {size[0]}x{size[1]}",
    )


def _check_ours(ours: Mapping, image: Path, size: tuple[int, int] | None) -> None:
    for one in ours["targets"]:
        require(isinstance(one["id"], int), f"{OURS}.targets must have whole numbers as id")
    require(isinstance(ours["answer"], str), f"{OURS}.answer must be a sentence")
    require(
        all(isinstance(w, str) for turn in ours.get("history", ()) for w in (turn[0], turn[1])),
        f"{OURS}.history must hold pairs of sentences",
    )
    instances = image.parent / ours["instances"]
    if (ids := image_size(instances)) != size:
        raise DatasetError(
            f"{instances} is {ids[0]}x{ids[1]} but its image {image.name} is "
            f"{size[0]}x{size[1]}; masks and image must have the same size"
        )


def _is_flag(shape: Mapping) -> bool:
    return shape["label"].lower() == "flag"


def draw(shapes: Sequence[Mapping], size: tuple[int, int]) -> np.ndarray:
    """The mask of `shapes`, uint8 (H,W) of 0, TARGET and IGNORED; `size` is width, height.

    As LISA draws it: filled and with a closed outline one pixel wide, large shapes first so that
    small ones lie on top, of equal ones the first; "flag" is no shape, a label with "ignore" in it
    is ignored. LabelMe's rectangles, circles and masks are drawn as such.
    """
    layers = [
        (_area(shape, size), IGNORED if "ignore" in shape["label"].lower() else TARGET)
        for shape in shapes
        if not _is_flag(shape)
    ]
    mask = np.zeros(size[::-1], np.uint8)
    for area, value in sorted(layers, key=lambda layer: layer[0].sum())[::-1]:
        mask[area] = value
    return mask


def _area(shape: Mapping, size: tuple[int, int]) -> np.ndarray:
    """What one shape covers, bool (H,W)."""
    kind, area = shape.get("shape_type") or "polygon", np.zeros(size[::-1], np.uint8)
    corners = np.array(shape["points"], dtype=float).reshape(-1, 2)
    if kind == "circle":  # its centre, and a point on it
        centre, radius = np.rint(corners[0]).astype(int), round(math.dist(*corners[:2]))
        return cv2.circle(area, centre.tolist(), radius, 1, thickness=-1).astype(bool)
    if kind == "mask" and shape.get("mask"):  # the pixels of a box, whose corners are the points
        stamp, (left, top) = _decode_mask(shape, "mask"), np.rint(corners.min(0)).astype(int)
        canvas = Image.new("1", size)
        canvas.paste(Image.fromarray(stamp), (int(left), int(top)))
        return np.asarray(canvas)
    if kind in ("rectangle", "mask"):  # two opposite corners, or in newer files all four
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]])
    points = corners.astype(np.int32).reshape(1, -1, 2)
    cv2.polylines(area, points, isClosed=True, color=1, thickness=1)
    cv2.fillPoly(area, points, color=1)
    return area.astype(bool)


def _decode_mask(shape: Mapping, name: str) -> np.ndarray:
    """The pixels (h,w) bool of LabelMe's AI mask, a PNG in base64; ValueError where it is none."""
    try:
        raw = np.frombuffer(base64.b64decode(shape["mask"], validate=True), np.uint8)
        pixels = cv2.imdecode(raw, cv2.IMREAD_GRAYSCALE)
        require(pixels is not None, "no PNG")
        return pixels > 0
    except (KeyError, TypeError, ValueError, binascii.Error, cv2.error) as error:
        raise ValueError(f"{name}.mask must be the pixels of the mask, a PNG in base64") from error


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
            inner = contours[hole][:, 0]
            gaps = np.linalg.norm(ring[:, None] - inner[None], axis=-1)
            i, j = np.unravel_index(gaps.argmin(), gaps.shape)
            ring = np.concatenate([ring[: i + 1], inner[j:], inner[: j + 1], ring[i:]])
            hole = tree[0][hole][0]
        rings.append(ring.tolist())
    return rings
