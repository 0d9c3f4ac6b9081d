"""What a builder of objects gives back, and the colours that its parts take.

Parts carry a role instead of a colour: `main` takes the object's own colour (the one its
description names), any other role is a fixed tint such as steel or wood.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from lisa_tabletop.world.meshes import Mesh

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
    "lens": (0.95, 0.93, 0.76),
    "bristle": (0.80, 0.66, 0.42),
    "crumb": (0.90, 0.78, 0.55),
    "glass": (0.62, 0.74, 0.72),
    "cream": (0.86, 0.76, 0.56),
}
PAINT = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black", "grey")

Vector = tuple[float, float, float]
T = TypeVar("T")


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


class Draw:
    """The random numbers of one object.

    Held-out objects are members of their kind that training never shows: each of their numbers
    lies a little outside of the range that training draws it from, below or above.
    """

    def __init__(self, random: np.random.Generator, held_out: bool = False) -> None:
        self._random, self._held_out = random, held_out

    def __call__(self, low: float, high: float) -> float:
        """A number from the range, or just beyond either end of it."""
        if not self._held_out:
            return float(self._random.uniform(low, high))
        beyond = float(self._random.uniform(0.05, 0.25)) * (high - low)
        return low - beyond if self._random.random() < 0.5 else high + beyond

    def pick(self, *choices: T) -> T:
        """One of several variants; the same ones in training and held out."""
        return choices[int(self._random.integers(len(choices)))]


@dataclass(frozen=True)
class Kind:
    """A kind of object: its builder, the colours it comes in, the material it is described by.

    `held_out_colors` are those that it never has in training; where there are none, held-out
    objects have the usual colours.
    """

    builder: Callable[[Draw], Shape]
    colors: tuple[str, ...]
    material: str
    held_out_colors: tuple[str, ...] = ()

    def build(self, random: np.random.Generator, held_out: bool = False) -> Shape:
        """Another member of the kind, or one of a shape that training never shows."""
        return self.builder(Draw(random, held_out))

    def palette(self, held_out: bool = False) -> tuple[str, ...]:
        """The colours to choose from."""
        return (self.held_out_colors if held_out else ()) or self.colors
