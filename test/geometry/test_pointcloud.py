"""Clouds as the bytes of a PointCloud2."""

import numpy as np
import pytest

from lisa_ros.geometry import XYZRGB, colors_at, pack


def test_a_packed_point_is_sixteen_bytes_that_viewers_understand():
    points = np.array([[1.5, -2.0, 0.25], [0.0, 0.5, 3.0]])
    packed = pack(points, np.array([[255, 128, 3], [0, 0, 1]], np.uint8))
    assert packed.dtype == XYZRGB
    assert packed.itemsize == 16
    raw = packed.tobytes()
    assert np.frombuffer(raw[:12], "<f4") == pytest.approx([1.5, -2.0, 0.25])
    assert list(raw[12:16]) == [3, 128, 255, 0]  # little endian: blue, green, red
    assert list(raw[28:32]) == [1, 0, 0, 0]
    assert pack(np.zeros((0, 3)), np.zeros((0, 3), np.uint8)).tobytes() == b""


@pytest.mark.parametrize("scale", [1, 2, 0.5])
def test_colours_come_from_the_same_place_of_an_image_of_another_size(scale):
    height, width = int(60 * scale), int(80 * scale)
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = (np.arange(width) / scale)[None]
    rgb[..., 1] = (np.arange(height) / scale)[:, None]
    columns, rows = np.meshgrid(np.arange(80), np.arange(60))
    pixels = np.stack([columns.ravel(), rows.ravel()], axis=1)
    colors = colors_at(rgb, pixels, (60, 80))
    assert np.abs(colors[:, 0].astype(int) - pixels[:, 0]).max() <= 1
    assert np.abs(colors[:, 1].astype(int) - pixels[:, 1]).max() <= 1
