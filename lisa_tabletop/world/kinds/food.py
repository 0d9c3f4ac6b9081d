"""Fruit and vegetables."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from lisa_tabletop.world.kinds.shape import Collider, Draw, Part, Shape
from lisa_tabletop.world.meshes import arc, lathe, prism, tube


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


def pear(draw: Draw) -> Shape:
    r, h = draw(0.033, 0.041), draw(0.092, 0.118)
    neck, waist = r * draw(0.36, 0.48), draw(0.60, 0.68)
    along = np.array([0.0, 0.0, 0.05, 0.16, 0.32, 0.46, waist, 0.80, 0.92, 0.98, 1.0])
    radius = np.array([0.0, 0.40, 0.70, 0.94, 1.0, 0.90, 0.0, 0.0, 0.0, 0.0, 0.0]) * r
    radius[6:] = neck * np.array([1.30, 1.02, 0.80, 0.45, 0.0])
    body = lathe(list(zip(radius, along * h, strict=True)))
    stem = Part("capsule", "stem", (0.0028, 0.011, 0), (0, 0.003, h + 0.007), (-0.3, 0, 0))
    bulb, tip = 0.5 * h, 0.45 * h
    return Shape(
        [Part(body), stem],
        [
            Collider("cylinder", (0.93 * r, bulb / 2, 0), (0, 0, bulb / 2)),
            Collider("cylinder", (neck, tip / 2, 0), (0, 0, bulb + tip / 2)),
        ],
        lie=(np.pi / 2, 0, 0),
    )


def bread(draw: Draw) -> Shape:
    """A tin loaf that has been cut into, or a long one that was baked free."""
    length, width, h = draw(0.125, 0.165), draw(0.030, 0.038), draw(0.055, 0.070)
    dome = draw.pick(True, False)
    parts = _tin_loaf(length, width, h) if dome else _free_loaf(length, width, h)
    for at in np.linspace(-0.28, 0.28, round(draw(3, 4))):
        top = h - (0.0 if dome else h * 0.35 * (2 * at) ** 2)
        parts.append(
            Part(
                "ellipsoid",
                "crumb",
                (0.005, width * 0.62, 0.004),
                (at * length, 0, top - 0.0015),
                (0, 0, 0.5),
            )
        )
    return Shape(
        parts,
        [Collider("box", (length * 0.48, width * 0.85, h / 2), (0, 0, h / 2))],
        shine=0.1,
    )


def _tin_loaf(length: float, width: float, h: float) -> list[Part]:
    angle = np.linspace(0, np.pi, 12)
    dome = np.column_stack([1.08 * width * np.cos(angle), h * (0.6 + 0.4 * np.sin(angle))])
    outline = np.array([(-0.88 * width, 0), (0.88 * width, 0), *dome])
    # The outline stands in the y-z plane and is drawn out along x.
    turned = (np.pi / 2, np.pi / 2, 0)
    cut = prism(list(map(tuple, outline * 0.88)), 0.002)
    return [
        Part(prism(list(map(tuple, outline)), length), euler=turned),
        Part(cut, "crumb", position=(length / 2, 0, 0.05 * h), euler=turned),
    ]


def _free_loaf(length: float, width: float, h: float) -> list[Part]:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 18)
    path = np.column_stack([length / 2 * np.sin(angle), 0 * angle, 0 * angle])
    radii = width * np.maximum(np.cos(angle), 0.02) ** 0.6
    loaf = tube(path, radii, 20, flatten=h / 2 / width)
    return [Part(loaf, position=(0, 0, h / 2))]
