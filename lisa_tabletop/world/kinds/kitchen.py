"""Tableware and what is drunk from and eaten with."""

from __future__ import annotations

import numpy as np

from lisa_tabletop.world.kinds.containers import hollow
from lisa_tabletop.world.kinds.shape import Collider, Draw, Part, Shape
from lisa_tabletop.world.meshes import arc, lathe, prism, tube


def mug(draw: Draw) -> Shape:
    r, h = draw(0.036, 0.047), draw(0.080, 0.115)
    foot = r * draw(0.78, 1.0)
    wall = 0.004
    body = lathe(
        [(0, 0), (foot, 0), (r, h * 0.35), (r, h), (r - wall, h), (r - wall, h * 0.3), (0, 0.006)]
    )
    grip = draw(0.26, 0.36) * h
    handle = tube(arc(grip, -np.pi / 2, np.pi / 2), np.full(14, 0.0055))
    wall_collider = Collider("cylinder", (r, h / 2, 0), (0, 0, h / 2))
    reach = grip + 0.0055
    return Shape(
        [
            Part(body),
            Part(handle, position=(r - 0.003, 0, h * 0.52), euler=(np.pi / 2, 0, 0)),
        ],
        [wall_collider],
        shine=0.6,
        fine_colliders=[
            wall_collider,
            Collider("box", (reach / 2, 0.0055, reach), (r - 0.003 + reach / 2, 0, h * 0.52)),
        ],
    )


def bottle(draw: Draw) -> Shape:
    r, h = draw(0.030, 0.041), draw(0.17, 0.25)
    neck = r * draw(0.32, 0.45)
    shoulder = h * draw(0.58, 0.68)
    body = lathe(
        [
            (0, 0),
            (r * 0.94, 0),
            (r, 0.006),
            (r, shoulder),
            (r * 0.85, shoulder + 0.1 * h),
            (neck, shoulder + 0.2 * h),
            (neck, h),
            (0, h),
        ]
    )
    cap = Part("cylinder", "dark", (neck * 1.2, 0.010, 0), (0, 0, h + 0.004))
    colliders = [
        Collider("cylinder", (r, shoulder / 2, 0), (0, 0, shoulder / 2)),
        Collider("cylinder", (neck, (h - shoulder) / 2, 0), (0, 0, (h + shoulder) / 2)),
    ]
    return Shape(
        [Part(body), cap],
        colliders,
        lie=(np.pi / 2, 0, 0),
        shine=0.7,
        fine_colliders=[
            *colliders,
            Collider("cylinder", (r * 0.88, 0.05 * h, 0), (0, 0, shoulder + 0.05 * h)),
            Collider("cylinder", ((r + neck) / 2, 0.03 * h, 0), (0, 0, shoulder + 0.13 * h)),
            Collider("cylinder", cap.size, cap.position),
        ],
    )


def bowl(draw: Draw) -> Shape:
    r, h = draw(0.060, 0.085), draw(0.045, 0.062)
    foot = r * draw(0.40, 0.52)
    wall = 0.005
    body = lathe(
        [
            (0, 0),
            (foot, 0),
            (foot + 0.45 * (r - foot), 0.22 * h),
            (foot + 0.8 * (r - foot), 0.55 * h),
            (r, h),
            (r - wall, h),
            (foot + 0.8 * (r - foot) - wall, 0.58 * h),
            (foot + 0.4 * (r - foot) - wall, 0.28 * h),
            (0, 0.007),
        ]
    )
    return Shape(
        [Part(body)],
        # A wider foot makes up for the straight wall, which runs inside of the drawn curve.
        hollow(foot + 0.3 * (r - foot), r, h, floor=0.007),
        shine=0.6,
    )


def plate(draw: Draw) -> Shape:
    r, h = draw(0.085, 0.112), draw(0.015, 0.022)
    flat = r * draw(0.60, 0.72)
    body = lathe(
        [
            (0, 0),
            (flat, 0),
            (r, h),
            (r - 0.002, h + 0.003),
            (flat, 0.006),
            (flat * 0.93, 0.004),
            (0, 0.004),
        ],
        segments=36,
    )
    return Shape([Part(body)], hollow(flat, r, h, floor=0.004), shine=0.6)


