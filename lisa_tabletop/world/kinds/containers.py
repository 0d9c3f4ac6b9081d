"""Things that hold other things: their colliders leave the hollow free."""

from __future__ import annotations

import numpy as np

from lisa_tabletop.world.kinds.shape import Collider, Draw, Part, Shape, Vector
from lisa_tabletop.world.meshes import arc, lathe, tube

STAVES = 8  # flat pieces that stand for a round wall


def hollow(foot: float, rim: float, height: float, floor: float) -> list[Collider]:
    """A round vessel on a foot of one radius, open at the top with another, all in metres.

    The wall is a ring of staves. They end above the table, so that only the foot touches it.
    """
    half = 0.003  # of the wall's thickness
    lean = np.arctan2(rim - foot, height - floor)
    length = np.hypot(rim - foot, height - floor) / 2
    radius = (foot + rim) / 2 - half
    width = max(foot, rim) * np.tan(np.pi / STAVES)
    colliders = [Collider("cylinder", (foot, floor / 2, 0), (0, 0, floor / 2))]
    for angle in np.arange(STAVES) * 2 * np.pi / STAVES:
        place = (radius * np.cos(angle), radius * np.sin(angle), (floor + height) / 2)
        colliders.append(Collider("box", (half, width, length), place, _leaning(angle, lean)))
    return colliders


def _leaning(azimuth: float, lean: float) -> Vector:
    """Euler angles (x, then the turned y and z) of a box that leans outwards at an azimuth."""
    # The matrix is Rz(azimuth) Ry(lean), read off as Rx Ry Rz.
    alpha = np.arctan2(-np.sin(azimuth) * np.sin(lean), np.cos(lean))
    beta = np.arcsin(np.cos(azimuth) * np.sin(lean))
    gamma = np.arctan2(np.sin(azimuth), np.cos(azimuth) * np.cos(lean))
    return float(alpha), float(beta), float(gamma)


def _walls(x: float, y: float, z: float, wall: float, foot: float) -> list[tuple[Vector, Vector]]:
    """Half sizes and places of four upright walls around a floor of half sizes x, y."""
    middle, half = (z + foot) / 2, (z - foot) / 2
    return [
        *(((wall, y, half), (side * (x - wall), 0.0, middle)) for side in (-1, 1)),
        *(((x, wall, half), (0.0, side * (y - wall), middle)) for side in (-1, 1)),
    ]


def box(draw: Draw) -> Shape:
    """An open carton: flaps folded outwards, or none, and a paper label on two sides."""
    x, y, z = draw(0.066, 0.090), draw(0.054, 0.066), draw(0.045, 0.080)
    wall, floor = 0.0025, 0.005
    pieces = [((x, y, floor / 2), (0.0, 0.0, floor / 2)), *_walls(x, y, z, wall, floor)]
    parts = [Part("box", "main", size, place) for size, place in pieces]
    flap, hang, flaps = draw(0.016, 0.026), draw(0.15, 0.75), draw.pick(True, True, False)
    if flaps:
        out, down = flap * np.cos(hang), flap * np.sin(hang)
        for side in (-1, 1):
            at = (0.0, side * (y + out), z - down)
            parts.append(Part("box", "main", (x, flap, 0.0015), at, (-side * hang, 0, 0)))
            at = (side * (x + out), 0.0, z - down)
            parts.append(Part("box", "main", (flap, y, 0.0015), at, (0, side * hang, 0)))
    label = (x * draw(0.25, 0.5), 0.0006, z * draw(0.16, 0.26))
    for side in (-1, 1):
        parts.append(Part("box", "paper", label, (0.2 * x * side, side * y, z * 0.45)))
    colliders = [Collider("box", size, place) for size, place in pieces]
    if flaps:
        colliders += [Collider("box", p.size, p.position, p.euler) for p in parts[5:9]]
    return Shape(parts, colliders, shine=0.05)


def tray(draw: Draw) -> Shape:
    """A flat rectangle with a rim; a grip rises at each short end of some."""
    x, y, rim = draw(0.090, 0.118), draw(0.060, 0.080), draw(0.014, 0.022)
    wall, floor = draw(0.0030, 0.0045), 0.006
    pieces = [((x, y, floor / 2), (0.0, 0.0, floor / 2)), *_walls(x, y, rim, wall, floor)]
    parts = [Part("box", "main", size, place) for size, place in pieces]
    reach = draw(0.020, 0.028)
    if draw.pick(True, False):
        bow = tube(arc(reach, 0, np.pi), np.full(14, 0.004))
        for side in (-1, 1):
            parts.append(
                Part(bow, "steel", (0, 0, 0), (side * x, 0, rim * 0.7), (0, 0, -side * np.pi / 2))
            )
    else:
        for side in (-1, 1):
            slot = (0.0006, reach, rim * 0.2)
            parts.append(Part("box", "dark", slot, (side * x, 0, rim * 0.62)))
    return Shape(parts, [Collider("box", size, place) for size, place in pieces], shine=0.3)


