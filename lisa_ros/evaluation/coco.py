"""COCO's annotations and REFER's references, and the masks that they write down.

A mask is a list of polygons, a run-length code (RLE, plain or compressed), or a list of such codes
(refCLEF). pycocotools draws them, as the authors of LISA had them drawn.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as masks

from lisa_ros.evaluation.json_files import (
    DatasetError,
    entries_of,
    place,
    read_json,
    require,
    text_of,
    words,
)
from lisa_ros.image_files import image_size

LONGEST_SIDE = 65_535  # pixels; no JPEG has more

FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id"),
    "categories": ("id", "name"),
}
"""What every entry of a file must have."""


@dataclass(frozen=True)
class CocoFile:
    """One file of annotations: images and categories by id, the annotations of each image."""

    path: Path
    images: Mapping[int, Mapping]
    categories: Mapping[int, str]
    annotations: Mapping[int, Mapping]
    of_image: Mapping[int, list[Mapping]]
    listed: Sequence[Mapping]
    """the annotations in the order of the file"""

    @classmethod
    def read(cls, path: Path) -> CocoFile:
        """Raises DatasetError where the file is no COCO file, or an annotation has no image."""
        content, tables = read_json(path), {}
        entry: tuple = ()
        with entries_of(
            lambda: place(path, *entry) if entry else str(path),
            "is no file of COCO annotations (images, annotations)",
        ):
            for key, names in FIELDS.items():
                entry = ()
                entries = content[key] if key != "categories" else content.get(key, [])
                for number, one in enumerate(entries):
                    entry = number, key
                    for name in names:
                        if name in ("file_name", "name"):
                            text_of(one, name)
                        elif name in ("height", "width"):
                            require(
                                type(one[name]) is int and 0 < one[name] <= LONGEST_SIDE,
                                f"{name} must be a whole number of pixels from 1 to"
                                f" {LONGEST_SIDE}, not {one[name]!r}",
                            )
                        else:
                            single = type(one[name]) in (int, float, str)
                            require(single, f"{name} must be a number")
                tables[key] = {one["id"]: one for one in entries}
        names = {key: one["name"] for key, one in tables["categories"].items()}
        listed, of_image = content["annotations"], defaultdict(list)
        coco = cls(path, tables["images"], names, tables["annotations"], of_image, listed)
        for one in listed:
            if one["image_id"] not in coco.images:
                raise DatasetError(
                    f"{coco.place(one)}: annotation {one['id']} is about image {one['image_id']},"
                    " which the file does not list"
                )
            of_image[one["image_id"]].append(one)
        return coco

    def masks(self, annotations: Sequence[Mapping], image: Path) -> np.ndarray:
        """The masks of some annotations of an image, bool (N,H,W).

        Raises:
            DatasetError: one cannot be drawn, or was drawn for an image of another size.
        """
        width, height = self.check_size(annotations, image)
        masks = np.zeros((len(annotations), height, width), bool)
        for mask, one in zip(masks, annotations, strict=True):
            try:
                mask[:] = self.drawn(one)
            except ValueError as error:
                raise DatasetError(
                    f"{self.place(one)}: the segmentation of annotation {one['id']} {error}"
                ) from error
        return masks

    def check_size(self, annotations: Sequence[Mapping], image: Path) -> tuple[int, int]:
        """Width and height of an image; DatasetError unless they are what its annotations say."""
        size = image_size(image)
        for entry in (self.images[one["image_id"]] for one in annotations):
            if size != (entry["width"], entry["height"]):
                raise DatasetError(
                    f"{image} is of {size[0]}x{size[1]}, but {self.place(entry)} says"
                    f" {entry['width']}x{entry['height']}"
                )
        return size

    def drawn(self, annotation: Mapping) -> np.ndarray:
        """The mask of one, bool (H,W), for who goes on without it; ValueError in words for "the
        segmentation"."""
        image = self.images[annotation["image_id"]]
        if "segmentation" not in annotation:
            raise ValueError("is missing")
        return decode_mask(annotation["segmentation"], image["height"], image["width"])

    def place(self, entry: Mapping) -> str:
        """The file of an annotation or of an image's entry, and where in it that stands."""
        key, entries = "annotations", self.listed
        if "file_name" in entry:
            key, entries = "images", self.images.values()
        return place(self.path, next(n for n, one in enumerate(entries) if one is entry), key)


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Draw a segmentation in one of COCO's forms: bool (H,W); none at all is an empty mask.

    Raises:
        ValueError: it is no segmentation, or of another size; the words follow "the segmentation".
    """
    codes = [segmentation] if isinstance(segmentation, Mapping) else segmentation
    if not isinstance(codes, list):
        raise ValueError("is neither polygons nor run-length codes")
    if len({isinstance(code, Mapping) for code in codes}) > 1:
        raise ValueError("mixes polygons and run-length codes: give one of them")
    try:
        if not codes:
            return np.zeros((height, width), bool)
        if not isinstance(codes[0], Mapping):
            for polygon in codes:
                _check_polygon(polygon, height, width)
            drawn = masks.frPyObjects(codes, height, width)
        else:
            drawn = [_run_lengths(code, height, width) for code in codes]
        return masks.decode(drawn).any(axis=2)
    except (KeyError, TypeError, IndexError, OverflowError) as error:
        raise ValueError(f"cannot be drawn: {words(error)}") from error


def _check_polygon(polygon: Any, height: int, width: int) -> None:
    """Raise ValueError for what would end pycocotools' process, or fill the memory.

    Published sets have corners a little outside of their image: those are drawn.
    """
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("has a polygon of fewer than three corners: it has no area")
    for number, value in enumerate(polygon):
        if type(value) not in (int, float):
            raise ValueError(f"has a polygon with {value!r}, which is no number, as coordinate")
        axis, size = ("y", height) if number % 2 else ("x", width)
        if not -size <= value <= 2 * size:  # nor NaN
            raise ValueError(
                f"has a polygon with a corner at {axis} {value}, far outside of its image of"
                f" {width}x{height}"
            )


def _run_lengths(code: Mapping, height: int, width: int) -> Mapping:
    """A code as pycocotools takes it: compressed, in bytes."""
    size, counts = code["size"], code["counts"]
    if list(size) != [height, width]:
        raise ValueError(f"is of {size[1]}x{size[0]}, its image of {width}x{height}")
    counts = counts.encode() if isinstance(counts, str) else counts
    runs = counts if isinstance(counts, list) else _decompress(counts)
    for run in runs:
        if type(run) is not int or run < 0:
            raise ValueError(f"counts a run of {run!r} pixels")
    if sum(runs) != height * width:  # pycocotools would leave the rest to chance
        raise ValueError(f"counts {sum(runs)} pixels, its image has {height * width}")
    if isinstance(counts, list):
        return masks.frPyObjects(dict(code), height, width)
    return {"size": size, "counts": counts}


def _decompress(counts: bytes) -> list[int]:
    """The runs of a compressed code: five bits a letter, the lowest first, then whether more come;
    from the fourth run on what it has more than the last but one."""
    runs: list[int] = []
    value = shift = 0
    for letter in counts:
        bits = letter - 48
        if not 0 <= bits < 64 or shift > 30:
            raise ValueError("is no compressed run-length code")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # its sign
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("is a compressed run-length code that is cut")
    return runs


def read_refer(
    folder: Path, split_by: str, split: str
) -> tuple[CocoFile, dict[int, list[tuple[str, int]]]]:
    """A split of one of REFER's sets (Yu et al., arXiv 1608.00272), in the order of image ids.

    Reads `refs(SPLIT_BY).p` and `instances.json` of a folder. Returns the annotations, and for
    every image its sentences, each with the annotation that it means. As REFER reads splits:
    `testA` takes in what is written `testA`, `testAB`, ...; `test` all tests. DatasetError where
    the split is not there.
    """
    path = folder / f"refs({split_by}).p"
    coco, number = CocoFile.read(folder / "instances.json"), 0
    letter = split.removeprefix("test") if split in ("testA", "testB", "testC") else ""
    there: set[str] = set()
    found: dict[int, list[tuple[str, int]]] = defaultdict(list)
    with entries_of(lambda: f"{path} (entry {number})", "is no reference of REFER"):
        for number, ref in enumerate(read_plain_pickle(path)):
            own, about, image = text_of(ref, "split"), ref["ann_id"], ref["image_id"]
            sentences = [(text_of(sentence, "sent"), about) for sentence in ref["sentences"]]
            if coco.annotations.get(about, {}).get("image_id") != image:
                raise DatasetError(
                    f"{path} (entry {number}): reference {ref['ref_id']} is about annotation"
                    f" {about} of image {image}, which instances.json does not have"
                )
            there.add(own)
            if letter:
                wanted = letter in own[4:]
            else:
                wanted = own.startswith("test") if split == "test" else own == split
            if wanted:
                found[image] += sentences
    if not found:
        listing = ", ".join(sorted(there)) or "none"
        raise DatasetError(f"{folder} has no split {split}; it has {listing}")
    return coco, dict(sorted(found.items()))


class _Refused(Exception):
    """A pickle that wants to run something."""


class _PlainUnpickler(pickle.Unpickler):
    """Builds lists, tables, numbers and words; whatever else a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise _Refused(
            f"asks to run {module}.{name} while being read, which plain data never need; it was"
            " refused and nothing was run"
        )


def read_plain_pickle(path: Path) -> Any:
    """The content of a pickle of plain data.

    Raises:
        DatasetError: it is none, or wants to run code.
    """
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except FileNotFoundError as error:
        raise DatasetError(f"there is no file {path}") from error
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except _Refused as error:
        raise DatasetError(f"{path} {error}") from error
    except Exception as error:  # whatever the bytes led the unpickler into
        raise DatasetError(f"{path} is damaged or no pickle") from error
