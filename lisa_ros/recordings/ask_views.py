"""Asks about each view and fuses the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lisa_ros.geometry import Intrinsics, Object3D, Sighting, fuse
from lisa_ros.geometry.camera import project
from lisa_ros.geometry.depth import metres
from lisa_ros.geometry.transforms import transform_points

if TYPE_CHECKING:
    from lisa_ros.engine import Answer, Engine

GREY = 128  # of points that no view sees


@dataclass(frozen=True)
class Shot:
    """An image with what places it in space.

    Attributes:
        name: for people.
        image: uint8 (H,W,3) RGB.
        depth: (H',W'), uint16 in millimetres or float32 in metres, of the same view.
        camera: intrinsics of the depth image.
        pose: (4,4), the optical frame in a frame that all views share.
    """

    name: str
    image: np.ndarray
    depth: np.ndarray
    camera: Intrinsics
    pose: np.ndarray


@dataclass(frozen=True)
class Seen:
    """What several views say together.

    Attributes:
        thing: the object in the shared frame; its `agreement` is the confidence.
        colors: uint8 (N,3) of the object's points.
        answers: of the model, one for each view.
    """

    thing: Object3D
    colors: np.ndarray
    answers: list[Answer]


def ask_views(
    engine: Engine,
    shots: Sequence[Shot],
    instruction: str,
    *,
    up: Sequence[float] | None = None,
    voxel: float = 0.005,
) -> Seen:
    """Ask about each view and fuse the first mask of each answer; see `lisa_ros.geometry.fuse`.

    A view in which the model does not find the thing takes part with an empty mask: it speaks
    against what the other views say, as far as it can see the place.

    Args:
        engine: asked in the order of the views.
        shots: the views.
        instruction: means one thing.
        up: unit vector (3,) against gravity in the shared frame; makes the box stand upright.
        voxel: edge of the cubes that the views vote about, metres.

    Raises:
        LisaError: the instruction or an image cannot be asked about.
    """
    answers = [engine.segment(shot.image, instruction, mode="mask") for shot in shots]
    masks = [
        answer.instances[0].mask if answer.instances else np.zeros(shot.image.shape[:2], bool)
        for shot, answer in zip(shots, answers, strict=True)
    ]
    sightings = [
        Sighting(mask, shot.depth, shot.camera, shot.pose)
        for shot, mask in zip(shots, masks, strict=True)
    ]
    thing = fuse(sightings, up=up, voxel=voxel)
    return Seen(thing, _colors(thing.points, shots, voxel), answers)


def _colors(points: np.ndarray, shots: Sequence[Shot], voxel: float) -> np.ndarray:
    """The mean colour uint8 (N,3) with which the views that see a point see it."""
    total, count = np.zeros((len(points), 3)), np.zeros((len(points), 1))
    for shot in shots:
        height, width = shot.depth.shape
        local = transform_points(points.astype(float), np.linalg.inv(shot.pose))
        pixels = project(shot.camera.resized(width, height), local)
        inside = ((pixels > -0.5) & (pixels < [width - 0.5, height - 0.5])).all(axis=1)
        columns, rows = np.rint(np.where(inside[:, None], pixels, 0)).astype(int).T
        seen = inside & (np.abs(metres(shot.depth)[rows, columns] - local[:, 2]) < 2 * voxel)
        x = (2 * columns + 1) * shot.image.shape[1] // (2 * width)
        y = (2 * rows + 1) * shot.image.shape[0] // (2 * height)
        total[seen] += shot.image[y[seen], x[seen]]
        count[seen] += 1
    return np.where(count > 0, total / np.maximum(count, 1), GREY).astype(np.uint8)
