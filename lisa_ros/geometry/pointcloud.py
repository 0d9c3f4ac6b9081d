"""Clouds as bytes: PointCloud2 with colours, and PLY files, which every viewer reads."""

from __future__ import annotations

import numpy as np

# What RViz and PCL know as XYZRGB: colour as 0x00rrggbb in the bits of a float32.
XYZRGB = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4")])
PLY_COLUMNS = {"x": "<f4", "y": "<f4", "z": "<f4", "red": "u1", "green": "u1", "blue": "u1"}
PLY_NAMES = {"<f4": "float", "u1": "uchar"}


def pack(points: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """A structured array (N,) of dtype `XYZRGB`; its bytes are the data of a PointCloud2.

    Args:
        points: (N,3) metres.
        colors: uint8 (N,3) RGB.
    """
    packed = np.empty(len(points), XYZRGB)
    for index, name in enumerate("xyz"):
        packed[name] = points[:, index]
    red, green, blue = colors.astype(np.uint32).T
    packed["rgb"] = (red << 16 | green << 8 | blue).view(np.float32)
    return packed


def colors_at(rgb: np.ndarray, pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The colours uint8 (N,3) of depth pixels, from a colour image of the same view.

    Args:
        rgb: uint8 (H,W,3).
        pixels: int (N,2), column and row in the depth image.
        shape: (H',W') of the depth image.
    """
    rows = (2 * pixels[:, 1] + 1) * rgb.shape[0] // (2 * shape[0])
    columns = (2 * pixels[:, 0] + 1) * rgb.shape[1] // (2 * shape[1])
    return rgb[rows, columns]


def ply(points: np.ndarray, colors: np.ndarray) -> bytes:
    """A binary PLY file of points (N,3) in metres and colours uint8 (N,3)."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {PLY_NAMES[kind]} {name}" for name, kind in PLY_COLUMNS.items()]
    vertices = np.empty(len(points), list(PLY_COLUMNS.items()))
    for name, column in zip(PLY_COLUMNS, [*points.T, *colors.T], strict=True):
        vertices[name] = column
    return "\n".join([*header, "end_header\n"]).encode() + vertices.tobytes()
