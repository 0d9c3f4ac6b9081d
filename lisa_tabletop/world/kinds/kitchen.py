"""Tableware, and other things that hold things: their colliders leave the hollow free."""

from __future__ import annotations

import math

import numpy as np

from lisa_tabletop.world.exact import cos, power, sin
from lisa_tabletop.world.parts import ALONG_Y, Draw, Part, Shape, arc, lathe, prism, tube

STAVES = 8  # flat pieces that stand for a round wall


def hollow(foot: float, rim: float, height: float, floor: float) -> list[Part]:
    """A round vessel on a foot of one radius, open at the top with another, all in metres.

    The wall is a ring of staves. They end above the table, so that only the foot touches it.
    """
    half = 0.003  # of the wall's thickness
    lean = math.atan2(rim - foot, height - floor)
    length = math.hypot(rim - foot, height - floor) / 2
    radius = (foot + rim) / 2 - half
    width = max(foot, rim) * math.tan(np.pi / STAVES)
    colliders = [Part("cylinder", (foot, floor / 2, 0), (0, 0, floor / 2))]
    for angle in np.arange(STAVES) * 2 * np.pi / STAVES:
        place = (radius * cos(angle), radius * sin(angle), (floor + height) / 2)
        colliders.append(Part("box", (half, width, length), place, _leaning(angle, lean)))
    return colliders


def _leaning(azimuth: float, lean: float) -> tuple[float, float, float]:
    """Euler angles (x, then the turned y and z) of a box that leans outwards at an azimuth."""
    # The matrix is Rz(azimuth) Ry(lean), read off as Rx Ry Rz.
    alpha = math.atan2(-sin(azimuth) * sin(lean), cos(lean))
    beta = math.asin(cos(azimuth) * sin(lean))
    gamma = math.atan2(sin(azimuth), cos(azimuth) * cos(lean))
    return float(alpha), float(beta), float(gamma)


def _case(x: float, y: float, z: float, wall: float, floor: float) -> list[Part]:
    """A floor of half sizes x, y and four walls around it up to height z, open at the top."""
    middle, half = (z + floor) / 2, (z - floor) / 2
    return [
        Part("box", (x, y, floor / 2), (0.0, 0.0, floor / 2)),
        *(Part("box", (wall, y, half), (side * (x - wall), 0.0, middle)) for side in (-1, 1)),
        *(Part("box", (x, wall, half), (0.0, side * (y - wall), middle)) for side in (-1, 1)),
    ]


def box(draw: Draw) -> Shape:
    """An open carton: flaps folded outwards, or none, and a paper label on two sides."""
    x, y, z = draw(0.066, 0.090), draw(0.054, 0.066), draw(0.045, 0.080)
    solid = _case(x, y, z, wall=0.0025, floor=0.005)
    flap, hang, flaps = draw(0.016, 0.026), draw(0.15, 0.75), draw.pick(True, True, False)
    if flaps:
        out, down = flap * cos(hang), flap * sin(hang)
        for side in (-1, 1):
            at = (0.0, side * (y + out), z - down)
            solid.append(Part("box", (x, flap, 0.0015), at, (-side * hang, 0, 0)))
            at = (side * (x + out), 0.0, z - down)
            solid.append(Part("box", (flap, y, 0.0015), at, (0, side * hang, 0)))
    label = (x * draw(0.25, 0.5), 0.0006, z * draw(0.16, 0.26))
    labels = [
        Part("box", label, (0.2 * x * side, side * y, z * 0.45), role="paper") for side in (-1, 1)
    ]
    return Shape([*solid, *labels], solid, shine=0.05)


def tray(draw: Draw) -> Shape:
    """A flat rectangle with a rim; a grip rises at each short end of some."""
    x, y, rim = draw(0.090, 0.118), draw(0.060, 0.080), draw(0.014, 0.022)
    solid = _case(x, y, rim, wall=draw(0.0030, 0.0045), floor=0.006)
    reach = draw(0.020, 0.028)
    bow = tube(arc(reach, 0, np.pi), np.full(14, 0.004)) if draw.pick(True, False) else None
    grips = []
    for side in (-1, 1):
        turn = (0, 0, -side * np.pi / 2)
        if bow:
            grips.append(Part(bow, (0, 0, 0), (side * x, 0, rim * 0.7), turn, "steel"))
        else:
            slot = (0.0006, reach, rim * 0.2)
            grips.append(Part("box", slot, (side * x, 0, rim * 0.62), role="dark"))
    return Shape([*solid, *grips], solid, shine=0.3)


