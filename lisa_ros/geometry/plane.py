"""The plane on which an object stands, from the depth around its mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

TRIALS = 100
LEAST_SHARE = 0.3  # of the surroundings that must lie in the plane
LEAST_SAMPLES = 50
OBJECT_SAMPLES = 100
BELOW = 0.1  # of the object that may seem to lie under its support
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

    def transformed(self, pose: np.ndarray) -> Plane:
        """The plane carried by a 4x4 transform."""
        normal = pose[:3, :3] @ self.normal
        return Plane(normal, self.offset + float(normal @ pose[:3, 3]), self.spread)


def support_plane(
    around: np.ndarray, obj: np.ndarray, tolerance: float, up: np.ndarray | None
) -> Plane | None:
    """The plane that holds most of an object's surroundings and has the object on one side.

    RANSAC (Fischler and Bolles, 1981), then two rounds of least squares over the points within the
    tolerance. The draws are always the same ones.

    Args:
        around: (M,3) points of the surroundings, in the optical frame, metres; a thousand will do.
        obj: (N,3) points of the object.
        tolerance: distance within which a point lies in the plane, metres.
        up: unit vector against gravity, or None: then any direction is possible.

    Returns:
        None if no such plane holds 30 % of the surroundings.
    """
    if len(around) < LEAST_SAMPLES:
        return None
    obj = obj[:: max(1, len(obj) // OBJECT_SAMPLES)]
    normals, offsets = _trials(around, obj, up)
    below = (normals @ obj.T - offsets[:, None] < -2 * tolerance).mean(axis=1)
    votes = (np.abs(normals @ around.T - offsets[:, None]) < tolerance).sum(axis=1)
    votes[below > BELOW] = 0
    if up is not None:
        votes[normals @ up.astype(normals.dtype) < UPRIGHT] = 0
    best = int(votes.argmax())
    normal, offset = normals[best].astype(float), float(offsets[best])
    for _ in range(2):
        inside = around[np.abs(around @ normal - offset) < tolerance].astype(float)
        if not votes[best] or len(inside) < max(LEAST_SHARE * len(around), LEAST_SAMPLES):
            return None
        middle = inside.mean(axis=0)
        fitted = np.linalg.eigh(np.cov((inside - middle).T))[1][:, 0]
        normal = fitted if fitted @ normal > 0 else -fitted
        offset = float(normal @ middle)
    spread = float(np.sqrt(np.mean((inside @ normal - offset) ** 2)))
    return Plane(normal, offset, spread)


def _trials(
    around: np.ndarray, obj: np.ndarray, up: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Normals (T,3) and offsets (T,) of planes through three points each.

    The normals point along `up` or, without it, to the side of the object.
    """
    corners = around[np.random.default_rng(0).integers(0, len(around), (TRIALS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals /= np.maximum(lengths, np.float32(1e-9))
    offsets = (normals * corners[:, 0]).sum(axis=1)
    toward = normals @ up.astype(normals.dtype) if up is not None else None
    flip = np.median(normals @ obj.T, axis=1) < offsets if toward is None else toward < 0
    normals[flip] *= -1
    offsets[flip] *= -1
    return normals, offsets
