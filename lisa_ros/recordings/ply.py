"""Clouds as PLY files, which every viewer reads."""

from __future__ import annotations

import numpy as np

VERTEX = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("green", "u1"), ("blue", "u1")]
)


def ply(points: np.ndarray, colors: np.ndarray) -> bytes:
    """A binary PLY file of points (N,3) in metres and colours uint8 (N,3)."""
    names = {"<f4": "float", "|u1": "uchar"}
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {names[VERTEX[name].str]} {name}" for name in VERTEX.names]
    vertices = np.empty(len(points), VERTEX)
    for name, column in zip(VERTEX.names, [*points.T, *colors.T], strict=True):
        vertices[name] = column
    return "\n".join([*header, "end_header\n"]).encode() + vertices.tobytes()
