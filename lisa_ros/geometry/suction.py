"""Grasp candidates for a suction cup: flat places of an object's cloud."""

from __future__ import annotations

import numpy as np

from lisa_ros.geometry.grasp import Grasp
from lisa_ros.geometry.object3d import ObjectInSpace

POINTS, SEEDS = 2000, 80
LEAST_POINTS = 10
UNEVENNESS = 0.05  # of the cup's diameter: root mean square that its lip still seals
HALF_DISC = 0.28  # spread of half a disc across its cut, where that of the whole disc is 1
STEEP = 0.4  # worth of a vertical face where up is known


def suction_grasps(thing: ObjectInSpace, diameter: float = 0.02, most: int = 10) -> list[Grasp]:
    """Places for a suction cup, the best first, at least half a diameter apart.

    The score is the product of
        flatness: 1 for a plane under the cup, 0 at an unevenness of 5 % of the diameter;
        cover: 1 if the surface reaches all around under the cup, 0 if half of the cup is over the
            edge;
        balance: 1 over the middle of the object, falling to 0.5 at its ends;
        level: 1 on a face that looks up, falling to 0.4 on a vertical one; 1 if up is not known.

    Args:
        thing: the object, in any frame.
        diameter: of the cup's lip, metres.
        most: at most so many candidates.
    """
    if thing.box is None:
        return []
    center = thing.box.center
    points = (thing.points[:: max(1, len(thing.points) // POINTS)] - center).astype(float)
    seeds = points[:: max(1, len(points) // SEEDS)]
    reach = diameter / 2
    under = _near(seeds, points, reach)
    count = under.sum(axis=1)
    enough = count >= LEAST_POINTS
    seeds, under, count = seeds[enough], under[enough], count[enough, None]
    if not len(seeds):
        return []
    normals, roughness, spread = _faces(points, under, count)
    sight = thing.viewpoints - center
    outward = np.einsum("vsk,sk->vs", sight[:, None] - seeds[None], normals)
    normals[outward[np.abs(outward).argmax(axis=0), np.arange(len(seeds))] < 0] *= -1
    half = np.linalg.norm(thing.box.size) / 2
    away = np.linalg.norm(seeds - normals * (seeds * normals).sum(1, keepdims=True), axis=1)
    score = (
        np.clip(1 - roughness / (UNEVENNESS * diameter), 0, 1)
        * np.clip((4 * spread / reach**2 - HALF_DISC) / (1 - HALF_DISC), 0, 1)
        * (1 - 0.5 * np.clip(away / half, 0, 1))
    )
    if thing.up is not None:
        score *= STEEP + (1 - STEEP) * np.clip(normals @ thing.up, 0, 1)
    return _best(seeds, normals, score, center, reach, most)


def _near(seeds: np.ndarray, points: np.ndarray, reach: float) -> np.ndarray:
    """Which points (N,3) lie within reach of which seeds (S,3): (S,N), 1 or 0."""
    squares = (seeds**2).sum(1)[:, None] + (points**2).sum(1) - 2 * seeds @ points.T
    return (squares < reach * reach).astype(float)


def _faces(
    points: np.ndarray, under: np.ndarray, count: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Planes through the points under each cup.

    Returns:
        Normals (S,3), root mean squares of the distances (S,) of the points from their plane, and
        their variances (S,) in it, in the direction in which they spread least.
    """
    middles = under @ points / count
    products = (points[:, :, None] * points[:, None, :]).reshape(-1, 9)
    moments = (under @ products / count).reshape(-1, 3, 3)
    values, vectors = np.linalg.eigh(moments - middles[:, :, None] * middles[:, None])
    return vectors[:, :, 0].copy(), np.sqrt(np.maximum(values[:, 0], 0)), values[:, 1]


def _best(
    seeds: np.ndarray,
    normals: np.ndarray,
    score: np.ndarray,
    center: np.ndarray,
    apart: float,
    most: int,
) -> list[Grasp]:
    chosen: list[int] = []
    for index in np.argsort(-score):
        if score[index] <= 0 or len(chosen) == most:
            break
        if not chosen or np.linalg.norm(seeds[chosen] - seeds[index], axis=1).min() > apart:
            chosen.append(int(index))
    poses = _poses(center + seeds[chosen], -normals[chosen])
    return [
        Grasp(pose, 0.0, float(score[index]), "suction")
        for pose, index in zip(poses, chosen, strict=True)
    ]


def _poses(contacts: np.ndarray, approaches: np.ndarray) -> np.ndarray:
    """Poses (K,4,4) with z along the approach; how they are turned about it does not matter."""
    x = np.cross(np.eye(3)[np.abs(approaches).argmin(axis=1)], approaches)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    poses = np.tile(np.eye(4), (len(contacts), 1, 1))
    poses[:, :3, :3] = np.stack([x, np.cross(approaches, x), approaches], axis=2)
    poses[:, :3, 3] = contacts
    return poses
