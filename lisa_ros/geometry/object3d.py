"""From a mask and a depth image to the object in space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lisa_ros.errors import DepthError
from lisa_ros.geometry.box import Box, free_box, upright_box
from lisa_ros.geometry.camera import Intrinsics, rays
from lisa_ros.geometry.depth import (
    check_depth,
    depth_discontinuity,
    dilate,
    fit_mask,
    metres,
    trim_and_smooth,
    visible_fraction,
    window,
)
from lisa_ros.geometry.pointcloud import Plane, object_components, support_plane
from lisa_ros.geometry.transforms import transform_points

LEAST_POINTS = 30
SURROUNDINGS, SAMPLES = 0.4, 2000  # margin in mask sizes, and the points drawn in that window
GAP = 0.015  # metres between parts of an object that still belong together
STANDING = 0.75  # see `_floor`
FLAT = 0.3  # see `_above`

Up = Sequence[float] | np.ndarray | Literal["support"] | None


@dataclass(frozen=True)
class Object3D:
    """An object behind a mask. Everything is in metres and, at first, in the optical frame.

    Without usable depth `box`, `centroid` and `support` are None, the clouds are empty and
    `reason` says why, as a sentence without full stop; `reason` is empty otherwise.

    Attributes:
        points: float32 (N,3), trimmed and smoothed.
        pixels: int (N,2), column and row in the depth image; empty after `fuse`.
        centroid: (3,), mean of the points. It lies on the side that was seen.
        box: the oriented box.
        support: the plane that the object stands on, if one was found.
        up: unit vector (3,) against gravity, or away from the support, as far as known.
        depth_fraction: 0..1, part of the mask's pixels with a valid depth.
        visible_fraction: 0..1, part of the mask's outline that is not cut off by something nearer
            or by the border of the image.
        viewpoints: (V,3), where the cameras stood.
        agreement: 0..1, part of the views that agree on the object; 1 for a single view.
    """

    reason: str = ""
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), np.float32))
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), int))
    centroid: np.ndarray | None = None
    box: Box | None = None
    support: Plane | None = None
    up: np.ndarray | None = None
    depth_fraction: float = 0.0
    visible_fraction: float = 0.0
    viewpoints: np.ndarray = field(default_factory=lambda: np.zeros((1, 3)))
    agreement: float = 1.0

    @property
    def views(self) -> int:
        """Number of camera views that the points come from."""
        return len(self.viewpoints)

    def transformed(self, pose: np.ndarray) -> Object3D:
        """The object carried by a 4x4 transform, for example from the optical to another frame."""
        if self.box is None or self.centroid is None:
            return self
        return replace(
            self,
            points=transform_points(self.points, pose),
            centroid=transform_points(self.centroid, pose),
            box=self.box.transformed(pose),
            support=self.support.transformed(pose) if self.support else None,
            up=pose[:3, :3] @ self.up if self.up is not None else None,
            viewpoints=transform_points(self.viewpoints, pose),
        )


def locate(
    mask: np.ndarray, depth: np.ndarray | None, camera: Intrinsics | None, *, up: Up = None
) -> Object3D:
    """The object behind a mask.

    Faults of the data never raise; they become the `reason` of a result without 3-D part.

    Args:
        mask: bool or uint8 (H,W) of the colour image, non-zero on the object.
        depth: (H',W') along the optical axis: uint16 millimetres or float32 metres; 0 or NaN where
            nothing was measured. It shows the same view as the mask; the sizes may differ.
        camera: the intrinsics of the depth image, at any size.
        up: makes the box stand upright. A unit vector (3,) against gravity in the optical frame;
            or "support": the normal of the plane that the object stands on, where there is one.
            With None the box lies as the object does.
    """
    if depth is None:
        return Object3D(reason="no depth image")
    if camera is None:
        return Object3D(reason="no camera_info, so the depth image has no scale across")
    try:
        check_depth(depth)
        mask = fit_mask(mask, depth.shape)
        camera = camera.resized(depth.shape[1], depth.shape[0])
    except DepthError as error:
        return Object3D(reason=str(error))
    if not mask.any():
        return Object3D(reason="the mask has no pixel in the depth image")
    # 1. The mask's pixels with a depth, without those that hang between two surfaces.
    part = window(mask, 0, least=1)
    inside, z, sight = mask[part], metres(depth[part]), rays(camera)[part]
    valid = inside & np.isfinite(z) & np.isfinite(sight[..., 0])
    fraction = float(valid.sum() / inside.sum())
    smooth, on_surface = trim_and_smooth(np.where(valid, z, np.float32(np.nan)), camera.fx)
    pixels = np.flatnonzero(valid & on_surface)
    if len(pixels) < LEAST_POINTS:
        reason = (
            f"only {int(valid.sum())} of the mask's {int(inside.sum())} pixels have a depth, and "
            f"{len(pixels)} of them lie on a surface; {LEAST_POINTS} are needed"
        )
        return Object3D(reason=reason, depth_fraction=fraction)
    points = _deproject(smooth, sight, pixels)
    # 2. Of these the object itself: neither background nor what it stands on.
    step = float(depth_discontinuity(float(np.median(points[:, 2])), camera.fx))
    keep = object_components(points, max(GAP, 1.5 * step))
    points, pixels = points[keep], pixels[keep]
    known_up = None if up is None or isinstance(up, str) else np.asarray(up, dtype=float)
    around = _surroundings(mask, depth, camera)
    support = support_plane(around, points, 0.5 * step, known_up)
    keep = _above(support, points)
    points, pixels = points[keep], pixels[keep]
    if len(points) < LEAST_POINTS:
        reason = (
            f"only {len(points)} depth points of the mask hang together; {LEAST_POINTS} are needed"
        )
        return Object3D(reason=reason, depth_fraction=fraction)
    # 3. Its box.
    if isinstance(up, str) and support is not None:
        known_up = support.normal
    rows, columns = np.divmod(pixels, inside.shape[1])
    return Object3D(
        points=points,
        pixels=np.stack([columns + part[1].start, rows + part[0].start], axis=1),
        centroid=points.mean(axis=0, dtype=float),
        box=make_box(points, known_up, support),
        support=support,
        up=known_up,
        depth_fraction=fraction,
        visible_fraction=visible_fraction(inside, z, depth_discontinuity(z, camera.fx)),
    )


def _surroundings(mask: np.ndarray, depth: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """Points float32 (M,3) around the mask, evenly drawn, the same ones every time."""
    part = window(mask, SURROUNDINGS, least=8)
    outside = ~dilate(mask[part], 3)
    random = np.random.default_rng(0)
    rows, columns = (random.integers(0, size, SAMPLES) for size in outside.shape)
    rows, columns = rows[outside[rows, columns]], columns[outside[rows, columns]]
    z, sight = metres(depth[part][rows, columns]), rays(camera)[part][rows, columns]
    points = np.concatenate([sight, np.ones_like(sight[:, :1])], axis=1) * z[:, None]
    return points[np.isfinite(points).all(axis=1)]


def _deproject(z: np.ndarray, sight: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Points float32 (N,3) of pixels (N,), counted row by row, from depth and `rays` (H,W,2)."""
    points = np.ones((len(pixels), 3), np.float32)
    points[:, :2] = sight.reshape(-1, 2).take(pixels, axis=0)
    points *= z.ravel().take(pixels)[:, None]
    return points


