"""Hand tools."""

from __future__ import annotations

import numpy as np

from lisa_tabletop.world.kinds.shape import Collider, Draw, Part, Shape
from lisa_tabletop.world.meshes import arc, lathe, prism, tube


def hammer(draw: Draw) -> Shape:
    length, head = draw(0.20, 0.26), draw(0.038, 0.050)
    thick = draw(0.012, 0.016)
    parts = [
        Part("capsule", "main", (0.010, length / 2 - 0.01, 0), (0, 0, thick), (0, np.pi / 2, 0)),
        Part("box", "steel", (thick, head, thick), (length / 2, 0, thick)),
        Part(
            "cylinder",
            "steel",
            (thick * 1.25, 0.010, 0),
            (length / 2, head, thick * 1.25),
            (np.pi / 2, 0, 0),
        ),
    ]
    return Shape(
        parts,
        [
            Collider("box", (length / 2, 0.010, 0.010), (0, 0, thick)),
            Collider("box", (thick, head, thick), (length / 2, 0, thick)),
        ],
        shine=0.6,
    )


def screwdriver(draw: Draw) -> Shape:
    handle, shaft = draw(0.085, 0.105), draw(0.08, 0.12)
    thick = draw(0.014, 0.018)
    grip = lathe(
        [
            (0, 0),
            (thick * 0.8, 0),
            (thick, 0.01),
            (thick, handle * 0.7),
            (thick * 0.65, handle * 0.85),
            (thick * 0.8, handle),
            (0, handle),
        ],
        12,
    )
    parts = [
        Part(grip, position=(-handle, 0, thick), euler=(0, np.pi / 2, 0)),
        Part("cylinder", "steel", (0.0045, shaft / 2, 0), (shaft / 2, 0, thick), (0, np.pi / 2, 0)),
        Part("box", "steel", (0.010, 0.007, 0.003), (shaft, 0, thick)),
    ]
    middle = (shaft - handle) / 2
    return Shape(
        parts,
        [Collider("box", ((shaft + handle) / 2, thick * 0.8, thick), (middle, 0, thick))],
        shine=0.6,
        fine_colliders=[
            Collider("box", (handle / 2, thick * 0.9, thick), (-handle / 2, 0, thick)),
            Collider("box", (shaft / 2 + 0.005, 0.005, thick), (shaft / 2 + 0.005, 0, thick)),
        ],
    )


def wrench(draw: Draw) -> Shape:
    """Open jaws at one end and, at the other, a ring or smaller jaws."""
    length, jaw = draw(0.16, 0.21), draw(0.020, 0.026)
    stick, thick, ring = draw(0.0075, 0.0105), 0.010, jaw * draw(0.72, 0.85)
    lean = draw(0.15, 0.35)
    front, back = length / 2 - jaw, -length / 2 + ring
    parts = [
        Part(
            "box",
            size=((front - back) / 2, stick, thick * 0.35),
            position=((front + back) / 2, 0, thick / 2),
        ),
        *_jaws(jaw, thick, front, lean),
    ]
    if draw.pick(True, False):
        circle = arc(ring * 0.72, 0, 2 * np.pi, 22)
        eye = tube(circle, np.full(22, ring * 0.30), flatten=thick / 2 / (ring * 0.30))
        parts.append(Part(eye, position=(back, 0, thick / 2)))
    else:
        parts += _jaws(ring, thick, back, np.pi + lean)
    return Shape(
        parts,
        [Collider("box", (length / 2, jaw * 0.7, thick / 2), (0, 0, thick / 2))],
        shine=0.8,
        fine_colliders=[
            Collider("box", ((front - back) / 2, stick, thick / 2), (0, 0, thick / 2)),
            Collider("box", (jaw, jaw * 0.9, thick / 2), (front, 0, thick / 2)),
            Collider("box", (ring, ring * 0.9, thick / 2), (back, 0, thick / 2)),
        ],
    )


