"""Where the objects of a scene are dropped: side by side, in a crowd, one into another."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np

from lisa_tabletop.world.kinds import Collider, Shape

AREA = (0.25, 0.20)  # half sizes in metres of the region in which objects are dropped


@dataclass(frozen=True)
class Pose:
    """Where an object is dropped: its origin (3,) in metres, its orientation (4,)."""

    position: np.ndarray
    quaternion: np.ndarray


def drop_poses(
    random: np.random.Generator, shapes: list[Shape], pile: int, area: float
) -> list[Pose]:
    """Where to drop the objects: next to each other, the first `pile` of them into the first one.

    Things may touch. Where there is no room beside them, an object is dropped from above.
    """
    poses: list[Pose] = []
    around: list[tuple[np.ndarray, float]] = []  # discs on the table and the height of each object
    for index, shape in enumerate(shapes):
        turn, lift = _turn(random, shape, may_lie=index >= pile)
        discs, height = _footprint(shape, turn)
        if 0 < index < pile:
            spot = poses[0].position[:2] + random.normal(0, 0.006, 2)
            below = sum(tall for _, tall in around)
        else:
            spot, below = _spot(random, discs, around, area)
        discs[:, :2] += spot
        around.append((discs, height))
        poses.append(Pose(np.array([*spot, below + lift]), turn))
    return poses


def _spot(
    random: np.random.Generator, discs: np.ndarray, around: list[tuple[np.ndarray, float]],
    area: float,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """A free place (x, y), or the freest of 24, and the height of what lies there already."""
    best, gaps = np.zeros(2), np.full(len(around), -np.inf)
    for _ in range(24):
        spot = random.uniform(-1, 1, 2) * area * AREA
        found = np.array([_gap(discs, spot, other) for other, _ in around])
        if found.min(initial=np.inf) > gaps.min(initial=-np.inf):
            best, gaps = spot, found
        if gaps.min(initial=np.inf) > 0.004:
            break
    below = [height for gap, (_, height) in zip(gaps, around, strict=True) if gap < 0]
    return best, max(below, default=0.0)


def _gap(discs: np.ndarray, spot: np.ndarray, others: np.ndarray) -> float:
    """Smallest distance of discs (N,3), x, y and radius, put at a spot, to others; metres."""
    apart = np.linalg.norm(discs[:, None, :2] + spot - others[None, :, :2], axis=2)
    return float((apart - discs[:, None, 2] - others[None, :, 2]).min())


def _footprint(shape: Shape, turn: np.ndarray) -> tuple[np.ndarray, float]:
    """Discs (N,3), x, y and radius, that cover the turned object, and its height; metres."""
    discs, low, high = [], [], []
    for collider in shape.colliders:
        center = np.zeros(3)
        mujoco.mju_rotVecQuat(center, np.array(collider.position, dtype=float), turn)
        axes = _axes(collider, turn)
        flat = np.linalg.norm(axes[:, :2], axis=1)
        longest, wide = np.argmax(flat), np.sort(flat)[1]
        reach = axes[longest, :2] * (1 - min(1, wide / flat[longest]))
        for step in np.linspace(-1, 1, max(1, round(flat[longest] / max(wide, 0.005)))):
            discs.append([*(center[:2] + step * reach), wide * 1.1])
        low.append(center[2] - np.abs(axes[:, 2]).sum())
        high.append(center[2] + np.abs(axes[:, 2]).sum())
    return np.array(discs), max(high) - min(low)


def _axes(collider: Collider, turn: np.ndarray) -> np.ndarray:
    """The half axes (3,3), one a row, of the turned box around a collider; metres."""
    first, second, third = collider.size
    half = {"cylinder": (first, first, second), "sphere": (first,) * 3}.get(
        collider.shape, (first, second, third)
    )
    both, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_mulQuat(both, turn, quaternion(collider.euler))
    mujoco.mju_quat2Mat(matrix, both)
    return matrix.reshape(3, 3).T * np.array(half)[:, None]


def _turn(random: np.random.Generator, shape: Shape, may_lie: bool) -> tuple[np.ndarray, float]:
    """An orientation (quaternion) and the height of the object's origin above what it stands on."""
    yaw = quaternion((0, 0, random.uniform(-np.pi, np.pi)))
    if not may_lie or shape.lie is None or random.random() >= 0.25:
        return yaw, 0.004
    turned = np.zeros(4)
    mujoco.mju_mulQuat(turned, yaw, quaternion(shape.lie))
    return turned, max(c.size[0] for c in shape.colliders) + 0.004


def quaternion(euler: tuple[float, float, float]) -> np.ndarray:
    """Of turns around x, the turned y and the turned z, radians."""
    result = np.zeros(4)
    mujoco.mju_euler2Quat(result, np.array(euler, dtype=float), "xyz")
    return result
