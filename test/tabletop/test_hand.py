"""The simulated gripper: what it can hold, and that it changes nothing of the scene."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

from pick_scenes import seen

from lisa_tabletop.pick.scene import FIRST_SEED, PickScene
from lisa_tabletop.world.hand import GRIPPER, add_hand
from lisa_tabletop.world.kinds import KINDS
from lisa_tabletop.world.tabletop import COLLISION_GROUP, Tabletop

TOO_BIG = {"bowl", "plate", "book", "box", "tray", "pot", "teapot"}


def test_the_hand_changes_nothing_of_what_is_drawn() -> None:
    for seed in (1, 2, 3):
        plain, extended = Tabletop(seed), Tabletop(seed, extend=add_hand)
        for one, other in zip(plain.items, extended.items, strict=True):
            assert (one.kind, one.color) == (other.kind, other.color)
            size, again = (
                plain.model.geom_rbound[one.geoms],
                extended.model.geom_rbound[other.geoms],
            )
            assert np.allclose(size, again)
            colors = plain.model.geom_rgba[one.geoms], extended.model.geom_rgba[other.geoms]
            assert np.array_equal(*colors)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_rest_alike_on_fine_and_on_coarse_colliders(kind: str) -> None:
    for seed in (4, 5):
        plain = Tabletop(seed, kinds=(kind,), count=(1, 1))
        extended = Tabletop(seed, kinds=(kind,), count=(1, 1), extend=add_hand)
        one, other = plain.points(plain.items[0]), extended.points(extended.items[0])
        assert np.abs(one - other).max() < 0.006, "its image would be another one"


def test_what_is_too_big_for_the_gripper_and_what_is_not() -> None:
    for kind in KINDS:
        scene = PickScene(6, uncluttered=True)
        scene.table = Tabletop(6, kinds=(kind,), count=(1, 1), extend=add_hand)
        assert scene.can_be_held(scene.table.items[0]) == (kind not in TOO_BIG), kind


def test_the_hand_reaches_poses_and_is_not_seen_by_the_camera() -> None:
    scene = PickScene(FIRST_SEED, uncluttered=True)
    view = seen(scene)
    hand = scene.hand
    hand_geoms = {
        geom
        for geom in range(scene.table.model.ngeom)
        if scene.table.model.body(scene.table.model.geom_bodyid[geom]).name
        in ("hand", "finger", "other_finger")
    }
    assert hand_geoms
    pose = np.linalg.inv(view.camera_pose)
    for geom in hand_geoms:
        place = pose[:3, :3] @ scene.table.data.geom_xpos[geom] + pose[:3, 3]
        u, v, depth = view.intrinsics @ place
        inside = depth > 0 and 0 <= u / depth < 640 and 0 <= v / depth < 480
        assert not inside, "the parked hand hides what the camera should see"
    hand.move(np.array([0.1, -0.1, 0.40]), 0.5)
    hand.wait(0.1)
    assert np.allclose(hand.position, [0.1, -0.1, 0.40], atol=0.002)
    hand.grip(0.0, 0.4)
    assert scene.table.data.joint("finger").qpos < 0.002
    assert scene.table.data.joint("other_finger").qpos < 0.002


def test_the_fingers_need_their_clearance_on_both_sides() -> None:
    scene = PickScene(6, uncluttered=True)
    scene.table = Tabletop(6, kinds=("ball",), count=(1, 1), extend=add_hand)
    ball, model = scene.table.items[0], scene.table.model
    collider = (model.geom_bodyid == ball.body) & (model.geom_group == COLLISION_GROUP)
    room = GRIPPER.opening - 2 * GRIPPER.clearance
    for width, fits in ((room - 0.002, True), (room + 0.002, False), (GRIPPER.opening, False)):
        model.geom_size[collider] = width / 2
        assert scene.can_be_held(ball) is fits, width
