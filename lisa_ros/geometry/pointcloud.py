"""Clouds as bytes: the layout of a PointCloud2 with colours."""

from __future__ import annotations

import numpy as np

# What RViz and PCL know as XYZRGB: colour as 0x00rrggbb in the bits of a float32.
XYZRGB = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4")])


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