def pot(draw: Draw) -> Shape:
    """A saucepan: a round vessel with one long handle."""
    r, h, wall = draw(0.057, 0.070), draw(0.050, 0.075), 0.004
    foot = r * draw(0.88, 1.0)
    body = lathe([
        (0, 0), (foot, 0), (r, 0.01), (r, h - 0.004), (r + 0.004, h), (r - wall, h),
        (r - wall, 0.012), (foot - wall, 0.006), (0, 0.006),
    ])  # fmt: skip
    long, thick, rise = draw(0.048, 0.066), draw(0.0065, 0.0085), draw(0.05, 0.25)
    reach = r + 0.012 + long * cos(rise)
    height = h * 0.78 + long * sin(rise)
    role = draw.pick("dark", "dark", "wood", "steel")
    grip = Part("box", (long, thick * 1.35, thick * 0.8), (reach, 0, height), (0, -rise, 0), role)
    neck = Part("cylinder", (0.0055, 0.012, 0), (r + 0.009, 0, h * 0.78), (0, 1.45, 0), "steel")
    return Shape([Part(body), neck, grip], [*hollow(foot, r, h, 0.006), grip], shine=0.8)


def jar(draw: Draw) -> Shape:
    """A preserving jar: a screw lid and a label of one colour, glass in between."""
    r, h = draw(0.031, 0.041), draw(0.070, 0.105)
    neck = r * draw(0.80, 0.92)
    body = lathe(
        [(0, 0), (r * 0.9, 0), (r, 0.006), (r, h * 0.80), (neck, h * 0.90), (neck, h), (0, h)]
    )
    cap = draw(0.008, 0.011)  # half the height of the lid
    lid = Part("cylinder", (neck * 1.06, cap, 0), (0, 0, h + cap * 0.6))
    label = Part("cylinder", (r * 1.015, h * draw(0.17, 0.25), 0), (0, 0, h * 0.42))
    top = h + cap * 1.6
    return Shape(
        [Part(body, role=draw.pick("glass", "cream")), lid, label],
        [
            Part("cylinder", (r, h * 0.42, 0), (0, 0, h * 0.42)),
            Part("cylinder", (neck, (top - h * 0.84) / 2, 0), (0, 0, (top + h * 0.84) / 2)),
        ],
        lie=ALONG_Y,
        shine=0.8,
    )


def teapot(draw: Draw) -> Shape:
    """A round belly with a spout on one side, a bow to hold it on the other, a lid with a knob."""
    r, h = draw(0.056, 0.066), draw(0.078, 0.100)
    foot, neck = r * 0.62, r * draw(0.48, 0.60)
    angle = np.linspace(-0.85, 1.02, 9)
    belly = r * cos(angle)
    level = h * (sin(angle) - sin(angle[0])) / (sin(angle[-1]) - sin(angle[0]))
    body = lathe([(0, 0), (foot, 0), *zip(belly, level, strict=True), (neck, h), (0, h)])
    cover = lathe([(0, 0), (neck * 1.05, 0), (neck * 0.8, 0.008), (neck * 0.3, 0.012), (0, 0.013)])
    knob = draw(0.007, 0.010)
    along = np.linspace(0, 1, 12)
    out = draw(0.040, 0.056)
    rise = h * (0.30 + 0.62 * (3 * along**2 - 2 * power(along, 3)) + 0.05 * along)
    spout = np.column_stack([r * 0.80 + out * along, rise, 0 * along])
    bow = draw(0.30, 0.38) * h
    ear = arc(bow, np.pi / 2, 3 * np.pi / 2) * np.array([draw(0.95, 1.25), 1, 1])
    reach = bow + 0.006
    return Shape(
        [
            Part(body),
            Part(cover, position=(0, 0, h)),
            Part("ellipsoid", (knob, knob, knob), (0, 0, h + 0.013 + knob * 0.7)),
            Part(tube(spout, 0.0155 - 0.0085 * power(along, 0.7)), euler=ALONG_Y),
            Part(tube(ear, np.full(14, 0.006)), position=(-r * 0.86, 0, h * 0.52), euler=ALONG_Y),
        ],
        [
            Part("cylinder", (r * 0.8, h * 0.14, 0), (0, 0, h * 0.14)),
            Part("cylinder", (r, h * 0.22, 0), (0, 0, h * 0.42)),
            Part("cylinder", (r * 0.72, h * 0.22, 0), (0, 0, h * 0.82)),
            Part("box", (out / 2, 0.01, h * 0.22), (r * 0.85 + out / 2, 0, h * 0.66)),
            Part("box", (reach / 2, 0.006, bow), (-r * 0.9 - reach / 2, 0, h * 0.52)),
        ],
        shine=0.6,
    )


