"""Hand tools and what lies on a desk."""

from __future__ import annotations

import numpy as np

from lisa_tabletop.world.exact import cos, sin
from lisa_tabletop.world.parts import ALONG_X, ALONG_Y, Draw, Part, Shape, arc, lathe, prism, tube


def hammer(draw: Draw) -> Shape:
    length, head = draw(0.20, 0.26), draw(0.038, 0.050)
    thick = draw(0.012, 0.016)
    face = thick * 1.25
    parts = [
        Part("capsule", (0.01, length / 2 - 0.01, 0), (0, 0, thick), ALONG_X),
        Part("box", (thick, head, thick), (length / 2, 0, thick), role="steel"),
        Part("cylinder", (face, 0.01, 0), (length / 2, head, face), ALONG_Y, "steel"),
    ]
    stick = Part("box", (length / 2, 0.01, 0.01), (0, 0, thick))
    return Shape(parts, [stick, parts[1]], shine=0.6)


def screwdriver(draw: Draw) -> Shape:
    handle, shaft = draw(0.085, 0.105), draw(0.08, 0.12)
    thick = draw(0.014, 0.018)
    grip = lathe([
        (0, 0), (thick * 0.8, 0), (thick, 0.01), (thick, handle * 0.7),
        (thick * 0.65, handle * 0.85), (thick * 0.8, handle), (0, handle),
    ], 12)  # fmt: skip
    parts = [
        Part(grip, position=(-handle, 0, thick), euler=ALONG_X),
        Part("cylinder", (0.0045, shaft / 2, 0), (shaft / 2, 0, thick), ALONG_X, "steel"),
        Part("box", (0.01, 0.007, 0.003), (shaft, 0, thick), role="steel"),
    ]
    middle = (shaft - handle) / 2
    return Shape(
        parts,
        [Part("box", ((shaft + handle) / 2, thick * 0.8, thick), (middle, 0, thick))],
        shine=0.6,
        fine_colliders=[
            Part("box", (handle / 2, thick * 0.9, thick), (-handle / 2, 0, thick)),
            Part("box", (shaft / 2 + 0.005, 0.005, thick), (shaft / 2 + 0.005, 0, thick)),
        ],
    )


