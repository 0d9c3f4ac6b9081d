"""Fruit and vegetables."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lisa_ros.sim.kinds.shape import Collider, Draw, Part, Shape
from lisa_ros.sim.meshes import arc, lathe, tube


def apple(draw: Draw) -> Shape:
    r = draw(0.034, 0.043)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 14)
    radius = r * np.cos(angle) * (1 + 0.08 * np.sin(angle))
    height = (
        r * 0.92 * (np.sin(angle) - 0.25 * np.exp(-((angle - np.pi / 2) ** 2) / 0.08)) + r * 0.92
    )
    body = lathe(list(zip(radius, height, strict=True)))
    stem = Part("capsule", "stem", (0.0022, 0.010, 0), (0, 0, 1.75 * r), (0.25, 0, 0))
    return Shape([Part(body), stem], [Collider("sphere", (r * 0.96, 0, 0), (0, 0, r * 0.96))])


def banana(draw: Draw) -> Shape:
    bend, thick = draw(0.075, 0.10), draw(0.015, 0.019)
    span = draw(1.7, 2.2)
    path = arc(bend, -span / 2, span / 2, 18) - np.array([bend * 0.8, 0, 0])
    taper = thick * np.clip(1.05 - np.abs(np.linspace(-1, 1, 18)) ** 4, 0.28, 1)
    body = Part(tube(path, taper), position=(0, 0, thick))
    tip = Part("capsule", "stem", (0.004, 0.008, 0), tuple(path[-1] + [0, 0, thick]), (0.9, 0, 0))
    half = bend * np.sin(span / 2)
    return Shape(
        [body, tip],
        [Collider("box", (0.022, half * 0.9, thick * 0.9), (0, 0, thick * 0.9))],
        fine_colliders=_banana_pieces(path, taper, thick),
    )


def _banana_pieces(path: np.ndarray, taper: np.ndarray, thick: float) -> list[Collider]:
    """Straight boxes along a bent path (N,3) of radii (N,), all of them down to the table."""
    pieces = []
    for first, last in pairwise((0, 4, 8, 12, 17)):
        run = path[last] - path[first]
        x, y, _ = (path[first] + path[last]) / 2
        size = (np.linalg.norm(run) / 2, 0.9 * taper[first : last + 1].mean(), thick * 0.9)
        turn = (0, 0, np.arctan2(run[1], run[0]))
        pieces.append(Collider("box", size, (x, y, thick * 0.9), turn))
    return pieces


def carrot(draw: Draw) -> Shape:
    length, thick = draw(0.13, 0.18), draw(0.015, 0.020)
    along = np.linspace(0, 1, 10)
    path = np.column_stack([length * (along - 0.5), 0 * along, 0 * along])
    root = Part(tube(path, thick * (1.0 - 0.85 * along**1.3)), position=(0, 0, thick))
    leaves = [
        Part(
            "ellipsoid",
            "leaf",
            (0.026, 0.006, 0.005),
            (-length / 2 - 0.020, 0.012 * side, thick),
            (0, 0, -0.5 * side),
        )
        for side in (-1, 0, 1)
    ]
    slices = [
        Collider(
            "box",
            (length / 10, thick * (1.0 - 0.85 * at**1.3) * 0.95, thick * 0.8),
            (length * (at - 0.5), 0, thick * 0.8),
        )
        for at in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    return Shape(
        [root, *leaves],
        [Collider("box", (length / 2, thick * 0.8, thick * 0.8), (0, 0, thick * 0.8))],
        fine_colliders=slices,
    )
