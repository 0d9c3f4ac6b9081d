"""Batches of stored scenes as the two towers see them, mirrored and developed anew each time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lisa_ros.model.config import LisaConfig
from lisa_tabletop.training.concepts import COLOR_INDEX, KIND_INDEX
from lisa_tabletop.training.scenes import Scenes
from lisa_tabletop.world.camera_model import simulate

MAX_OBJECTS = 16
# the means and deviations of the two towers, on the 0..255 scale (SAM) and 0..1 (CLIP)
SAM_MEAN, SAM_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Maps:
    """What B stored views hold.

    ids (B,H,W) int64 object ids; kinds and colors (B,MAX_OBJECTS+1) int64, the class of every
    object id, 0 where there is none; records of the views; flipped (B,) bool, which are mirrored.
    """

    ids: Tensor
    kinds: Tensor
    colors: Tensor
    records: list[dict]
    flipped: Tensor


@dataclass(frozen=True)
class Pictures:
    """B stored views: pixels for SAM (B,3,S,S) and CLIP (B,3,h,h), and what they hold."""

    sam: Tensor
    clip: Tensor
    maps: Maps


def load_pictures(
    scenes: Scenes, chosen: np.ndarray, config: LisaConfig, random: np.random.Generator
) -> Pictures:
    """Read the `chosen` views, mirrored and taken by another camera at random."""
    maps = load_maps(scenes, chosen, random)
    rgb = torch.from_numpy(np.stack([scenes.rgb[i] for i in chosen])).permute(0, 3, 1, 2).float()
    rgb[maps.flipped] = rgb[maps.flipped].flip(-1)
    rgb = relight(rgb, random)
    return Pictures(
        _sam_pixels(rgb, config.sam_vision["image_size"]),
        clip_pixels(rgb, config.clip["image_size"]),
        maps,
    )


def load_maps(scenes: Scenes, chosen: np.ndarray, random: np.random.Generator) -> Maps:
    """Read what the `chosen` views hold, without their pixels; half of them mirrored."""
    flips = random.random(len(chosen)) < 0.5
    flipped = torch.from_numpy(flips)
    ids = torch.from_numpy(np.stack([scenes.ids[i] for i in chosen])).long()
    ids[flipped] = ids[flipped].flip(-1)
    records = [
        mirror(scenes.records[i]) if flip else scenes.records[i]
        for i, flip in zip(chosen, flips, strict=True)
    ]
    return Maps(ids, *classes_of(records), records, flipped)


def mirror(record: dict) -> dict:
    """The record of the picture seen in a mirror: left becomes right."""
    width = record["width"]
    objects = [
        {
            **thing,
            "center": [width - 1 - thing["center"][0], thing["center"][1]],
            "box": [width - thing["box"][0] - thing["box"][2], *thing["box"][1:]],
        }
        for thing in record["objects"]
    ]
    return {**record, "objects": objects}


def relight(rgb: Tensor, random: np.random.Generator) -> Tensor:
    """Pictures (B,3,H,W) in 0..255 as cameras of differing lens, setting and noise take them."""
    clean = rgb.permute(0, 2, 3, 1).byte().numpy()
    taken = np.stack([simulate(np.ascontiguousarray(picture), random) for picture in clean])
    return torch.from_numpy(taken).permute(0, 3, 1, 2).float()


def _sam_pixels(rgb: Tensor, size: int) -> Tensor:
    """Normalise, then pad right and below with zeros to (B,3,size,size)."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (SAM_MEAN, SAM_STD))
    height, width = rgb.shape[-2:]
    return functional.pad((rgb - mean) / std, (0, size - width, 0, size - height))


def central_square(pictures: Tensor) -> Tensor:
    """What the language model is shown of pictures (...,H,W), W the longer side: (...,H,H)."""
    height, width = pictures.shape[-2:]
    left = (width - height) // 2
    return pictures[..., left : left + height]


def clip_pixels(rgb: Tensor, size: int) -> Tensor:
    """Cut the central square of pictures in 0..255, resize and normalise it: (B,3,size,size)."""
    square = functional.interpolate(
        central_square(rgb), (size, size), mode="bicubic", antialias=True
    )
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (square.clamp(0, 255) / 255 - mean) / std


def classes_of(records: list[dict]) -> tuple[Tensor, Tensor]:
    """Kind and colour (B,MAX_OBJECTS+1) of every object id, 0 where there is none."""
    kinds = torch.zeros(len(records), MAX_OBJECTS + 1, dtype=torch.long)
    colors = torch.zeros_like(kinds)
    for row, record in enumerate(records):
        for thing in record["objects"]:
            kinds[row, thing["id"]] = KIND_INDEX[thing["kind"]]
            colors[row, thing["id"]] = COLOR_INDEX[thing["color"]]
    return kinds, colors