def mug(draw: Draw) -> Shape:
    r, h = draw(0.036, 0.047), draw(0.080, 0.115)
    foot, inner = r * draw(0.78, 1.0), r - 0.004
    body = lathe(
        [(0, 0), (foot, 0), (r, h * 0.35), (r, h), (inner, h), (inner, h * 0.3), (0, 0.006)]
    )
    grip = draw(0.26, 0.36) * h
    handle = tube(arc(grip, -np.pi / 2, np.pi / 2), np.full(14, 0.0055))
    wall = Part("cylinder", (r, h / 2, 0), (0, 0, h / 2))
    reach = grip + 0.0055
    ear = Part("box", (reach / 2, 0.0055, reach), (r - 0.003 + reach / 2, 0, h * 0.52))
    return Shape(
        [Part(body), Part(handle, position=(r - 0.003, 0, h * 0.52), euler=ALONG_Y)],
        [wall],
        shine=0.6,
        fine_colliders=[wall, ear],
    )


def bottle(draw: Draw) -> Shape:
    r, h = draw(0.030, 0.041), draw(0.17, 0.25)
    neck = r * draw(0.32, 0.45)
    shoulder = h * draw(0.58, 0.68)
    body = lathe([
        (0, 0), (r * 0.94, 0), (r, 0.006), (r, shoulder), (r * 0.85, shoulder + 0.1 * h),
        (neck, shoulder + 0.2 * h), (neck, h), (0, h),
    ])  # fmt: skip
    cap = Part("cylinder", (neck * 1.2, 0.01, 0), (0, 0, h + 0.004), role="dark")
    colliders = [
        Part("cylinder", (r, shoulder / 2, 0), (0, 0, shoulder / 2)),
        Part("cylinder", (neck, (h - shoulder) / 2, 0), (0, 0, (h + shoulder) / 2)),
    ]
    return Shape(
        [Part(body), cap],
        colliders,
        lie=ALONG_Y,
        shine=0.7,
        fine_colliders=[
            *colliders,
            Part("cylinder", (r * 0.88, 0.05 * h, 0), (0, 0, shoulder + 0.05 * h)),
            Part("cylinder", ((r + neck) / 2, 0.03 * h, 0), (0, 0, shoulder + 0.13 * h)),
            cap,
        ],
    )


def bowl(draw: Draw) -> Shape:
    r, h = draw(0.060, 0.085), draw(0.045, 0.062)
    foot, wall = r * draw(0.40, 0.52), 0.005
    flare = r - foot
    body = lathe([
        (0, 0), (foot, 0), (foot + 0.45 * flare, 0.22 * h), (foot + 0.8 * flare, 0.55 * h), (r, h),
        (r - wall, h), (foot + 0.8 * flare - wall, 0.58 * h), (foot + 0.4 * flare - wall, 0.28 * h),
        (0, 0.007),
    ])  # fmt: skip
    # A wider foot makes up for the straight wall, which runs inside of the drawn curve.
    return Shape([Part(body)], hollow(foot + 0.3 * flare, r, h, floor=0.007), shine=0.6)


def plate(draw: Draw) -> Shape:
    r, h = draw(0.085, 0.112), draw(0.015, 0.022)
    flat = r * draw(0.60, 0.72)
    body = lathe([
        (0, 0), (flat, 0), (r, h), (r - 0.002, h + 0.003), (flat, 0.006), (flat * 0.93, 0.004),
        (0, 0.004),
    ], segments=36)  # fmt: skip
    return Shape([Part(body)], hollow(flat, r, h, floor=0.004), shine=0.6)


