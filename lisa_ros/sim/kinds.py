"""Parametric builders of the household objects: every call draws another member of the kind.

A builder gets a random generator and returns a `Shape` standing on the plane z = 0. Parts carry a
role instead of a colour: `main` takes the object's own colour (the one its description names), any
other role is a fixed tint such as steel or wood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lisa_ros.sim.meshes import Mesh, arc, lathe, prism, tube

# Reference tints in RGB 0..1; each object jitters around its own.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.08, 0.08),
    "orange": (0.92, 0.45, 0.05),
    "yellow": (0.93, 0.80, 0.12),
    "green": (0.10, 0.52, 0.17),
    "blue": (0.10, 0.25, 0.75),
    "purple": (0.45, 0.15, 0.58),
    "white": (0.92, 0.92, 0.90),
    "black": (0.06, 0.06, 0.07),
    "grey": (0.45, 0.46, 0.48),
    "brown": (0.40, 0.24, 0.12),
}
TINTS: dict[str, tuple[float, float, float]] = {
    "steel": (0.66, 0.67, 0.70),
    "wood": (0.68, 0.50, 0.31),
    "dark": (0.08, 0.08, 0.09),
    "paper": (0.93, 0.91, 0.84),
    "leaf": (0.15, 0.42, 0.10),
    "stem": (0.30, 0.20, 0.10),
    "screen": (0.12, 0.16, 0.24),
    "rubber": (0.85, 0.50, 0.50),
    "wick": (0.20, 0.18, 0.16),
    "abrasive": (0.12, 0.30, 0.16),
}
PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black", "grey")

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Part:
    """One drawn body: a mesh or a MuJoCo primitive (`box`, `cylinder`, `ellipsoid`, `capsule`)."""

    shape: Mesh | str
    role: str = "main"
    size: Vector = (0.0, 0.0, 0.0)
    position: Vector = (0.0, 0.0, 0.0)
    euler: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Collider:
    """A primitive that stands for the object in physics: type, half sizes and place in metres."""

    shape: str
    size: Vector
    position: Vector
    euler: Vector = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Shape:
    """What a builder returns; `lie` = euler angles of its other stable pose, if it has one.

    The `colliders` decide where things are dropped and come to rest. Where they are too coarse for
    fingers that close on the object, `fine_colliders` take their place in scenes with a gripper.
    They reach down to the table wherever the coarse ones do, so that both rest in the same pose.
    """

    parts: list[Part]
    colliders: list[Collider]
    lie: Vector | None = None
    shine: float = field(default=0.3)
    fine_colliders: list[Collider] | None = None


Builder = Callable[[np.random.Generator], Shape]


@dataclass(frozen=True)
class Kind:
    """A kind of object: its builder, the colours it comes in, the material it is described by."""

    build: Builder
    colors: tuple[str, ...]
    material: str


def _uniform(random: np.random.Generator, low: float, high: float) -> float:
    return float(random.uniform(low, high))


def mug(random: np.random.Generator) -> Shape:
    r, h = _uniform(random, 0.036, 0.047), _uniform(random, 0.080, 0.115)
    foot = r * _uniform(random, 0.78, 1.0)
    wall = 0.004
    body = lathe(
        [(0, 0), (foot, 0), (r, h * 0.35), (r, h), (r - wall, h), (r - wall, h * 0.3), (0, 0.006)]
    )
    grip = _uniform(random, 0.26, 0.36) * h
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


def bottle(random: np.random.Generator) -> Shape:
    r, h = _uniform(random, 0.030, 0.041), _uniform(random, 0.17, 0.25)
    neck = r * _uniform(random, 0.32, 0.45)
    shoulder = h * _uniform(random, 0.58, 0.68)
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


def bowl(random: np.random.Generator) -> Shape:
    r, h = _uniform(random, 0.060, 0.085), _uniform(random, 0.045, 0.062)
    foot = r * _uniform(random, 0.40, 0.52)
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
        [Collider("cylinder", (0.85 * r, h / 2, 0), (0, 0, h / 2))],
        shine=0.6,
        fine_colliders=[
            Collider("cylinder", (0.85 * r, h / 4, 0), (0, 0, h / 4)),
            Collider("cylinder", (r, h / 4, 0), (0, 0, h * 3 / 4)),
        ],
    )


def plate(random: np.random.Generator) -> Shape:
    r, h = _uniform(random, 0.085, 0.112), _uniform(random, 0.015, 0.022)
    flat = r * _uniform(random, 0.60, 0.72)
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
    return Shape(
        [Part(body)], [Collider("cylinder", (r * 0.9, h / 2, 0), (0, 0, h / 2))], shine=0.6
    )


def can(random: np.random.Generator) -> Shape:
    r, h = _uniform(random, 0.030, 0.037), _uniform(random, 0.095, 0.130)
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


def spoon(random: np.random.Generator) -> Shape:
    length, width = _uniform(random, 0.15, 0.20), _uniform(random, 0.021, 0.027)
    head = width * _uniform(random, 1.35, 1.6)
    handle = length - 2 * head
    parts = [
        Part("ellipsoid", size=(head, width, 0.008), position=(length / 2 - head, 0, 0.008)),
        Part(
            "box",
            size=(handle / 2 + 0.006, _uniform(random, 0.006, 0.009), 0.003),
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


def knife(random: np.random.Generator) -> Shape:
    blade, handle = _uniform(random, 0.11, 0.15), _uniform(random, 0.085, 0.105)
    width = _uniform(random, 0.026, 0.036)
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


def apple(random: np.random.Generator) -> Shape:
    r = _uniform(random, 0.034, 0.043)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 14)
    radius = r * np.cos(angle) * (1 + 0.08 * np.sin(angle))
    height = (
        r * 0.92 * (np.sin(angle) - 0.25 * np.exp(-((angle - np.pi / 2) ** 2) / 0.08)) + r * 0.92
    )
    body = lathe(list(zip(radius, height, strict=True)))
    stem = Part("capsule", "stem", (0.0022, 0.010, 0), (0, 0, 1.75 * r), (0.25, 0, 0))
    return Shape([Part(body), stem], [Collider("sphere", (r * 0.96, 0, 0), (0, 0, r * 0.96))])


def banana(random: np.random.Generator) -> Shape:
    bend, thick = _uniform(random, 0.075, 0.10), _uniform(random, 0.015, 0.019)
    span = _uniform(random, 1.7, 2.2)
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


def carrot(random: np.random.Generator) -> Shape:
    length, thick = _uniform(random, 0.13, 0.18), _uniform(random, 0.015, 0.020)
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


def hammer(random: np.random.Generator) -> Shape:
    length, head = _uniform(random, 0.20, 0.26), _uniform(random, 0.038, 0.050)
    thick = _uniform(random, 0.012, 0.016)
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


def screwdriver(random: np.random.Generator) -> Shape:
    handle, shaft = _uniform(random, 0.085, 0.105), _uniform(random, 0.08, 0.12)
    thick = _uniform(random, 0.014, 0.018)
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


def scissors(random: np.random.Generator) -> Shape:
    blade, ring = _uniform(random, 0.080, 0.105), _uniform(random, 0.019, 0.025)
    open_angle = _uniform(random, 0.15, 0.38)
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


def pencil(random: np.random.Generator) -> Shape:
    length, thick = _uniform(random, 0.13, 0.18), _uniform(random, 0.0065, 0.0085)
    turned = {"euler": (0, np.pi / 2, 0)}
    tip = lathe([(0, 0), (thick, 0), (0.0012, 0.022), (0, 0.026)], 8)
    parts = [
        Part("cylinder", "main", (thick, length / 2, 0), (0, 0, thick), **turned),
        Part(tip, "wood", position=(length / 2, 0, thick), **turned),
        Part("cylinder", "rubber", (thick, 0.009, 0), (-length / 2 - 0.009, 0, thick), **turned),
    ]
    return Shape(parts, [Collider("box", (length / 2 + 0.015, thick * 0.9, thick), (0, 0, thick))])


def book(random: np.random.Generator) -> Shape:
    x, y = _uniform(random, 0.055, 0.075), _uniform(random, 0.080, 0.105)
    z = _uniform(random, 0.011, 0.020)
    parts = [
        Part("box", "main", (x, y, 0.002), (0, 0, 0.002)),
        Part("box", "main", (x, y, 0.002), (0, 0, 2 * z - 0.002)),
        Part("box", "main", (0.002, y, z), (-x, 0, z)),
        Part("box", "paper", (x - 0.003, y - 0.003, z - 0.004), (0, 0, z)),
        Part("box", "paper", (x * 0.6, y * 0.10, 0.0008), (0, y * 0.45, 2 * z)),
    ]
    return Shape(parts, [Collider("box", (x, y, z), (0, 0, z))])


def tape(random: np.random.Generator) -> Shape:
    outer, h = _uniform(random, 0.036, 0.047), _uniform(random, 0.020, 0.034)
    inner = outer * _uniform(random, 0.58, 0.70)
    core = inner * 0.9
    roll = lathe([(inner, 0), (outer, 0), (outer, h), (inner, h), (inner, 0)])
    lining = lathe(
        [(core, 0.001), (inner, 0.001), (inner, h - 0.001), (core, h - 0.001), (core, 0.001)]
    )
    return Shape(
        [Part(roll), Part(lining, "paper")],
        [Collider("cylinder", (outer, h / 2, 0), (0, 0, h / 2))],
    )


def sponge(random: np.random.Generator) -> Shape:
    x, y = _uniform(random, 0.048, 0.062), _uniform(random, 0.030, 0.040)
    z = _uniform(random, 0.013, 0.019)
    parts = [
        Part("box", "main", (x, y, z * 0.75), (0, 0, z * 1.25)),
        Part("box", "abrasive", (x, y, z * 0.25), (0, 0, z * 0.25)),
    ]
    return Shape(parts, [Collider("box", (x, y, z), (0, 0, z))], shine=0.0)


def candle(random: np.random.Generator) -> Shape:
    r, h = _uniform(random, 0.020, 0.030), _uniform(random, 0.055, 0.120)
    body = lathe(
        [(0, 0), (r, 0), (r, h), (r * 0.85, h + 0.002), (r * 0.7, h - 0.004), (0, h - 0.005)]
    )
    wick = Part("capsule", "wick", (0.0022, 0.009, 0), (0, 0, h + 0.004))
    return Shape(
        [Part(body), wick], [Collider("cylinder", (r, h / 2, 0), (0, 0, h / 2))], shine=0.2
    )


def phone(random: np.random.Generator) -> Shape:
    x, y = _uniform(random, 0.034, 0.040), _uniform(random, 0.068, 0.080)
    z = 0.0055
    parts = [
        Part("box", "main", (x, y, z), (0, 0, z)),
        Part("box", "screen", (x * 0.88, y * 0.84, 0.0008), (0, 0, 2 * z)),
        Part("cylinder", "dark", (0.0045, 0.0008, 0), (0, -y * 0.92, 2 * z)),
    ]
    return Shape(parts, [Collider("box", (x, y, z), (0, 0, z))], shine=0.8)


def ball(random: np.random.Generator) -> Shape:
    r = _uniform(random, 0.028, 0.045)
    return Shape(
        [Part("ellipsoid", size=(r, r, r), position=(0, 0, r))],
        [Collider("sphere", (r, 0, 0), (0, 0, r))],
        shine=0.4,
    )


KINDS: dict[str, Kind] = {
    "mug": Kind(mug, PAINT, "ceramic"),
    "bottle": Kind(bottle, ("green", "blue", "brown", "white", "red", "black"), "glass"),
    "bowl": Kind(bowl, PAINT, "ceramic"),
    "plate": Kind(plate, PAINT, "ceramic"),
    "can": Kind(can, ("red", "orange", "yellow", "green", "blue", "purple"), "metal"),
    "spoon": Kind(spoon, ("grey", "brown", "red", "blue", "green"), "metal"),
    "knife": Kind(knife, ("black", "brown", "red", "blue", "white"), "metal"),
    "apple": Kind(apple, ("red", "green", "yellow"), "food"),
    "banana": Kind(banana, ("yellow", "green"), "food"),
    "carrot": Kind(carrot, ("orange",), "food"),
    "hammer": Kind(hammer, ("brown", "black", "red", "blue", "yellow"), "wood"),
    "screwdriver": Kind(
        screwdriver, ("red", "yellow", "blue", "green", "orange", "black"), "metal"
    ),
    "scissors": Kind(scissors, ("red", "orange", "blue", "green", "purple", "black"), "metal"),
    "pencil": Kind(pencil, ("yellow", "red", "blue", "green", "black", "orange"), "wood"),
    "book": Kind(book, ("red", "orange", "green", "blue", "purple", "black", "brown"), "paper"),
    "tape": Kind(tape, ("grey", "yellow", "red", "blue", "black", "brown"), "plastic"),
    "sponge": Kind(sponge, ("yellow", "blue", "orange", "purple"), "foam"),
    "candle": Kind(candle, ("white", "red", "purple", "blue", "yellow"), "wax"),
    "phone": Kind(phone, ("black", "white", "grey", "blue", "red"), "plastic"),
    "ball": Kind(ball, PAINT, "rubber"),
}
