"""COCO's annotations and REFER's references, and the masks that they write down.

A mask is a list of polygons, a run-length code (RLE, plain or compressed), or a list of such codes
(refCLEF). pycocotools draws them, as the authors of LISA had them drawn.
"""

from __future__ import annotations

import pickle
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as masks

from lisa_ros.evaluation.reasonseg import DatasetError, read_json


@dataclass(frozen=True)
class CocoFile:
    """One file of annotations: images and categories by id, the annotations of each image."""

    path: Path
    images: Mapping[int, Mapping]
    categories: Mapping[int, str]
    annotations: Mapping[int, Mapping]
    of_image: Mapping[int, list[Mapping]]

    @classmethod
    def read(cls, path: Path) -> CocoFile:
        """Raises DatasetError where the file is no COCO file, or an annotation has no image."""
        content = read_json(path)
        try:
            images = {one["id"]: one for one in content["images"]}
            annotations = {one["id"]: one for one in content["annotations"]}
            categories = {one["id"]: one["name"] for one in content.get("categories", ())}
            of_image: dict[int, list[Mapping]] = defaultdict(list)
            for one in content["annotations"]:
                if one["image_id"] not in images:
                    raise DatasetError(
                        f"{path}: annotation {one['id']} is about image {one['image_id']}, which"
                        " the file does not list"
                    )
                of_image[one["image_id"]].append(one)
            for one in content["images"]:
                one["file_name"], one["height"], one["width"]
        except (KeyError, TypeError, AttributeError) as error:
            raise DatasetError(
                f"{path} is no file of COCO annotations (images, annotations): {_what(error)}"
            ) from error
        return cls(path, images, categories, annotations, of_image)

    def mask(self, annotation: Mapping) -> np.ndarray:
        """The mask of one annotation, bool (H,W); DatasetError where it cannot be drawn."""
        image = self.images[annotation["image_id"]]
        try:
            return decode_mask(annotation["segmentation"], image["height"], image["width"])
        except (ValueError, KeyError) as error:
            raise DatasetError(
                f"{self.path}: the segmentation of annotation {annotation['id']} {_what(error)}"
            ) from error


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Draw a segmentation in one of COCO's forms: bool (H,W); none at all is an empty mask.

    Raises:
        ValueError: it is no segmentation, or of another size; the words follow "the segmentation".
    """
    codes = [segmentation] if isinstance(segmentation, Mapping) else segmentation
    if not isinstance(codes, list):
        raise ValueError("is neither polygons nor run-length codes")
    if not codes:
        return np.zeros((height, width), bool)
    if len({isinstance(code, Mapping) for code in codes}) > 1:
        raise ValueError("mixes polygons and run-length codes: give one of them")
    if not isinstance(codes[0], Mapping):
        for polygon in codes:
            if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
                raise ValueError("has a polygon of fewer than three corners: it has no area")
        drawn = masks.frPyObjects(codes, height, width)
    else:
        for code in codes:
            if list(code["size"]) != [height, width]:
                raise ValueError(
                    f"is of {code['size'][1]}x{code['size'][0]}, its image of {width}x{height}"
                )
        drawn = [
            masks.frPyObjects(dict(code), height, width)
            if isinstance(code["counts"], list)
            else {"size": [height, width], "counts": _bytes(code["counts"])}
            for code in codes
        ]
    return masks.decode(drawn).any(axis=2)


@dataclass(frozen=True)
class Refer:
    """One of REFER's sets (Yu et al., arXiv 1608.00272): sentences, each about one annotation."""

    coco: CocoFile
    refs: list[Mapping]

    @classmethod
    def read(cls, folder: Path, split_by: str) -> Refer:
        """Read `refs(SPLIT_BY).p` and `instances.json` of a folder."""
        path = folder / f"refs({split_by}).p"
        refs, coco = read_plain_pickle(path), CocoFile.read(folder / "instances.json")
        try:
            for ref in refs:
                ref["split"], [sentence["sent"] for sentence in ref["sentences"]]
                if ref["ann_id"] not in coco.annotations or ref["image_id"] not in coco.images:
                    raise DatasetError(
                        f"{path}: reference {ref['ref_id']} is about annotation {ref['ann_id']} of"
                        f" image {ref['image_id']}, which instances.json does not have"
                    )
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{path} holds no references of REFER: {_what(error)}") from error
        return cls(coco, refs)

    def by_image(self, split: str) -> dict[int, list[Mapping]]:
        """The references of a split by image, in the order of image ids.

        As REFER reads splits: `testA` takes in what is written `testA`, `testAB`, ...; `test` all
        tests. DatasetError where the split is not there.
        """
        letter = split.removeprefix("test") if split in ("testA", "testB", "testC") else ""
        found: dict[int, list[Mapping]] = defaultdict(list)
        for ref in self.refs:
            own = ref["split"]
            if (
                letter in own[4:]
                if letter
                else own.startswith("test")
                if split == "test"
                else (own == split)
            ):
                found[ref["image_id"]].append(ref)
        if not found:
            there = ", ".join(sorted({ref["split"] for ref in self.refs}))
            raise DatasetError(
                f"{self.coco.path.parent} has no split {split}; it has {there or 'none'}"
            )
        return dict(sorted(found.items()))


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
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    except _Refused as error:
        raise DatasetError(f"{path} {error}") from error
    except Exception as error:  # whatever the bytes led the unpickler into
        raise DatasetError(f"{path} is damaged or no pickle") from error


def _bytes(counts: str | bytes) -> bytes:
    return counts if isinstance(counts, bytes) else counts.encode()


def _what(error: Exception) -> str:
    return f"has no {error}" if isinstance(error, KeyError) else str(error)