def can(draw: Draw) -> Shape:
    r, h = draw(0.030, 0.037), draw(0.095, 0.130)
    steel = lathe([
        (0, 0), (r * 0.86, 0), (r * 0.99, 0.008), (r * 0.99, h - 0.008), (r * 0.86, h),
        (r * 0.8, h), (r * 0.78, h - 0.004), (0, h - 0.004),
    ])  # fmt: skip
    label = Part("cylinder", (r, h / 2 - 0.011, 0), (0, 0, h / 2))
    solid = Part("cylinder", (r, h / 2, 0), (0, 0, h / 2))
    return Shape([Part(steel, role="steel"), label], [solid], lie=ALONG_Y, shine=0.8)


def spoon(draw: Draw) -> Shape:
    length, width = draw(0.15, 0.20), draw(0.021, 0.027)
    head = width * draw(1.35, 1.6)
    handle = length - 2 * head
    stick_x, stick_y, at = handle / 2 + 0.006, draw(0.006, 0.009), -length / 2 + handle / 2
    return Shape(
        [
            Part("ellipsoid", (head, width, 0.008), (length / 2 - head, 0, 0.008)),
            Part("box", (stick_x, stick_y, 0.003), (at, 0, 0.008)),
        ],
        [Part("box", (length / 2, width * 0.7, 0.006), (0, 0, 0.006))],
        shine=0.9,
        fine_colliders=[
            Part("box", (head * 0.55, width * 0.85, 0.006), (length / 2 - head, 0, 0.006)),
            Part("box", (head * 0.95, width * 0.45, 0.006), (length / 2 - head, 0, 0.006)),
            Part("box", (stick_x, stick_y, 0.0055), (at, 0, 0.0055)),
        ],
    )


def knife(draw: Draw) -> Shape:
    blade, handle = draw(0.11, 0.15), draw(0.085, 0.105)
    width = draw(0.026, 0.036)
    edge = prism([
        (0, -width / 2), (blade * 0.65, -width / 2), (blade, width * 0.35),
        (blade * 0.95, width / 2), (0, width / 2),
    ], 0.004)  # fmt: skip
    grip = Part("box", (handle / 2, width * 0.36, 0.008), (-handle / 2, width * 0.1, 0.008))
    middle = (blade - handle) / 2
    return Shape(
        [Part(edge, position=(0, 0, 0.008), role="steel"), grip],
        [Part("box", ((blade + handle) / 2, width / 2, 0.007), (middle, 0, 0.007))],
        shine=0.8,
        fine_colliders=[
            Part("box", (blade * 0.47, width * 0.48, 0.0055), (blade * 0.47, 0, 0.0055)),
            grip,
        ],
    )


def fork(draw: Draw) -> Shape:
    length, width = draw(0.16, 0.20), draw(0.019, 0.025)
    tines, reach = draw.pick(3, 3, 4), draw(0.042, 0.058)
    palm, stick = draw(0.024, 0.034), draw(0.006, 0.009)
    root = length / 2 - reach
    heel = root - palm
    thick = 0.006
    slot = 2 * width / (2 * tines - 1)
    prong = prism([(0, -slot / 2), (reach, -slot / 4), (reach, slot / 4), (0, slot / 2)], thick)
    plate = prism([
        (heel, -stick), (root - 0.5 * palm, -0.8 * width), (root, -width), (root, width),
        (root - 0.5 * palm, 0.8 * width), (heel, stick),
    ], thick)  # fmt: skip
    grip = prism([
        (-length / 2, -1.3 * stick), (heel + 0.005, -0.7 * stick), (heel + 0.005, 0.7 * stick),
        (-length / 2, 1.3 * stick),
    ], thick)  # fmt: skip
    parts = [Part(plate, position=(0, 0, 0.0055)), Part(grip, position=(0, 0, 0.0055))]
    parts += [
        Part(prong, position=(root - 0.002, (2 * i - tines + 1) * slot, 0.0055))
        for i in range(tines)
    ]
    handle = (heel + length / 2) / 2
    return Shape(
        parts,
        [Part("box", (length / 2, width * 0.8, 0.006), (0, 0, 0.006))],
        shine=0.9,
        fine_colliders=[
            Part("box", (reach / 2 + palm / 4, width, 0.006), (root + reach / 4, 0, 0.006)),
            Part("box", (handle + palm / 4, 1.3 * stick, 0.006), (heel - handle, 0, 0.006)),
        ],
    )
