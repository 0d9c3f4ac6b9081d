"""What the builders of objects work with: meshes, drawn and solid bodies, colours, random numbers.

Bodies carry a role instead of a colour: `main` takes the object's own colour (the one its
description names), any other role is a fixed tint such as steel or wood.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lisa_tabletop.world.exact import cos, sin

# Reference tints in RGB 0..1; each object jitters around its own.
COLORS: dict[str, tuple[float, float, float]] = {
    "red": (0.78, 0.08, 0.08), "orange": (0.92, 0.45, 0.05), "yellow": (0.93, 0.80, 0.12),
    "green": (0.10, 0.52, 0.17), "blue": (0.10, 0.25, 0.75), "purple": (0.45, 0.15, 0.58),
    "white": (0.92, 0.92, 0.90), "black": (0.06, 0.06, 0.07), "grey": (0.45, 0.46, 0.48),
    "brown": (0.40, 0.24, 0.12),
}  # fmt: skip
TINTS: dict[str, tuple[float, float, float]] = {
    "steel": (0.66, 0.67, 0.70), "wood": (0.68, 0.50, 0.31), "dark": (0.08, 0.08, 0.09),
    "paper": (0.93, 0.91, 0.84), "leaf": (0.15, 0.42, 0.10), "stem": (0.30, 0.20, 0.10),
    "screen": (0.12, 0.16, 0.24), "rubber": (0.85, 0.50, 0.50), "wick": (0.20, 0.18, 0.16),
    "abrasive": (0.12, 0.30, 0.16), "lens": (0.95, 0.93, 0.76), "bristle": (0.80, 0.66, 0.42),
    "crumb": (0.90, 0.78, 0.55), "glass": (0.62, 0.74, 0.72), "cream": (0.86, 0.76, 0.56),
}  # fmt: skip

Vector = tuple[float, float, float]
T = TypeVar("T")
ALONG_X: Vector = (0, np.pi / 2, 0)  # turns that lay an upright body along an axis
ALONG_Y: Vector = (np.pi / 2, 0, 0)


@dataclass(frozen=True)
class Part:
    """One body of an object, to be drawn or to stand for it in physics.

    Attributes:
        shape: a mesh, or a MuJoCo primitive (`box`, `cylinder`, `ellipsoid`, `capsule`, `sphere`).
        size: half sizes of a primitive, metres.
        position, euler: place in the object's frame, metres and radians (x, turned y, turned z).
        role: what colour it is drawn in.
    """

    shape: Mesh | str
    size: Vector = (0.0, 0.0, 0.0)
    position: Vector = (0.0, 0.0, 0.0)
    euler: Vector = (0.0, 0.0, 0.0)
    role: str = "main"


@dataclass(frozen=True)
class Shape:
    """What a builder returns; `lie` = euler angles of its other stable pose, if it has one.

    The `colliders` decide where things are dropped and come to rest. Where they are too coarse for
    fingers that close on the object, `fine_colliders` take their place in scenes with a gripper.
    They reach down to the table wherever the coarse ones do, so that both rest in the same pose.
    """

    parts: list[Part]
    colliders: list[Part]
    lie: Vector | None = None
    shine: float = 0.3
    fine_colliders: list[Part] | None = None


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
class Mesh:
    """Vertices (V,3) in metres and faces (F,3), counter-clockwise seen from outside."""

    vertices: np.ndarray
    faces: np.ndarray


def _grid_faces(rows: int, columns: int) -> np.ndarray:
    """Two triangles per cell of a grid whose columns wrap around."""
    row, column = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a = row * columns + column
    b = row * columns + (column + 1) % columns
    c, d = a + columns, b + columns
    lower = np.stack([a, b, d], axis=-1).reshape(-1, 3)
    upper = np.stack([a, d, c], axis=-1).reshape(-1, 3)
    return np.concatenate([lower, upper])


def lathe(profile: list[tuple[float, float]], segments: int = 28) -> Mesh:
    """Turn a profile of (radius, height) pairs around the z axis.

    The profile runs from the bottom along the outside; for an open vessel it goes on over the rim
    and down the inside, so that both walls are drawn.
    """
    radius, height = np.array(profile, dtype=float).T
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    x = np.outer(np.maximum(radius, 1e-5), cos(angle))
    y = np.outer(np.maximum(radius, 1e-5), sin(angle))
    z = np.repeat(height[:, None], segments, axis=1)
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    return Mesh(vertices, _grid_faces(len(radius), segments))


def tube(path: np.ndarray, radii: np.ndarray, segments: int = 12, flatten: float = 1.0) -> Mesh:
    """A tube of varying radius along a path (N,3) in the x-y plane; `flatten` scales it in z."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0])
    side = np.cross(up, tangent)
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)[None, :, None]
    ring = side[:, None] * cos(angle) + flatten * up[None, None] * sin(angle)
    vertices = path[:, None] + ring * radii[:, None, None]
    caps = np.stack([path[0], path[-1]])
    faces = _grid_faces(len(path), segments)
    first, end = np.full(segments, len(path) * segments), (len(path) - 1) * segments
    start = np.arange(segments)
    following = (start + 1) % segments
    front = np.stack([first, following, start], axis=-1)
    back = np.stack([first + 1, end + start, end + following], axis=-1)
    return Mesh(
        np.concatenate([vertices.reshape(-1, 3), caps]), np.concatenate([faces, front, back])
    )


def arc(radius: float, start: float, stop: float, points: int = 14) -> np.ndarray:
    """Points (N,3) on a circle in the x-y plane, angles in radians."""
    angle = np.linspace(start, stop, points)
    return np.stack([radius * cos(angle), radius * sin(angle), 0 * angle], axis=-1)


def prism(outline: list[tuple[float, float]], thickness: float) -> Mesh:
    """A flat body with a convex outline (counter-clockwise) in the x-y plane, centred in z."""
    flat = np.array(outline, dtype=float)
    count = len(flat)
    bottom = np.column_stack([flat, np.full(count, -thickness / 2)])
    top = np.column_stack([flat, np.full(count, thickness / 2)])
    fan = np.array([(0, i, i + 1) for i in range(1, count - 1)])
    start = np.arange(count)
    following = (start + 1) % count
    lower = np.stack([start, following, following + count], axis=-1)
    upper = np.stack([start, following + count, start + count], axis=-1)
    faces = np.concatenate([fan[:, ::-1], fan + count, lower, upper])
    return Mesh(np.concatenate([bottom, top]), faces)