def pot(draw: Draw) -> Shape:
    """A saucepan: a round vessel with one long handle."""
    r, h, wall = draw(0.057, 0.070), draw(0.050, 0.075), 0.004
    foot = r * draw(0.88, 1.0)
    body = lathe(
        [
            (0, 0),
            (foot, 0),
            (r, 0.010),
            (r, h - 0.004),
            (r + 0.004, h),
            (r - wall, h),
            (r - wall, 0.012),
            (foot - wall, 0.006),
            (0, 0.006),
        ]
    )
    long, thick, rise = draw(0.048, 0.066), draw(0.0065, 0.0085), draw(0.05, 0.25)
    reach = r + 0.012 + long * np.cos(rise)
    height = h * 0.78 + long * np.sin(rise)
    grip = Part(
        "box",
        draw.pick("dark", "dark", "wood", "steel"),
        (long, thick * 1.35, thick * 0.8),
        (reach, 0, height),
        (0, -rise, 0),
    )
    neck = Part("cylinder", "steel", (0.0055, 0.012, 0), (r + 0.009, 0, h * 0.78), (0, 1.45, 0))
    return Shape(
        [Part(body), neck, grip],
        [*hollow(foot, r, h, 0.006), Collider("box", grip.size, grip.position, grip.euler)],
        shine=0.8,
    )


def jar(draw: Draw) -> Shape:
    """A preserving jar: a screw lid and a label of one colour, glass in between."""
    r, h = draw(0.031, 0.041), draw(0.070, 0.105)
    neck = r * draw(0.80, 0.92)
    body = lathe(
        [(0, 0), (r * 0.9, 0), (r, 0.006), (r, h * 0.80), (neck, h * 0.90), (neck, h), (0, h)]
    )
    cap = draw(0.008, 0.011)  # half the height of the lid
    lid = Part("cylinder", "main", (neck * 1.06, cap, 0), (0, 0, h + cap * 0.6))
    label = Part("cylinder", "main", (r * 1.015, h * draw(0.17, 0.25), 0), (0, 0, h * 0.42))
    top = h + cap * 1.6
    return Shape(
        [Part(body, draw.pick("glass", "cream")), lid, label],
        [
            Collider("cylinder", (r, h * 0.42, 0), (0, 0, h * 0.42)),
            Collider("cylinder", (neck, (top - h * 0.84) / 2, 0), (0, 0, (top + h * 0.84) / 2)),
        ],
        lie=(np.pi / 2, 0, 0),
        shine=0.8,
    )


def teapot(draw: Draw) -> Shape:
    """A round belly with a spout on one side, a bow to hold it on the other, a lid with a knob."""
    r, h = draw(0.056, 0.066), draw(0.078, 0.100)
    foot, neck = r * 0.62, r * draw(0.48, 0.60)
    angle = np.linspace(-0.85, 1.02, 9)
    belly = r * np.cos(angle)
    level = h * (np.sin(angle) - np.sin(angle[0])) / (np.sin(angle[-1]) - np.sin(angle[0]))
    body = lathe([(0, 0), (foot, 0), *zip(belly, level, strict=True), (neck, h), (0, h)])
    cover = lathe([(0, 0), (neck * 1.05, 0), (neck * 0.8, 0.008), (neck * 0.3, 0.012), (0, 0.013)])
    knob = draw(0.007, 0.010)
    along = np.linspace(0, 1, 12)
    out = draw(0.040, 0.056)
    spout = np.column_stack(
        [
            r * 0.80 + out * along,
            h * (0.30 + 0.62 * (3 * along**2 - 2 * along**3) + 0.05 * along),
            0 * along,
        ]
    )
    bow = draw(0.30, 0.38) * h
    ear = arc(bow, np.pi / 2, 3 * np.pi / 2) * np.array([draw(0.95, 1.25), 1, 1])
    upright = (np.pi / 2, 0, 0)
    reach = bow + 0.006
    return Shape(
        [
            Part(body),
            Part(cover, position=(0, 0, h)),
            Part("ellipsoid", "main", (knob, knob, knob), (0, 0, h + 0.013 + knob * 0.7)),
            Part(tube(spout, 0.0155 - 0.0085 * along**0.7), euler=upright),
            Part(tube(ear, np.full(14, 0.006)), position=(-r * 0.86, 0, h * 0.52), euler=upright),
        ],
        [
            Collider("cylinder", (r * 0.80, h * 0.14, 0), (0, 0, h * 0.14)),
            Collider("cylinder", (r, h * 0.22, 0), (0, 0, h * 0.42)),
            Collider("cylinder", (r * 0.72, h * 0.22, 0), (0, 0, h * 0.82)),
            Collider("box", (out / 2, 0.010, h * 0.22), (r * 0.85 + out / 2, 0, h * 0.66)),
            Collider("box", (reach / 2, 0.006, bow), (-r * 0.90 - reach / 2, 0, h * 0.52)),
        ],
        shine=0.6,
    )
