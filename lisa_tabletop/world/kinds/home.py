"""What else lies about in a home."""

from __future__ import annotations

import numpy as np

from lisa_tabletop.world.kinds.shape import Collider, Draw, Part, Shape
from lisa_tabletop.world.meshes import lathe, prism


def sponge(draw: Draw) -> Shape:
    x, y = draw(0.048, 0.062), draw(0.030, 0.040)
    z = draw(0.013, 0.019)
    parts = [
        Part("box", "main", (x, y, z * 0.75), (0, 0, z * 1.25)),
        Part("box", "abrasive", (x, y, z * 0.25), (0, 0, z * 0.25)),
    ]
    return Shape(parts, [Collider("box", (x, y, z), (0, 0, z))], shine=0.0)


def candle(draw: Draw) -> Shape:
    r, h = draw(0.020, 0.030), draw(0.055, 0.120)
    body = lathe(
        [(0, 0), (r, 0), (r, h), (r * 0.85, h + 0.002), (r * 0.7, h - 0.004), (0, h - 0.005)]
    )
    wick = Part("capsule", "wick", (0.0022, 0.009, 0), (0, 0, h + 0.004))
    return Shape(
        [Part(body), wick], [Collider("cylinder", (r, h / 2, 0), (0, 0, h / 2))], shine=0.2
    )


def ball(draw: Draw) -> Shape:
    r = draw(0.028, 0.045)
    return Shape(
        [Part("ellipsoid", size=(r, r, r), position=(0, 0, r))],
        [Collider("sphere", (r, 0, 0), (0, 0, r))],
        shine=0.4,
    )


def car(draw: Draw) -> Shape:
    """A toy car, seen from its side in the x-z plane and as wide along y."""
    length, width = draw(0.095, 0.130), draw(0.024, 0.030)
    wheel, sill = draw(0.0125, 0.0165), 0.007
    deck, roof = sill + draw(0.019, 0.024), draw(0.015, 0.021)
    start, stop = -length * draw(0.26, 0.46), length * draw(0.08, 0.22)
    slope = min(roof * draw(0.35, 0.9), 0.6 * (stop - start))  # held-out cabins are short
    top = deck + roof
    side = {"euler": (np.pi / 2, 0, 0)}
    half = length / 2
    body = prism(
        [
            (-half, sill),
            (half, sill),
            (half, sill + 0.55 * (deck - sill)),
            (half * 0.88, deck - 0.002),
            (stop, deck),
            (-half * 0.96, deck),
            (-half, deck - 0.004),
        ],
        2 * width,
    )
    glass = prism(
        [(start, deck), (stop, deck), (stop - slope, top), (start + slope * 0.4, top)],
        1.76 * width,
    )
    middle, reach = (start + stop - 0.6 * slope) / 2, (stop - start - 1.4 * slope) / 2
    parts = [
        Part(body, **side),
        Part(glass, "screen", **side),
        Part("box", size=(reach, 0.86 * width, 0.0022), position=(middle, 0, top)),
    ]
    for x in (-0.31 * length, 0.31 * length):
        tyre, hub = (wheel, 1.06 * width, 0), (wheel * 0.5, 1.09 * width, 0)
        parts.append(Part("cylinder", "dark", tyre, (x, 0, wheel), **side))
        parts.append(Part("cylinder", "steel", hub, (x, 0, wheel), **side))
    for y in (-0.62 * width, 0.62 * width):
        lamp = (0.002, 0.005, 0.004)
        parts.append(Part("ellipsoid", "lens", lamp, (half, y, sill + 0.4 * (deck - sill))))
    return Shape(
        parts,
        [
            Collider("box", (half, width, deck / 2), (0, 0, deck / 2)),
            Collider("box", (reach, 0.86 * width, roof / 2), (middle, 0, deck + roof / 2)),
        ],
        shine=0.7,
    )


def clock(draw: Draw) -> Shape:
    """An alarm clock with two bells; its face looks along -y."""
    r, deep = draw(0.036, 0.046), draw(0.017, 0.023)
    bell, foot = r * draw(0.36, 0.48), draw(0.010, 0.016)
    z = r + foot
    side = {"euler": (np.pi / 2, 0, 0)}
    front = -deep - 0.0005
    parts = [
        Part("cylinder", "main", (r, deep, 0), (0, 0, z), **side),
        Part("cylinder", "paper", (r * 0.78, 0.001, 0), (0, front, z), **side),
        Part("cylinder", "dark", (r * 0.08, 0.002, 0), (0, front - 0.002, z), **side),
        Part("cylinder", "steel", (0.003, 0.008, 0), (0, 0, z + r + 0.007)),
        Part("ellipsoid", "dark", (0.011, 0.004, 0.004), (0, 0, z + r + 0.015)),
    ]
    for reach, wide, turn in ((0.60, 0.0020, draw(0, 6.28)), (0.42, 0.0030, draw(0, 6.28))):
        x, up = reach * r / 2 * np.sin(turn), reach * r / 2 * np.cos(turn)
        hand = (wide, 0.0008, reach * r / 2)
        parts.append(Part("box", "dark", hand, (x, front - 0.001, z + up), (0, turn, 0)))
    for x in (-1, 1):
        dome = (bell, min(bell, 0.97 * deep), bell * 0.72)
        parts.append(
            Part("ellipsoid", "main", dome, (0.62 * r * x, 0, z + 0.95 * r), (0, 0.6 * x, 0))
        )
        leg = (0.66 * r * x, 0, 0.006 + foot * 0.5)
        parts.append(Part("capsule", "dark", (0.006, foot * 0.6, 0), leg, (0, -0.6 * x, 0)))
    height = z + r + 0.6 * bell
    return Shape(
        parts,
        [Collider("box", (r * 0.9, deep, height / 2), (0, 0, height / 2))],
        lie=(-np.pi / 2, 0, 0),
        shine=0.6,
    )