def can(draw: Draw) -> Shape:
    r, h = draw(0.030, 0.037), draw(0.095, 0.130)
    steel = lathe(
        [
            (0, 0),
            (r * 0.86, 0),
            (r * 0.99, 0.008),
            (r * 0.99, h - 0.008),
            (r * 0.86, h),
            (r * 0.80, h),
            (r * 0.78, h - 0.004),
            (0, h - 0.004),
        ]
    )
    label = Part("cylinder", "main", (r, h / 2 - 0.011, 0), (0, 0, h / 2))
    return Shape(
        [Part(steel, "steel"), label],
        [Collider("cylinder", (r, h / 2, 0), (0, 0, h / 2))],
        lie=(np.pi / 2, 0, 0),
        shine=0.8,
    )


def spoon(draw: Draw) -> Shape:
    length, width = draw(0.15, 0.20), draw(0.021, 0.027)
    head = width * draw(1.35, 1.6)
    handle = length - 2 * head
    parts = [
        Part("ellipsoid", size=(head, width, 0.008), position=(length / 2 - head, 0, 0.008)),
        Part(
            "box",
            size=(handle / 2 + 0.006, draw(0.006, 0.009), 0.003),
            position=(-length / 2 + handle / 2, 0, 0.008),
        ),
    ]
    stick_x, stick_y, _ = parts[1].size
    return Shape(
        parts,
        [Collider("box", (length / 2, width * 0.7, 0.006), (0, 0, 0.006))],
        shine=0.9,
        fine_colliders=[
            Collider("box", (head * 0.55, width * 0.85, 0.006), (length / 2 - head, 0, 0.006)),
            Collider("box", (head * 0.95, width * 0.45, 0.006), (length / 2 - head, 0, 0.006)),
            Collider("box", (stick_x, stick_y, 0.0055), (parts[1].position[0], 0, 0.0055)),
        ],
    )


def knife(draw: Draw) -> Shape:
    blade, handle = draw(0.11, 0.15), draw(0.085, 0.105)
    width = draw(0.026, 0.036)
    edge = prism(
        [
            (0, -width / 2),
            (blade * 0.65, -width / 2),
            (blade, width * 0.35),
            (blade * 0.95, width / 2),
            (0, width / 2),
        ],
        0.004,
    )
    parts = [
        Part(edge, "steel", position=(0, 0, 0.008)),
        Part(
            "box",
            size=(handle / 2, width * 0.36, 0.008),
            position=(-handle / 2, width * 0.1, 0.008),
        ),
    ]
    middle = (blade - handle) / 2
    grip_x, grip_y, grip_z = parts[1].size
    return Shape(
        parts,
        [Collider("box", ((blade + handle) / 2, width / 2, 0.007), (middle, 0, 0.007))],
        shine=0.8,
        fine_colliders=[
            Collider("box", (blade * 0.47, width * 0.48, 0.0055), (blade * 0.47, 0, 0.0055)),
            Collider("box", (grip_x, grip_y, grip_z), parts[1].position),
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
    plate = prism(
        [
            (heel, -stick),
            (root - 0.5 * palm, -0.8 * width),
            (root, -width),
            (root, width),
            (root - 0.5 * palm, 0.8 * width),
            (heel, stick),
        ],
        thick,
    )
    grip = prism(
        [
            (-length / 2, -1.3 * stick),
            (heel + 0.005, -0.7 * stick),
            (heel + 0.005, 0.7 * stick),
            (-length / 2, 1.3 * stick),
        ],
        thick,
    )
    parts = [Part(plate, position=(0, 0, 0.0055)), Part(grip, position=(0, 0, 0.0055))]
    parts += [
        Part(prong, position=(root - 0.002, (2 * i - tines + 1) * slot, 0.0055))
        for i in range(tines)
    ]
    handle = (heel + length / 2) / 2
    return Shape(
        parts,
        [Collider("box", (length / 2, width * 0.8, 0.006), (0, 0, 0.006))],
        shine=0.9,
        fine_colliders=[
            Collider("box", (reach / 2 + palm / 4, width, 0.006), (root + reach / 4, 0, 0.006)),
            Collider("box", (handle + palm / 4, 1.3 * stick, 0.006), (heel - handle, 0, 0.006)),
        ],
    )