def wrench(draw: Draw) -> Shape:
    """Open jaws at one end and, at the other, a ring or smaller jaws."""
    length, jaw = draw(0.16, 0.21), draw(0.020, 0.026)
    stick, thick, ring = draw(0.0075, 0.0105), 0.010, jaw * draw(0.72, 0.85)
    lean = draw(0.15, 0.35)
    front, back = length / 2 - jaw, -length / 2 + ring
    parts = [
        Part("box", ((front - back) / 2, stick, thick * 0.35), ((front + back) / 2, 0, thick / 2)),
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
        [Part("box", (length / 2, jaw * 0.7, thick / 2), (0, 0, thick / 2))],
        shine=0.8,
        fine_colliders=[
            Part("box", ((front - back) / 2, stick, thick / 2), (0, 0, thick / 2)),
            Part("box", (jaw, jaw * 0.9, thick / 2), (front, 0, thick / 2)),
            Part("box", (ring, ring * 0.9, thick / 2), (back, 0, thick / 2)),
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
    body = lathe([
        (0, 0), (r, 0), (r, barrel * 0.85), (r * 1.1, barrel), (head, barrel + flare * 0.45),
        (head, length), (head * 0.82, length), (head * 0.8, length - 0.003),
        (0, length - 0.003),
    ])  # fmt: skip
    rim = Part("cylinder", (head * 1.04, 0.005, 0), (length / 2 - 0.006, 0, head), ALONG_X, "dark")
    lens = Part("cylinder", (head * 0.84, 0.001, 0), (length / 2, 0, head), ALONG_X, "lens")
    on_barrel = -length / 2 + np.array([0.06, 0.20, 0.34, 0.7]) * barrel
    rings = [
        Part("cylinder", (r * 1.06, 0.003, 0), (x, 0, head), ALONG_X, "dark") for x in on_barrel[:3]
    ]
    button = Part("box", (0.012, 0.006, 0.004), (on_barrel[3], 0, head + r), role="dark")
    return Shape(
        [Part(body, position=(-length / 2, 0, head), euler=ALONG_X), rim, lens, button, *rings],
        [Part("box", (length / 2, head * 0.9, head), (0, 0, head))],
        lie=(0, -np.pi / 2, 0),
        shine=0.6,
        fine_colliders=[
            Part("box", (flare / 2, head * 0.9, head), (length / 2 - flare / 2, 0, head)),
            Part("box", (barrel / 2, r * 0.9, head), (-flare / 2, 0, head)),
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
    tuft = prism([
        (0, -width * 0.95), (hair, -width * 1.15), (hair * 1.06, 0), (hair, width * 1.15),
        (0, width * 0.95),
    ], 1.5 * thick)  # fmt: skip
    head, flat = band + hair, thick * 0.9
    return Shape(
        [
            Part(grip, position=(0, 0, thick)),
            Part("box", (band / 2, width, thick), (band / 2, 0, thick), role="steel"),
            Part(tuft, position=(band, 0, thick), role="bristle"),
        ],
        [Part("box", ((handle + head) / 2, width * 0.7, flat), ((head - handle) / 2, 0, flat))],
        fine_colliders=[
            Part("box", (handle / 2, belly, flat), (-handle / 2, 0, flat)),
            Part("box", (head / 2, width, flat), (head / 2, 0, flat)),
        ],
    )


def scissors(draw: Draw) -> Shape:
    blade, ring = draw(0.080, 0.105), draw(0.019, 0.025)
    open_angle = draw(0.15, 0.38)
    edge = prism([(0, -0.008), (blade, -0.001), (blade, 0.002), (0, 0.008)], 0.004)
    loop = tube(arc(ring, 0, 2 * np.pi, 20), np.full(20, 0.0055))
    ear = (ring + 0.0055) * 0.9
    parts, pieces = [], []
    for side in (-1, 1):
        angle, lean, y = -side * open_angle / 2, (0, 0, -side * 0.3), side * (ring + 0.006)
        parts += [
            Part(edge, position=(0, 0, 0.008 + 0.002 * side), euler=(0, 0, angle), role="steel"),
            Part("box", (0.03, 0.006, 0.005), (-0.026, 0.006 * side, 0.008), lean),
            Part(loop, position=(-0.052 - ring, y, 0.008)),
        ]
        cut = (blade / 2 * cos(angle), blade / 2 * sin(angle), 0.006)
        pieces += [
            Part("box", (blade / 2, 0.005, 0.006), cut, (0, 0, angle)),
            Part("box", (0.03, 0.006, 0.0065), (-0.026, 0.006 * side, 0.0065), lean),
            Part("cylinder", (ear, 0.0065, 0), (-0.052 - ring, y, 0.0065)),
        ]
    solid = Part("box", ((blade + 0.09) / 2, 0.03, 0.008), ((blade - 0.09) / 2, 0, 0.008))
    return Shape(parts, [solid], shine=0.7, fine_colliders=pieces)


def pencil(draw: Draw) -> Shape:
    length, thick = draw(0.13, 0.18), draw(0.0065, 0.0085)
    tip = lathe([(0, 0), (thick, 0), (0.0012, 0.022), (0, 0.026)], 8)
    parts = [
        Part("cylinder", (thick, length / 2, 0), (0, 0, thick), ALONG_X),
        Part(tip, position=(length / 2, 0, thick), euler=ALONG_X, role="wood"),
        Part("cylinder", (thick, 0.009, 0), (-length / 2 - 0.009, 0, thick), ALONG_X, "rubber"),
    ]
    return Shape(parts, [Part("box", (length / 2 + 0.015, thick * 0.9, thick), (0, 0, thick))])


def book(draw: Draw) -> Shape:
    x, y = draw(0.055, 0.075), draw(0.080, 0.105)
    z = draw(0.011, 0.020)
    parts = [
        Part("box", (x, y, 0.002), (0, 0, 0.002)),
        Part("box", (x, y, 0.002), (0, 0, 2 * z - 0.002)),
        Part("box", (0.002, y, z), (-x, 0, z)),
        Part("box", (x - 0.003, y - 0.003, z - 0.004), (0, 0, z), role="paper"),
        Part("box", (x * 0.6, y * 0.1, 0.0008), (0, y * 0.45, 2 * z), role="paper"),
    ]
    return Shape(parts, [Part("box", (x, y, z), (0, 0, z))])


def tape(draw: Draw) -> Shape:
    outer, h = draw(0.036, 0.047), draw(0.020, 0.034)
    inner = outer * draw(0.58, 0.70)
    core = inner * 0.9
    roll = lathe([(inner, 0), (outer, 0), (outer, h), (inner, h), (inner, 0)])
    low, high = 0.001, h - 0.001
    lining = lathe([(core, low), (inner, low), (inner, high), (core, high), (core, low)])
    solid = Part("cylinder", (outer, h / 2, 0), (0, 0, h / 2))
    return Shape([Part(roll), Part(lining, role="paper")], [solid])


def phone(draw: Draw) -> Shape:
    x, y = draw(0.034, 0.040), draw(0.068, 0.080)
    z = 0.0055
    parts = [
        Part("box", (x, y, z), (0, 0, z)),
        Part("box", (x * 0.88, y * 0.84, 0.0008), (0, 0, 2 * z), role="screen"),
        Part("cylinder", (0.0045, 0.0008, 0), (0, -y * 0.92, 2 * z), role="dark"),
    ]
    return Shape(parts, [Part("box", (x, y, z), (0, 0, z))], shine=0.8)


def stapler(draw: Draw) -> Shape:
    """Its side lies in the x-z plane; the jaws open towards +x."""
    length, width = draw(0.115, 0.150), draw(0.014, 0.018)
    tall, gape = draw(0.018, 0.024), draw(0.14, 0.24)
    back, hinge = -length / 2, 0.013
    reach = length * draw(0.82, 0.90)
    arm = prism([
        (0, 0), (reach, 0), (reach, tall * 0.45), (reach * 0.92, tall * 0.75),
        (reach * 0.4, tall), (reach * 0.1, tall * 0.8), (0, tall * 0.4),
    ], 2 * width)  # fmt: skip
    middle, lift = length / 2 * cos(gape), length / 2 * sin(gape)
    magazine = (length / 2, width * 0.7, 0.0055)
    parts = [
        Part(arm, position=(back, 0, hinge), euler=(np.pi / 2, 0, gape)),
        Part("box", magazine, (back + middle, 0, hinge + lift - 0.003), (0, -gape, 0), "steel"),
        Part("box", (length / 2, width * 1.2, 0.004), (0, 0, 0.004), role="dark"),
        Part("box", (0.01, width * 0.8, 0.0012), (length / 2 - 0.014, 0, 0.0082), role="steel"),
        Part("box", (0.012, width * 1.1, 0.01), (back + 0.012, 0, 0.01), role="dark"),
    ]
    top = hinge + lift + tall * 0.7
    solid = Part("box", (length / 2, width * 1.2, top / 2), (0, 0, top / 2))
    return Shape(parts, [solid], shine=0.6)
