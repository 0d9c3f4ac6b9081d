"""What is made from the objects of an answer for those who listen: clouds and grasps. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from lisa_ros.geometry import (
    XYZRGB,
    Grasp,
    Gripper,
    Object3D,
    cloud,
    colors_at,
    pack,
    parallel_grasps,
    suction_grasps,
    transform_points,
    without_object,
)
from lisa_ros.geometry.camera import rays
from lisa_ros.geometry.depth import dilate, fit_mask, metres, window
from lisa_ros.node.results.localization import Space

MARGIN = 5  # pixels around a mask that are neither scene nor obstacle: a mask is never quite exact
COARSE = 3  # obstacles are looked for in every third row and column
STANDS_UP = 0.006  # metres above the support from which on a point is an obstacle
REACH = 0.15  # metres around the object in which a hand could hit something


def object_cloud(space: Space, rgb: np.ndarray) -> np.ndarray:
    """The coloured points (N,), dtype `XYZRGB`, of all objects; `rgb` is the image (H,W,3)."""
    found = [
        pack(thing.points, colors_at(rgb, thing.pixels, space.depth.shape))
        for thing in space.things
        if thing.box is not None
    ]
    return np.concatenate(found) if found else np.zeros(0, XYZRGB)


def scene_cloud(space: Space, rgb: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """The coloured points (N,) of everything but the objects, for maps of obstacles."""
    if space.depth is None:
        return np.zeros(0, XYZRGB)
    depth = space.depth
    for mask in masks:
        depth = without_object(depth, fit_mask(mask, depth.shape), MARGIN)
    points, pixels = cloud(depth, space.camera)
    points = transform_points(points, space.pose)
    return pack(points, colors_at(rgb, pixels, depth.shape))


def grasps(space: Space, masks: Sequence[np.ndarray], settings: Any) -> list[tuple[int, Grasp]]:
    """Candidates for the hand of the parameters `grasp.*`, the best first.

    Each comes with the number, from 1, of the object that it is for.
    """
    found: list[tuple[int, Grasp]] = []
    for number, (thing, mask) in enumerate(zip(space.things, masks, strict=True), start=1):
        if thing.box is None:
            continue
        if settings["grasp.hand"] == "suction":
            candidates = suction_grasps(thing, settings["grasp.cup_diameter"])
        else:
            gripper = Gripper(
                opening=settings["grasp.opening"], finger_length=settings["grasp.finger_length"]
            )
            candidates = parallel_grasps(thing, gripper, _obstacles(space, thing, mask))
        found += [(number, grasp) for grasp in candidates]
    return sorted(found, key=lambda pair: -pair[1].score)


def _obstacles(space: Space, thing: Object3D, mask: np.ndarray) -> np.ndarray:
    """Points (M,3) around an object that stand up from its support, in the frame of the space."""
    height, width = space.depth.shape
    camera = space.camera.resized(width, height)
    inside = fit_mask(mask, space.depth.shape)
    away = float(np.linalg.norm(thing.box.center - space.pose[:3, 3]))
    rows, columns = window(inside, 0.0, least=round(REACH * camera.fx / away))
    part = slice(rows.start, rows.stop, COARSE), slice(columns.start, columns.stop, COARSE)
    z, sight = metres(space.depth[part]), rays(camera)[part]
    free = np.isfinite(z) & ~dilate(inside[part], MARGIN // COARSE + 1)
    points = np.concatenate([sight[free], np.ones((int(free.sum()), 1), np.float32)], axis=1)
    points = transform_points(points * z[free][:, None], space.pose)
    points = points[np.isfinite(points[:, 0])]
    if thing.support is None:
        return points
    return points[thing.support.height(points) > STANDS_UP + 3 * thing.support.spread]
