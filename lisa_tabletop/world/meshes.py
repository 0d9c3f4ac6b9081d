"""Triangle meshes of the object builders: surfaces of revolution, tubes and prisms."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
    x = np.outer(np.maximum(radius, 1e-5), np.cos(angle))
    y = np.outer(np.maximum(radius, 1e-5), np.sin(angle))
    z = np.repeat(height[:, None], segments, axis=1)
    vertices = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    return Mesh(vertices, _grid_faces(len(radius), segments))


def tube(path: np.ndarray, radii: np.ndarray, segments: int = 12, flatten: float = 1.0) -> Mesh:
    """A tube of varying radius along a path (N,3) in the x-y plane; `flatten` scales it in z."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    up = np.array([0.0, 0.0, 1.0])
    side = np.cross(up, tangent)
    angle = np.linspace(0, 2 * np.pi, segments, endpoint=False)
    ring = (
        side[:, None] * np.cos(angle)[None, :, None]
        + flatten * up[None, None] * np.sin(angle)[None, :, None]
    )
    vertices = path[:, None] + ring * radii[:, None, None]
    caps = np.stack([path[0], path[-1]])
    faces = _grid_faces(len(path), segments)
    first, last = len(path) * segments, len(path) * segments + 1
    start = np.arange(segments)
    following = (start + 1) % segments
    end = (len(path) - 1) * segments
    faces = np.concatenate(
        [
            faces,
            np.stack([np.full(segments, first), following, start], axis=-1),
            np.stack([np.full(segments, last), end + start, end + following], axis=-1),
        ]
    )
    return Mesh(np.concatenate([vertices.reshape(-1, 3), caps]), faces)


def arc(radius: float, start: float, stop: float, points: int = 14) -> np.ndarray:
    """Points (N,3) on a circle in the x-y plane, angles in radians."""
    angle = np.linspace(start, stop, points)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=-1)


def prism(outline: list[tuple[float, float]], thickness: float) -> Mesh:
    """A flat body with a convex outline (counter-clockwise) in the x-y plane, centred in z."""
    flat = np.array(outline, dtype=float)
    count = len(flat)
    bottom = np.column_stack([flat, np.full(count, -thickness / 2)])
    top = np.column_stack([flat, np.full(count, thickness / 2)])
    fan = np.array([(0, i, i + 1) for i in range(1, count - 1)])
    start = np.arange(count)
    following = (start + 1) % count
    sides = np.concatenate(
        [
            np.stack([start, following, following + count], axis=-1),
            np.stack([start, following + count, start + count], axis=-1),
        ]
    )
    return Mesh(np.concatenate([bottom, top]), np.concatenate([fan[:, ::-1], fan + count, sides]))
