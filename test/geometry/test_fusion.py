"""Several views of one object: what they agree on, and what it is worth if they do not."""

import numpy as np
import pytest
from geometry_scenes import CAMERA, Cuboid, Ground, looking, noisy, render

from lisa_ros.geometry import Intrinsics, Sighting, fuse, locate, rigid
from lisa_ros.geometry.fusion import _Witness

UP = np.array([0.0, 0.0, 1.0])
THING = Cuboid(
    np.array([0.0, 0.0, 0.06]), rigid([0] * 3, [0, 0, 0.3, 1])[:3, :3], np.array([0.12, 0.08, 0.12])
)
OTHER = Cuboid(np.array([0.02, 0.16, 0.04]), np.eye(3), np.array([0.06, 0.06, 0.08]))
TABLE = Ground(UP, 0.0)
EYES = np.array([[0.5, 0.0, 0.4], [-0.3, 0.45, 0.4], [-0.3, -0.45, 0.4], [0.0, -0.5, 0.45]])


def view(eye: np.ndarray, shape: int = 0) -> Sighting:
    pose = looking(eye, np.array([0.0, 0.0, 0.04]))
    depth, seen = render([THING, OTHER, TABLE], pose=pose)
    return Sighting(seen == shape, depth, CAMERA, pose)


VIEWS = [view(eye) for eye in EYES]


def is_the_thing(found, tolerance: float = 0.03) -> bool:
    # A cloud of cubes ends where the means of its outermost cubes lie, up to half a cube too early.
    size = np.allclose(np.sort(found.box.size), np.sort(THING.size), rtol=tolerance, atol=0.0025)
    return size and bool(np.linalg.norm(found.box.center - THING.center) < 0.003)


def test_views_from_all_around_give_the_whole_object():
    found = fuse(VIEWS, up=[0, 0, 1])
    assert found.reason == ""
    assert is_the_thing(found)
    assert found.views == 4
    assert found.agreement > 0.97
    assert found.viewpoints == pytest.approx(EYES)
    assert found.support.height(np.zeros((1, 3))) == pytest.approx([0], abs=0.002)
    # Points lie on the surface and on all sides of it, which no single view shows.
    local = (found.points - THING.center) @ THING.rotation / (THING.size / 2)
    assert np.abs(np.abs(local).max(axis=1) - 1).max() < 0.12
    for axis in (0, 1):
        assert (local[:, axis] < -0.9).sum() > 30
        assert (local[:, axis] > 0.9).sum() > 30
    assert found.centroid[:2] == pytest.approx([0, 0], abs=0.005)


def test_a_single_view_is_that_view_in_the_common_frame():
    found = fuse(VIEWS[:1], up=UP)
    alone = locate(
        VIEWS[0].mask, VIEWS[0].depth, CAMERA, up=VIEWS[0].pose[:3, :3].T @ UP
    ).transformed(VIEWS[0].pose)
    assert (found.views, found.agreement) == (1, 1.0)
    assert found.box.center == pytest.approx(alone.box.center, abs=0.003)


def test_without_up_the_box_is_free_and_still_right():
    found = fuse(VIEWS)
    assert not found.box.upright
    assert np.sort(found.box.size) == pytest.approx(np.sort(THING.size), abs=0.005)


def test_a_view_that_masked_another_thing_lowers_the_agreement_and_is_outvoted():
    found = fuse([*VIEWS[:3], view(EYES[3], shape=1)], up=UP)
    assert is_the_thing(found)
    assert found.views == 4
    assert 0.6 < found.agreement < 0.9


def test_a_view_that_did_not_find_the_object_speaks_against_it():
    blank = Sighting(np.zeros_like(VIEWS[3].mask), VIEWS[3].depth, CAMERA, VIEWS[3].pose)
    found = fuse([*VIEWS[:3], blank], up=UP)
    assert is_the_thing(found)
    assert 0.6 < found.agreement < 0.9
    nothing = fuse([blank, blank])
    assert nothing.box is None
    assert "found in none" in nothing.reason


def test_views_that_contradict_each_other_give_no_object():
    found = fuse([view(EYES[0]), view(EYES[0], shape=1)], up=UP)
    assert found.box is None
    assert found.agreement == 0
    assert "disagree" in found.reason


