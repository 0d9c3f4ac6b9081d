"""Which points hang together."""

from itertools import product

import numpy as np
import pytest

from lisa_ros.geometry.clustering import connected_components, object_components

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
