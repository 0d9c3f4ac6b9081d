"""What lies on a desk."""

from __future__ import annotations

import numpy as np

from lisa_tabletop.world.kinds.shape import Collider, Draw, Part, Shape
from lisa_tabletop.world.meshes import arc, lathe, prism, tube


def scissors(draw: Draw) -> Shape:
    blade, ring = draw(0.080, 0.105), draw(0.019, 0.025)
    open_angle = draw(0.15, 0.38)
    edge = prism([(0, -0.008), (blade, -0.001), (blade, 0.002), (0, 0.008)], 0.004)
    loop = tube(arc(ring, 0, 2 * np.pi, 20), np.full(20, 0.0055))
    parts = []
    for side in (-1, 1):
        angle = side * open_angle / 2
        reach = 0.052 + ring
        parts += [
            Part(edge, "steel", position=(0, 0, 0.008 + 0.002 * side), euler=(0, 0, -angle)),
            Part(
                "box",
                "main",
                (0.030, 0.006, 0.005),
                (-0.026, 0.006 * side, 0.008),
                (0, 0, -side * 0.30),
            ),
            Part(loop, "main", position=(-reach, side * (ring + 0.006), 0.008)),
        ]
    pieces = []
    for side in (-1, 1):
        angle, ear = -side * open_angle / 2, (ring + 0.0055) * 0.9
        cut = (blade / 2 * np.cos(angle), blade / 2 * np.sin(angle), 0.006)
        pieces += [
            Collider("box", (blade / 2, 0.005, 0.006), cut, (0, 0, angle)),
            Collider(
                "box", (0.030, 0.006, 0.0065), (-0.026, 0.006 * side, 0.0065), (0, 0, -side * 0.30)
            ),
            Collider("cylinder", (ear, 0.0065, 0), (-0.052 - ring, side * (ring + 0.006), 0.0065)),
        ]
    return Shape(
        parts,
        [Collider("box", ((blade + 0.09) / 2, 0.030, 0.008), ((blade - 0.09) / 2, 0, 0.008))],
        shine=0.7,
        fine_colliders=pieces,
    )


def pencil(draw: Draw) -> Shape:
    length, thick = draw(0.13, 0.18), draw(0.0065, 0.0085)
    turned = {"euler": (0, np.pi / 2, 0)}
    tip = lathe([(0, 0), (thick, 0), (0.0012, 0.022), (0, 0.026)], 8)
    parts = [
        Part("cylinder", "main", (thick, length / 2, 0), (0, 0, thick), **turned),
        Part(tip, "wood", position=(length / 2, 0, thick), **turned),
        Part("cylinder", "rubber", (thick, 0.009, 0), (-length / 2 - 0.009, 0, thick), **turned),
    ]
    return Shape(parts, [Collider("box", (length / 2 + 0.015, thick * 0.9, thick), (0, 0, thick))])


def book(draw: Draw) -> Shape:
    x, y = draw(0.055, 0.075), draw(0.080, 0.105)
    z = draw(0.011, 0.020)
    parts = [
        Part("box", "main", (x, y, 0.002), (0, 0, 0.002)),
        Part("box", "main", (x, y, 0.002), (0, 0, 2 * z - 0.002)),
        Part("box", "main", (0.002, y, z), (-x, 0, z)),
        Part("box", "paper", (x - 0.003, y - 0.003, z - 0.004), (0, 0, z)),
        Part("box", "paper", (x * 0.6, y * 0.10, 0.0008), (0, y * 0.45, 2 * z)),
    ]
    return Shape(parts, [Collider("box", (x, y, z), (0, 0, z))])


def tape(draw: Draw) -> Shape:
    outer, h = draw(0.036, 0.047), draw(0.020, 0.034)
    inner = outer * draw(0.58, 0.70)
    core = inner * 0.9
    roll = lathe([(inner, 0), (outer, 0), (outer, h), (inner, h), (inner, 0)])
    lining = lathe(
        [(core, 0.001), (inner, 0.001), (inner, h - 0.001), (core, h - 0.001), (core, 0.001)]
    )
    return Shape(
        [Part(roll), Part(lining, "paper")],
        [Collider("cylinder", (outer, h / 2, 0), (0, 0, h / 2))],
    )


def phone(draw: Draw) -> Shape:
    x, y = draw(0.034, 0.040), draw(0.068, 0.080)
    z = 0.0055
    parts = [
        Part("box", "main", (x, y, z), (0, 0, z)),
        Part("box", "screen", (x * 0.88, y * 0.84, 0.0008), (0, 0, 2 * z)),
        Part("cylinder", "dark", (0.0045, 0.0008, 0), (0, -y * 0.92, 2 * z)),
    ]
    return Shape(parts, [Collider("box", (x, y, z), (0, 0, z))], shine=0.8)


def stapler(draw: Draw) -> Shape:
    """Its side lies in the x-z plane; the jaws open towards +x."""
    length, width = draw(0.115, 0.150), draw(0.014, 0.018)
    tall, gape = draw(0.018, 0.024), draw(0.14, 0.24)
    back, hinge = -length / 2, 0.013
    reach = length * draw(0.82, 0.90)
    arm = prism(
        [
            (0, 0),
            (reach, 0),
            (reach, tall * 0.45),
            (reach * 0.92, tall * 0.75),
            (reach * 0.40, tall),
            (reach * 0.10, tall * 0.8),
            (0, tall * 0.4),
        ],
        2 * width,
    )
    middle, lift = length / 2 * np.cos(gape), length / 2 * np.sin(gape)
    magazine = (length / 2, width * 0.7, 0.0055)
    parts = [
        Part(arm, position=(back, 0, hinge), euler=(np.pi / 2, 0, gape)),
        Part("box", "steel", magazine, (back + middle, 0, hinge + lift - 0.003), (0, -gape, 0)),
        Part("box", "dark", (length / 2, width * 1.2, 0.004), (0, 0, 0.004)),
        Part("box", "steel", (0.010, width * 0.8, 0.0012), (length / 2 - 0.014, 0, 0.0082)),
        Part("box", "dark", (0.012, width * 1.1, 0.010), (back + 0.012, 0, 0.010)),
    ]
    top = hinge + lift + tall * 0.7
    return Shape(
        parts,
        [Collider("box", (length / 2, width * 1.2, top / 2), (0, 0, top / 2))],
        shine=0.6,
    )