def test_wrong_poses_lower_the_agreement():
    off = VIEWS[1].pose.copy()
    off[:3, 3] += [0.05, 0.03, 0.0]
    wrong = Sighting(VIEWS[1].mask, VIEWS[1].depth, CAMERA, off)
    assert fuse([VIEWS[0], wrong, VIEWS[2]], up=UP).agreement < 0.93


def test_views_without_depth_are_left_out_and_not_counted():
    blind = Sighting(VIEWS[1].mask, np.zeros_like(VIEWS[1].depth), CAMERA, VIEWS[1].pose)
    found = fuse([VIEWS[0], blind, VIEWS[2]], up=UP)
    assert found.views == 2
    assert found.agreement > 0.95
    nothing = fuse([blind])
    assert "view 1: the depth image holds no measurement" in nothing.reason
    assert (nothing.box, nothing.views) == (None, 0)


@pytest.mark.parametrize(
    "pose",
    [
        np.zeros((4, 4)),
        2 * np.eye(4),
        np.eye(3),
        np.full((4, 4), np.nan),
        VIEWS[0].pose @ np.diag([-1.0, 1, 1, 1]),  # left-handed
        VIEWS[0].pose + np.outer([0, 0, 0, 1], [0.1, 0, 0, 0]),
        VIEWS[0].pose + np.outer([1, 0, 0, 0], [0, 0.1, 0, 0]),  # skewed
    ],
)
def test_a_pose_that_is_none_is_named(pose):
    bad = Sighting(VIEWS[0].mask, VIEWS[0].depth, CAMERA, pose)
    assert "view 1: its pose" in fuse([bad]).reason
    assert fuse([VIEWS[0], bad], up=UP).views == 1


def test_noise_and_a_mask_of_another_size():
    larger = Intrinsics(800, 600, 1100.0, 1104.0, 402.5, 296.5)
    views = []
    for number, eye in enumerate(EYES):
        pose = looking(eye, np.array([0.0, 0.0, 0.04]))
        depth, _ = render([THING, OTHER, TABLE], pose=pose)
        _, seen = render([THING, OTHER, TABLE], larger, pose)
        views.append(Sighting(seen == 0, noisy(depth, number), larger, pose))
    found = fuse(views, up=UP)
    assert found.agreement > 0.95
    assert np.sort(found.box.size) == pytest.approx(np.sort(THING.size), abs=0.004)
    assert np.linalg.norm(found.box.center - THING.center) < 0.003
    outside = np.abs((found.points - THING.center) @ THING.rotation) - THING.size / 2
    assert outside.max() < 0.004, "pixels that hang in the air are no part of the object"


@pytest.mark.parametrize(("error", "agrees"), [(0.002, True), (0.03, False)])
def test_a_view_that_measures_the_surface_elsewhere_does_not_agree(error, agrees):
    """Depth that is 3 cm too long sees through the object of the others."""
    one = VIEWS[1]
    off = Sighting(one.mask, one.depth + np.float32(error), CAMERA, one.pose)
    found = fuse([VIEWS[0], off, VIEWS[2]], up=UP)
    assert (found.agreement > 0.95) == agrees


def test_a_view_says_nothing_about_places_that_it_does_not_see():
    """Beside its image, behind the camera and behind what it sees."""
    depth, mask = np.full((300, 400), 0.8, np.float32), np.zeros((300, 400), bool)
    mask[100:200, 150:250] = True
    witness = _Witness(Sighting(mask, depth, CAMERA, np.eye(4)))

    def vote(column: float, row: float, z: float) -> int:
        x, y = (column - CAMERA.cx) / CAMERA.fx * z, (row - CAMERA.cy) / CAMERA.fy * z
        return int(witness.votes(np.array([[x, y, z]]), 0.005)[0])

    assert vote(200, 150, 0.8) == 1
    assert [vote(20, 150, 0.8), vote(200, 150, 0.4)] == [-1, -1], "another thing, and air"
    assert vote(200, 150, 1.2) == 0
    for column, row in ((-2, 150), (-40, 150), (402, 150), (200, -2), (200, -40), (200, 302)):
        assert vote(column, row, 0.8) == vote(column, row, 0.4) == 0, (column, row)
    assert vote(200, 150, -0.8) == 0
    assert vote(0, 0, 0.4) == vote(399, 299, 0.4) == -1
