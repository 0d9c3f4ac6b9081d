"""Which points hang together, and clouds as the bytes of a PointCloud2."""

from itertools import product

import numpy as np
import pytest

from lisa_ros.geometry import XYZRGB, colors_at, pack
from lisa_ros.geometry.pointcloud import connected_components, object_components

GAP = 0.015
STEPS = [step for step in product((-1, 0, 1), repeat=3) if any(step)]


@pytest.mark.parametrize("step", STEPS)
def test_points_of_neighbouring_cubes_hang_together_and_others_do_not(step):
    """Over faces, edges and corners, on every side."""
    near = (np.array(step) + 0.25) * GAP
    far = np.array(step) * 4 * GAP
    first = np.zeros(3)
    assert connected_components(np.array([first, near]), GAP).tolist() == [0, 0]
    assert len(set(connected_components(np.array([first, far]), GAP))) == 2
    chain = np.array([n * np.array(step) * GAP / 2 for n in range(40)])
    assert not connected_components(chain, GAP).any()


def cube(center, count=600, half=0.03, seed=0):
    return np.random.default_rng(seed).uniform(-half, half, (count, 3)) + center


def test_a_cut_off_part_beside_the_object_is_its_own_and_what_lies_behind_is_not():
    whole, beside = cube([0, 0, 0.6]), cube([0.12, 0, 0.6], 150)
    behind, stray = cube([0, 0.12, 0.8], 150), cube([-0.2, 0, 0.6], 40, 0.01)
    parts = (whole, beside, behind, stray)
    keep = object_components(np.concatenate(parts), 0.03)
    owner = np.repeat(range(len(parts)), [len(part) for part in parts])
    assert [bool(keep[owner == n].all()) for n in range(4)] == [True, True, False, False]
    assert not keep[owner >= 2].any()


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
