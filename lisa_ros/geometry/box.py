"""Oriented boxes around clouds of points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lisa_ros.geometry.transforms import quaternion, transform_points

TRIM = 0.005  # share of the points at each end that may be strays
ROUND_STEP = 1 / (2 ** (2 / 3) - 1)  # see `_extent`
DIRECTIONS = 128
OUTLINE, SAMPLE = 6000, 150  # points that the hull is sought among, and points for the closeness
ROUNDS = 6
CLOSENESS = 0.5


@dataclass(frozen=True)
class Box:
    """A box of any orientation.

    Attributes:
        center: (3,) metres.
        rotation: (3,3), its columns are the box' axes x, y, z: x is the longest. Of an upright box
            z points up and x is the longer of the others.
        size: (3,) full lengths along the axes, metres.
        upright: whether it stands in the direction of gravity or of its support.
    """

    center: np.ndarray
    rotation: np.ndarray
    size: np.ndarray
    upright: bool

    @property
    def quaternion(self) -> np.ndarray:
        """(x, y, z, w) of the rotation."""
        return quaternion(self.rotation)

    @property
    def corners(self) -> np.ndarray:
        """(8,3) metres."""
        signs = np.stack(np.meshgrid([-1, 1], [-1, 1], [-1, 1], indexing="ij"), -1).reshape(8, 3)
        return self.center + (signs * self.size / 2) @ self.rotation.T

    def transformed(self, pose: np.ndarray) -> Box:
        """The box carried by a 4x4 transform."""
        center, rotation = transform_points(self.center, pose), pose[:3, :3] @ self.rotation
        return Box(center, rotation, self.size, self.upright)


def free_box(points: np.ndarray) -> Box:
    """The smallest box that was found around points (N,3), N >= 4, in any orientation.

    It starts at the principal axes, which alone would lean towards the side that the camera saw
    best, and turns them about one axis after the other as long as the volume shrinks (after
    O'Rourke, 1985, whose smallest boxes have a face flush with an edge of the hull).
    """
    centered = points - points.mean(axis=0)
    hull = _extreme_points(centered, _sphere(DIRECTIONS))
    some = _sample(centered, SAMPLE).astype(float)
    rotation = np.linalg.eigh((centered.T @ centered).astype(float))[1]
    # A surface seen from the front has no thickness, yet its two sides must count.
    thinnest = 0.01 * float(np.ptp(hull, axis=0).max())
    volume = np.inf
    for _ in range(ROUNDS):
        for axis in range(3):
            plane = [(axis + 1) % 3, (axis + 2) % 3]  # the two axes that turn about this one
            flat = rotation[:, plane]
            turn = _turn(_smallest_rectangle(hull @ flat, some @ flat, thinnest))
            rotation[:, plane] = flat @ turn
        before, volume = volume, float(np.prod(np.ptp(hull @ rotation, axis=0) + thinnest))
        if volume > 0.998 * before:
            break
    low, high = _extent(points, rotation)
    order = np.argsort(low - high, kind="stable")
    return _box(low[order], high[order], rotation[:, order], upright=False)


def upright_box(points: np.ndarray, up: np.ndarray, floor: float | None = None) -> Box:
    """The box around points (N,3) that stands upright and has the smallest footprint.

    Args:
        points: metres.
        up: unit vector (3,).
        floor: where the box ends below, as a distance along `up`; None: at the lowest point.
    """
    side = np.cross(up, np.eye(3)[np.abs(up).argmin()])
    side /= np.linalg.norm(side)
    rotation = np.stack([side, np.cross(up, side), up], axis=1)
    flat = points @ rotation[:, :2].astype(points.dtype)
    circle = np.linspace(0, 2 * np.pi, DIRECTIONS, endpoint=False)
    hull = _extreme_points(flat, np.stack([np.cos(circle), np.sin(circle)], axis=1))
    thinnest = 0.01 * float(np.ptp(hull, axis=0).max())
    turn = _turn(_smallest_rectangle(hull, _sample(flat, SAMPLE), thinnest))
    rotation[:, :2] = rotation[:, :2] @ turn
    low, high = _extent(points, rotation)
    if floor is not None:
        low[2] = floor
    order = [0, 1, 2] if high[0] - low[0] >= high[1] - low[1] else [1, 0, 2]
    return _box(low[order], high[order], rotation[:, order], upright=True)


def _box(low: np.ndarray, high: np.ndarray, rotation: np.ndarray, upright: bool) -> Box:
    """A right-handed box; of the two equal ways to lay x along an axis the one to the right."""
    center = rotation @ ((low + high) / 2)
    rotation = rotation.copy()
    if rotation[0, 0] < 0:
        rotation[:, 0] *= -1
    if not upright and rotation[2, 2] > 0:
        rotation[:, 2] *= -1
    rotation[:, 1] = np.cross(rotation[:, 2], rotation[:, 0])
    return Box(center, rotation, high - low, upright)


def _turn(angle: float) -> np.ndarray:
    """(2,2): two axes, as columns, turned by an angle in radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _smallest_rectangle(hull: np.ndarray, some: np.ndarray, thinnest: float) -> float:
    """The angle, radians, by which the axes must turn for the smallest rectangle around (N,2).

    Two faces of a box, seen edge on, are the legs of a right-angled triangle, and the rectangles
    along its legs and along its hypotenuse are equally large. So the area is weighed up by how far
    `some` of the points (M,2) lie from the nearest side (the closeness of Zhang et al., 2017).
    """
    best, step = 0.0, np.deg2rad(5)
    angles = np.arange(0, np.pi / 2, step)
    for _ in range(3):  # exact to 5, to 0.8, to 0.14 degrees
        axes = _turn(angles).transpose(2, 1, 0)  # (A, 2, 2), an axis in each row
        along, inside = axes @ hull.T, axes @ some.T  # (A, 2, N), (A, 2, M)
        low, high = along.min(axis=2, keepdims=True), along.max(axis=2, keepdims=True)
        width = high - low + thinnest
        gap = (np.minimum(inside - low, high - inside) / width).min(axis=1)  # (A, M)
        cost = width.prod(axis=1)[:, 0] * (1 + CLOSENESS * gap.mean(axis=1))
        best = float(angles[cost.argmin()])
        angles = best + np.linspace(-step, step, 13)
        step /= 6
    return best


def _sample(points: np.ndarray, count: int) -> np.ndarray:
    """About `count` of the points (N,D), the same ones every time."""
    return points[:: max(1, len(points) // count)]


def _extreme_points(points: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Those of points (N,D) that lie outermost in one of the directions (K,D), as float64."""
    some = _sample(points, OUTLINE)
    outermost = (directions.astype(some.dtype) @ some.T).argmax(axis=1)
    return some[np.unique(outermost)].astype(float)


def _sphere(count: int) -> np.ndarray:
    """Unit vectors (count,3), evenly spread: a Fibonacci lattice."""
    index = np.arange(count) + 0.5
    z, angle = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    r = np.sqrt(1 - z * z)
    return np.stack([r * np.cos(angle), r * np.sin(angle), z], axis=1)


def _extent(points: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinate (3,) along the axes, without strays.

    The outermost `TRIM` of the points are not looked at; the next as many say how dense the points
    are there, and so where the end is. What is round thins out towards its end, so that `q` of its
    points lie within a distance that grows as q^(2/3); for the face of a box, where it grows as q,
    the same step goes too far by `TRIM` of its length at most.
    """
    along = rotation.T.astype(points.dtype) @ points.T
    last, skip = along.shape[1] - 1, int(TRIM * along.shape[1])
    ordered = np.sort(along, axis=1)  # faster than a partition at four places
    low, high = ordered[:, skip], ordered[:, last - skip]
    low = low - ROUND_STEP * (ordered[:, 2 * skip] - low)
    high = high + ROUND_STEP * (high - ordered[:, last - 2 * skip])
    low, high = np.maximum(low, ordered[:, 0]), np.minimum(high, ordered[:, -1])
    return low.astype(float), high.astype(float)