def cloud(depth: np.ndarray, camera: Intrinsics) -> tuple[np.ndarray, np.ndarray]:
    """Everything that a depth image shows: points float32 (N,3) and pixels int (N,2),
    column and row.

    Raises:
        DepthError: the depth image or the intrinsics cannot be used.
    """
    check_depth(depth)
    sight = rays(camera.resized(depth.shape[1], depth.shape[0]))
    z = metres(depth)
    pixels = np.flatnonzero(np.isfinite(z) & np.isfinite(sight[..., 0]))
    rows, columns = np.divmod(pixels, z.shape[1])
    return _deproject(z, sight, pixels), np.stack([columns, rows], axis=1)


def make_box(points: np.ndarray, up: np.ndarray | None, support: Plane | None) -> Box:
    """The upright box where up is known, down to the support; else the smallest one."""
    if up is None:
        return free_box(points)
    return upright_box(points, up, _floor(points, up, support))


def _floor(points: np.ndarray, up: np.ndarray, support: Plane | None) -> float | None:
    """How low the box reaches along `up`: to the support, if the object seems to stand on it.

    The camera does not see the underside of a ball or what stands in its own shadow. Something
    higher above the plane than three quarters of its own visible height floats, or is held.
    """
    if support is None:
        return None
    along = points @ up.astype(points.dtype)
    low, high = float(along.min()), float(along.max())
    middle = points.mean(axis=0, dtype=float)
    floor = float(middle @ up - support.height(middle) / (support.normal @ up))
    return floor if low - floor < STANDING * (high - low) + GAP else None


def _above(support: Plane | None, points: np.ndarray) -> np.ndarray:
    """Which points are higher than the support is rough: bool (N,). On the others the mask spilled.

    Things as flat as a sheet of paper stay whole.
    """
    if support is None:
        return np.ones(len(points), bool)
    above = support.height(points) > 0.001 + 2.5 * support.spread
    return above if above.mean() > FLAT else np.ones(len(points), bool)