def _jaws(size: float, thick: float, x: float, lean: float) -> list[Part]:
    """A mouth of half width `size`, open towards `lean` radians from the x axis."""
    outline = size * np.array([(-0.6, 0.30), (1.05, 0.42), (1.05, 0.72), (0.35, 1.0), (-0.5, 0.8)])
    throat = size * np.array([(-1.1, -0.4), (-0.5, -0.8), (0.05, -0.6), (0.05, 0.6), (-0.5, 0.8),
                              (-1.1, 0.4)])  # fmt: skip
    mirrored = outline[::-1] * (1, -1)
    return [
        Part(prism(list(map(tuple, piece)), thick), position=(x, 0, thick / 2), euler=(0, 0, lean))
        for piece in (outline, mirrored, throat)
    ]


def flashlight(draw: Draw) -> Shape:
    length, r = draw(0.13, 0.18), draw(0.014, 0.018)
    head, flare = r * draw(1.45, 1.75), length * draw(0.24, 0.32)
    barrel = length - flare
    body = lathe(
        [
            (0, 0),
            (r, 0),
            (r, barrel * 0.85),
            (r * 1.1, barrel),
            (head, barrel + flare * 0.45),
            (head, length),
            (head * 0.82, length),
            (head * 0.80, length - 0.003),
            (0, length - 0.003),
        ]
    )
    along = {"euler": (0, np.pi / 2, 0)}
    rim = Part("cylinder", "dark", (head * 1.04, 0.005, 0), (length / 2 - 0.006, 0, head), **along)
    lens = Part("cylinder", "lens", (head * 0.84, 0.001, 0), (length / 2, 0, head), **along)
    rings = [
        Part(
            "cylinder",
            "dark",
            (r * 1.06, 0.003, 0),
            (-length / 2 + at * barrel, 0, head),
            **along,
        )
        for at in (0.06, 0.20, 0.34)
    ]
    button = Part("box", "dark", (0.012, 0.006, 0.004), (barrel * 0.7 - length / 2, 0, head + r))
    return Shape(
        [Part(body, position=(-length / 2, 0, head), **along), rim, lens, button, *rings],
        [Collider("box", (length / 2, head * 0.9, head), (0, 0, head))],
        lie=(0, -np.pi / 2, 0),
        shine=0.6,
        fine_colliders=[
            Collider("box", (flare / 2, head * 0.9, head), (length / 2 - flare / 2, 0, head)),
            Collider("box", (barrel / 2, r * 0.9, head), (-flare / 2, 0, head)),
        ],
    )


def paintbrush(draw: Draw) -> Shape:
    handle, width = draw(0.10, 0.135), draw(0.019, 0.030)
    hair, band = draw(0.042, 0.060), draw(0.020, 0.028)
    belly = draw(0.012, 0.016)
    thick = 0.009
    along = np.array([0.0, 0.04, 0.15, 0.35, 0.55, 0.75, 0.92, 1.0])
    radii = np.array([0.35, 0.62, 0.85, 1.0, 0.78, 0.62, 0.0, 0.0]) * belly
    radii[6:] = 0.7 * width
    path = np.column_stack([handle * (along - 1), 0 * along, 0 * along])
    grip = tube(path, radii, flatten=0.42)
    tuft = prism(
        [
            (0, -width * 0.95),
            (hair, -width * 1.15),
            (hair * 1.06, 0),
            (hair, width * 1.15),
            (0, width * 0.95),
        ],
        1.5 * thick,
    )
    return Shape(
        [
            Part(grip, position=(0, 0, thick)),
            Part("box", "steel", (band / 2, width, thick), (band / 2, 0, thick)),
            Part(tuft, "bristle", position=(band, 0, thick)),
        ],
        [
            Collider(
                "box",
                ((handle + band + hair) / 2, width * 0.7, thick * 0.9),
                ((band + hair - handle) / 2, 0, thick * 0.9),
            )
        ],
        fine_colliders=[
            Collider("box", (handle / 2, belly, thick * 0.9), (-handle / 2, 0, thick * 0.9)),
            Collider(
                "box", ((band + hair) / 2, width, thick * 0.9), ((band + hair) / 2, 0, thick * 0.9)
            ),
        ],
    )
