"""The plane on which an object stands, from the depth around its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lisa_ros.geometry.frames import moved

TRIALS = 100
LEAST_SHARE = 0.3  # of the surroundings that must lie in the plane
LEAST_SAMPLES = 50
UPRIGHT = np.cos(np.deg2rad(20))  # with gravity known, steeper planes are no support


@dataclass(frozen=True)
class Plane:
    """The points p with normal·p = offset.

    Attributes:
        normal: unit vector (3,), towards the side on which the object is.
        offset: metres.
        spread: root mean square of the distances of the measured points from the plane, metres.
    """

    normal: np.ndarray
    offset: float
    spread: float

    def height(self, points: np.ndarray) -> np.ndarray:
        """Signed distances (N,) of points (N,3) above the plane, metres."""
        return points @ self.normal.astype(points.dtype) - points.dtype.type(self.offset)

    def moved(self, pose: np.ndarray) -> Plane:
        """The plane carried by a 4x4 transform."""
        normal = moved(self.normal, np.vstack([np.c_[pose[:3, :3], np.zeros(3)], [0, 0, 0, 1]]))
        return Plane(normal, self.offset + float(normal @ pose[:3, 3]), self.spread)


def support_plane(
    around: np.ndarray, thing: np.ndarray, tolerance: float, up: np.ndarray | None
) -> Plane | None:
    """The plane that holds most of an object's surroundings, if the object lies on one side of it.

    RANSAC (Fischler and Bolles, 1981), then two rounds of least squares over the points within the
    tolerance. The draws are always the same ones.

    Args:
        around: (M,3) points of the surroundings, in the optical frame, metres; a thousand will do.
        thing: (N,3) points of the object.
        tolerance: distance within which a point lies in the plane, metres.
        up: unit vector against gravity, or None: then any direction is possible.

    Returns:
        None if no plane holds 30 % of the surroundings, or if the object reaches through it.
    """
    if len(around) < LEAST_SAMPLES:
        return None
    corners = around[np.random.default_rng(0).integers(0, len(around), (TRIALS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1)
    usable = lengths > 1e-8
    normals[usable] /= lengths[usable, None]
    if up is not None:
        usable &= np.abs(normals @ up.astype(normals.dtype)) > UPRIGHT
    if not usable.any():
        return None
    normals, offsets = normals[usable], (normals * corners[:, 0]).sum(axis=1)[usable]
    votes = (np.abs(normals @ around.T - offsets[:, None]) < tolerance).sum(axis=1)
    best = int(votes.argmax())
    normal, offset = normals[best].astype(float), float(offsets[best])
    for _ in range(2):
        inside = around[np.abs(around @ normal - offset) < tolerance].astype(float)
        if len(inside) < max(LEAST_SHARE * len(around), LEAST_SAMPLES):
            return None
        middle = inside.mean(axis=0)
        normal = np.linalg.eigh(np.cov((inside - middle).T))[1][:, 0]
        offset = float(normal @ middle)
    spread = float(np.sqrt(np.mean((inside @ normal - offset) ** 2)))
    if np.median(thing @ normal) < offset:
        normal, offset = -normal, -offset
    plane = Plane(normal, offset, spread)
    reaches_through = (plane.height(thing) < -2 * tolerance).mean() > 0.1
    against_gravity = up is not None and normal @ up < UPRIGHT
    return None if reaches_through or against_gravity else plane
