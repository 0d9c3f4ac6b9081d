"""Rigid transforms: 4x4 matrices, and the quaternions of ROS messages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def rigid(position: Sequence[float], quaternion: Sequence[float]) -> np.ndarray:
    """The 4x4 matrix of a translation (x, y, z) and a quaternion (x, y, z, w) of any length."""
    x, y, z, w = np.asarray(quaternion, dtype=float) / np.linalg.norm(quaternion)
    pose = np.eye(4)
    pose[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    pose[:3, 3] = position
    return pose


def quaternion(rotation: np.ndarray) -> np.ndarray:
    """The unit quaternion (x, y, z, w), w >= 0, of a rotation matrix (3,3).

    It is the eigenvector of the largest eigenvalue of Bar-Itzhack's symmetric matrix (2000), which
    also takes a slightly skewed matrix to the nearest rotation.
    """
    m = np.asarray(rotation, dtype=float)
    symmetric = np.empty((4, 4))
    symmetric[:3, :3] = m + m.T - np.trace(m) * np.eye(3)
    symmetric[3, :3] = symmetric[:3, 3] = m[[2, 0, 1], [1, 2, 0]] - m[[1, 2, 0], [2, 0, 1]]
    symmetric[3, 3] = np.trace(m)
    result = np.linalg.eigh(symmetric)[1][:, -1]
    return -result if result[3] < 0 else result


def transform_points(points: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Points (...,3) carried by a 4x4 transform; they keep their floating-point type."""
    rotation, shift = pose[:3, :3].astype(points.dtype), pose[:3, 3].astype(points.dtype)
    return points @ rotation.T + shift


def is_rigid(pose: np.ndarray) -> bool:
    """Whether a matrix (4,4) is a rotation and a translation: neither scaled nor left-handed."""
    if pose.shape != (4, 4) or not np.isfinite(pose).all():
        return False
    turn = pose[:3, :3]
    orthogonal = np.allclose(turn @ turn.T, np.eye(3), atol=1e-3)
    return orthogonal and np.linalg.det(turn) > 0 and np.allclose(pose[3], [0, 0, 0, 1])
