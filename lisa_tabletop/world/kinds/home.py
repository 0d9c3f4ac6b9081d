"""Food, and what else lies about in a home."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from lisa_tabletop.world.exact import cos, exp, norm, power, sin
from lisa_tabletop.world.parts import ALONG_Y, Draw, Part, Shape, arc, lathe, prism, tube


def apple(draw: Draw) -> Shape:
    r = draw(0.034, 0.043)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 14)
    radius = r * cos(angle) * (1 + 0.08 * sin(angle))
    dimple = 0.25 * exp(-((angle - np.pi / 2) ** 2) / 0.08)
    height = r * 0.92 * (sin(angle) - dimple) + r * 0.92
    body = lathe(list(zip(radius, height, strict=True)))
    stem = Part("capsule", (0.0022, 0.01, 0), (0, 0, 1.75 * r), (0.25, 0, 0), "stem")
    return Shape([Part(body), stem], [Part("sphere", (r * 0.96, 0, 0), (0, 0, r * 0.96))])


def banana(draw: Draw) -> Shape:
    bend, thick = draw(0.075, 0.10), draw(0.015, 0.019)
    span = draw(1.7, 2.2)
    path = arc(bend, -span / 2, span / 2, 18) - np.array([bend * 0.8, 0, 0])
    taper = thick * np.clip(1.05 - power(np.linspace(-1, 1, 18), 4), 0.28, 1)
    body = Part(tube(path, taper), position=(0, 0, thick))
    tip = Part("capsule", (0.004, 0.008, 0), tuple(path[-1] + [0, 0, thick]), (0.9, 0, 0), "stem")
    half = bend * sin(span / 2)
    return Shape(
        [body, tip],
        [Part("box", (0.022, half * 0.9, thick * 0.9), (0, 0, thick * 0.9))],
        fine_colliders=_banana_pieces(path, taper, thick),
    )


def _banana_pieces(path: np.ndarray, taper: np.ndarray, thick: float) -> list[Part]:
    """Straight boxes along a bent path (N,3) of radii (N,), all of them down to the table."""
    pieces = []
    for first, last in pairwise((0, 4, 8, 12, 17)):
        run = path[last] - path[first]
        x, y, _ = (path[first] + path[last]) / 2
        size = (norm(run) / 2, 0.9 * taper[first : last + 1].mean(), thick * 0.9)
        turn = (0, 0, math.atan2(run[1], run[0]))
        pieces.append(Part("box", size, (x, y, thick * 0.9), turn))
    return pieces


def carrot(draw: Draw) -> Shape:
    length, thick = draw(0.13, 0.18), draw(0.015, 0.020)
    along = np.linspace(0, 1, 10)
    path = np.column_stack([length * (along - 0.5), 0 * along, 0 * along])
    root = Part(tube(path, thick * (1.0 - 0.85 * power(along, 1.3))), position=(0, 0, thick))
    leaves, slices = [], []
    for side in (-1, 0, 1):
        at = (-length / 2 - 0.02, 0.012 * side, thick)
        leaves.append(Part("ellipsoid", (0.026, 0.006, 0.005), at, (0, 0, -0.5 * side), "leaf"))
    for at in (0.1, 0.3, 0.5, 0.7, 0.9):
        half = (length / 10, thick * (1.0 - 0.85 * at**1.3) * 0.95, thick * 0.8)
        slices.append(Part("box", half, (length * (at - 0.5), 0, thick * 0.8)))
    return Shape(
        [root, *leaves],
        [Part("box", (length / 2, thick * 0.8, thick * 0.8), (0, 0, thick * 0.8))],
        fine_colliders=slices,
    )


def pear(draw: Draw) -> Shape:
    r, h = draw(0.033, 0.041), draw(0.092, 0.118)
    neck, waist = r * draw(0.36, 0.48), draw(0.60, 0.68)
    along = np.array([0.0, 0.0, 0.05, 0.16, 0.32, 0.46, waist, 0.80, 0.92, 0.98, 1.0])
    radius = np.array([0.0, 0.40, 0.70, 0.94, 1.0, 0.90, 0.0, 0.0, 0.0, 0.0, 0.0]) * r
    radius[6:] = neck * np.array([1.30, 1.02, 0.80, 0.45, 0.0])
    body = lathe(list(zip(radius, along * h, strict=True)))
    stem = Part("capsule", (0.0028, 0.011, 0), (0, 0.003, h + 0.007), (-0.3, 0, 0), "stem")
    bulb, tip = 0.5 * h, 0.45 * h
    below = Part("cylinder", (0.93 * r, bulb / 2, 0), (0, 0, bulb / 2))
    above = Part("cylinder", (neck, tip / 2, 0), (0, 0, bulb + tip / 2))
    return Shape([Part(body), stem], [below, above], lie=ALONG_Y)


def bread(draw: Draw) -> Shape:
    """A tin loaf that has been cut into, or a long one that was baked free."""
    length, width, h = draw(0.125, 0.165), draw(0.030, 0.038), draw(0.055, 0.070)
    dome = draw.pick(True, False)
    parts = _tin_loaf(length, width, h) if dome else _free_loaf(length, width, h)
    for at in np.linspace(-0.28, 0.28, round(draw(3, 4))):
        top = h - (0.0 if dome else h * 0.35 * (2 * at) ** 2)
        cut = (0.005, width * 0.62, 0.004)
        parts.append(Part("ellipsoid", cut, (at * length, 0, top - 0.0015), (0, 0, 0.5), "crumb"))
    solid = Part("box", (length * 0.48, width * 0.85, h / 2), (0, 0, h / 2))
    return Shape(parts, [solid], shine=0.1)


def _tin_loaf(length: float, width: float, h: float) -> list[Part]:
    angle = np.linspace(0, np.pi, 12)
    dome = np.column_stack([1.08 * width * cos(angle), h * (0.6 + 0.4 * sin(angle))])
    outline = np.array([(-0.88 * width, 0), (0.88 * width, 0), *dome])
    # The outline stands in the y-z plane and is drawn out along x.
    turned = (np.pi / 2, np.pi / 2, 0)
    cut = prism(list(map(tuple, outline * 0.88)), 0.002)
    return [
        Part(prism(list(map(tuple, outline)), length), euler=turned),
        Part(cut, position=(length / 2, 0, 0.05 * h), euler=turned, role="crumb"),
    ]


def _free_loaf(length: float, width: float, h: float) -> list[Part]:
    angle = np.linspace(-np.pi / 2, np.pi / 2, 18)
    path = np.column_stack([length / 2 * sin(angle), 0 * angle, 0 * angle])
    radii = width * power(np.maximum(cos(angle), 0.02), 0.6)
    loaf = tube(path, radii, 20, flatten=h / 2 / width)
    return [Part(loaf, position=(0, 0, h / 2))]


def sponge(draw: Draw) -> Shape:
    x, y = draw(0.048, 0.062), draw(0.030, 0.040)
    z = draw(0.013, 0.019)
    parts = [
        Part("box", (x, y, z * 0.75), (0, 0, z * 1.25)),
        Part("box", (x, y, z * 0.25), (0, 0, z * 0.25), role="abrasive"),
    ]
    return Shape(parts, [Part("box", (x, y, z), (0, 0, z))], shine=0.0)


def candle(draw: Draw) -> Shape:
    r, h = draw(0.020, 0.030), draw(0.055, 0.120)
    body = lathe(
        [(0, 0), (r, 0), (r, h), (r * 0.85, h + 0.002), (r * 0.7, h - 0.004), (0, h - 0.005)]
    )
    wick = Part("capsule", (0.0022, 0.009, 0), (0, 0, h + 0.004), role="wick")
    return Shape([Part(body), wick], [Part("cylinder", (r, h / 2, 0), (0, 0, h / 2))], shine=0.2)


def ball(draw: Draw) -> Shape:
    r = draw(0.028, 0.045)
    parts = [Part("ellipsoid", (r, r, r), (0, 0, r))]
    return Shape(parts, [Part("sphere", (r, 0, 0), (0, 0, r))], shine=0.4)


def car(draw: Draw) -> Shape:
    """A toy car, seen from its side in the x-z plane and as wide along y."""
    length, width = draw(0.095, 0.130), draw(0.024, 0.030)
    wheel, sill = draw(0.0125, 0.0165), 0.007
    deck, roof = sill + draw(0.019, 0.024), draw(0.015, 0.021)
    start, stop = -length * draw(0.26, 0.46), length * draw(0.08, 0.22)
    slope = min(roof * draw(0.35, 0.9), 0.6 * (stop - start))  # held-out cabins are short
    top = deck + roof
    half = length / 2
    body = prism([
        (-half, sill), (half, sill), (half, sill + 0.55 * (deck - sill)),
        (half * 0.88, deck - 0.002), (stop, deck), (-half * 0.96, deck), (-half, deck - 0.004),
    ], 2 * width)  # fmt: skip
    glass = prism(
        [(start, deck), (stop, deck), (stop - slope, top), (start + slope * 0.4, top)], 1.76 * width
    )
    middle, reach = (start + stop - 0.6 * slope) / 2, (stop - start - 1.4 * slope) / 2
    parts = [
        Part(body, euler=ALONG_Y),
        Part(glass, euler=ALONG_Y, role="screen"),
        Part("box", (reach, 0.86 * width, 0.0022), (middle, 0, top)),
    ]
    for x in (-0.31 * length, 0.31 * length):
        tyre, hub = (wheel, 1.06 * width, 0), (wheel * 0.5, 1.09 * width, 0)
        parts.append(Part("cylinder", tyre, (x, 0, wheel), ALONG_Y, "dark"))
        parts.append(Part("cylinder", hub, (x, 0, wheel), ALONG_Y, "steel"))
    for y in (-0.62 * width, 0.62 * width):
        lamp = (0.002, 0.005, 0.004)
        parts.append(Part("ellipsoid", lamp, (half, y, sill + 0.4 * (deck - sill)), role="lens"))
    return Shape(
        parts,
        [
            Part("box", (half, width, deck / 2), (0, 0, deck / 2)),
            Part("box", (reach, 0.86 * width, roof / 2), (middle, 0, deck + roof / 2)),
        ],
        shine=0.7,
    )


def clock(draw: Draw) -> Shape:
    """An alarm clock with two bells; its face looks along -y."""
    r, deep = draw(0.036, 0.046), draw(0.017, 0.023)
    bell, foot = r * draw(0.36, 0.48), draw(0.010, 0.016)
    z = r + foot
    front = -deep - 0.0005
    parts = [
        Part("cylinder", (r, deep, 0), (0, 0, z), ALONG_Y),
        Part("cylinder", (r * 0.78, 0.001, 0), (0, front, z), ALONG_Y, "paper"),
        Part("cylinder", (r * 0.08, 0.002, 0), (0, front - 0.002, z), ALONG_Y, "dark"),
        Part("cylinder", (0.003, 0.008, 0), (0, 0, z + r + 0.007), role="steel"),
        Part("ellipsoid", (0.011, 0.004, 0.004), (0, 0, z + r + 0.015), role="dark"),
    ]
    for reach, wide, turn in ((0.60, 0.0020, draw(0, 6.28)), (0.42, 0.0030, draw(0, 6.28))):
        x, up = reach * r / 2 * sin(turn), reach * r / 2 * cos(turn)
        hand = (wide, 0.0008, reach * r / 2)
        parts.append(Part("box", hand, (x, front - 0.001, z + up), (0, turn, 0), "dark"))
    for x in (-1, 1):
        dome = (bell, min(bell, 0.97 * deep), bell * 0.72)
        parts.append(Part("ellipsoid", dome, (0.62 * r * x, 0, z + 0.95 * r), (0, 0.6 * x, 0)))
        leg = (0.66 * r * x, 0, 0.006 + foot * 0.5)
        parts.append(Part("capsule", (0.006, foot * 0.6, 0), leg, (0, -0.6 * x, 0), "dark"))
    height = z + r + 0.6 * bell
    solid = Part("box", (r * 0.9, deep, height / 2), (0, 0, height / 2))
    return Shape(parts, [solid], lie=(-np.pi / 2, 0, 0), shine=0.6)
