"""Grasp candidates: what a gripper and a suction cup could do with an object on a table."""

from dataclasses import replace

import numpy as np
import pytest
from geometry_scenes import CAMERA, Cuboid, Ground, Sphere, Tabletop, noisy, on_table, render

from lisa_ros.geometry import (
    Box,
    Gripper,
    Object3D,
    Plane,
    cloud,
    locate,
    parallel_grasps,
    rigid,
    suction_grasps,
    without_object,
)
from lisa_ros.geometry.grasp import _tilt


def place(
    scene: Tabletop, up: str | np.ndarray | None = "support", seed: int | None = None
) -> Object3D:
    depth, seen = render([scene.thing, scene.table])
    return locate(seen == 0, depth if seed is None else noisy(depth, seed), CAMERA, up=up)


def local(pose: np.ndarray, thing: Cuboid) -> tuple[np.ndarray, np.ndarray]:
    """Origin and axes (columns) of a pose in the axes of a cuboid."""
    return thing.rotation.T @ (pose[:3, 3] - thing.center), thing.rotation.T @ pose[:3, :3]


@pytest.mark.parametrize("size", [(0.12, 0.05, 0.03), (0.05, 0.1, 0.1), (0.06, 0.06, 0.14)])
@pytest.mark.parametrize("seed", [None, 1])
def test_the_best_grasp_comes_from_above_and_closes_on_the_short_side(size, seed):
    scene = on_table(size)
    best = parallel_grasps(place(scene, seed=seed))[0]
    origin, axes = local(best.pose, scene.thing)
    short = int(np.argmin(size[:2])) if size[0] != size[1] else int(np.abs(axes[:2, 1]).argmax())
    assert best.kind == "top"
    assert axes[:, 2] == pytest.approx([0, 0, -1], abs=0.03)
    assert abs(axes[short, 1]) > np.cos(np.deg2rad(3))
    assert best.width == pytest.approx(size[short], abs=0.004)
    assert origin[:2] == pytest.approx([0, 0], abs=0.004)
    # The fingertips are as deep as they get, and above the table.
    depth = min(0.04, size[2] - 0.003)
    assert origin[2] == pytest.approx(size[2] / 2 - depth, abs=0.004)
    assert best.pose[:3, 3] @ scene.up - scene.table.offset >= 0.0025


@pytest.mark.parametrize("up", ["support", None])
@pytest.mark.parametrize("size", [(0.15, 0.06, 0.04), (0.07, 0.05, 0.13), (0.03, 0.02, 0.012)])
def test_every_candidate_keeps_the_promises_of_its_gripper(size, up):
    scene = on_table(size)
    gripper = Gripper(opening=0.09, clearance=0.004)
    found = place(scene, up)
    grasps = parallel_grasps(found, gripper)
    assert grasps
    assert [one.score for one in grasps] == sorted((one.score for one in grasps), reverse=True)
    for one in grasps:
        assert 0 < one.score <= 1
        assert one.width + 2 * gripper.clearance <= gripper.opening
        assert one.pose[:3, :3].T @ one.pose[:3, :3] == pytest.approx(np.eye(3), abs=1e-6)
        assert np.linalg.det(one.pose[:3, :3]) == pytest.approx(1)
        inside = (found.points - one.pose[:3, 3]) @ one.pose[:3, :3]
        between = (np.abs(inside[:, 0]) < gripper.finger_width / 2) & (inside[:, 2] <= 0)
        assert between.any()
        # Of a large cloud only a part is looked at, so a millimetre or two may be missed.
        assert np.abs(inside[between, 1]).max() <= one.width / 2 + 0.0025
        assert inside[between, 2].min() >= -gripper.finger_length - 0.0025
        assert one.kind in (("top", "side") if up else ("front",))
    toward = [one.pose[:3, 2] @ scene.thing.center for one in grasps if one.kind != "top"]
    assert all(value > 0 for value in toward), "a hand would come from where no camera looked"


def test_what_is_wider_than_the_opening_cannot_be_held():
    found = place(on_table((0.12, 0.1, 0.1)))
    assert parallel_grasps(found) == []
    assert parallel_grasps(found, Gripper(opening=0.14))


@pytest.mark.parametrize(("height", "held"), [(0.006, False), (0.009, True)])
def test_fingers_need_a_few_millimetres_to_hold(height, held):
    """Above the table by their clearance of 3 mm, they hold the upper 3 mm, or 6."""
    assert bool(parallel_grasps(place(on_table((0.06, 0.03, height))))) == held


def test_a_low_thing_is_not_approached_from_the_side():
    kinds = {one.kind for one in parallel_grasps(place(on_table((0.12, 0.05, 0.04))))}
    assert kinds == {"top"}
    tall = {one.kind for one in parallel_grasps(place(on_table((0.05, 0.05, 0.14), elevation=0.4)))}
    assert tall == {"top", "side"}


def test_grasping_at_the_middle_is_worth_more_than_at_the_end():
    scene = on_table((0.16, 0.04, 0.04), yaw=0.0)
    grasps = [one for one in parallel_grasps(place(scene)) if one.kind == "top"]
    along = [abs(local(one.pose, scene.thing)[0][0]) for one in grasps]
    assert along[0] < 0.005
    assert max(along) > 0.05
    assert grasps[int(np.argmax(along))].score < 0.7 * grasps[0].score


def test_slanted_sides_slip():
    """A wedge seen from above: fingers that close across the slant have no hold."""
    scene = on_table((0.1, 0.05, 0.04), yaw=0.0, elevation=1.2)
    depth, seen = render([scene.thing, scene.table])
    found = locate(seen == 0, depth, CAMERA, up=scene.up)
    inside = (found.points - scene.thing.center) @ scene.thing.rotation
    half = 0.025 * (0.05 - inside[:, 0]) / 0.1  # from 2.5 cm at one end to nothing at the other
    steep = np.abs(inside[:, 1]) < 4 * half
    wedge = locate_again(found, np.abs(inside[:, 1]) < half)
    blunt = locate_again(found, steep)
    assert parallel_grasps(wedge)[0].score < parallel_grasps(blunt)[0].score


@pytest.mark.parametrize("slope", [-0.4, 0.0, 0.2, 0.45])
def test_the_tilt_is_the_tangent_of_the_steeper_side(slope):
    x = np.repeat(np.linspace(-0.0199, 0.0199, 200), 3)
    sides = np.stack([x + 0.3, 0.02 + slope * x, 0 * x], axis=1)
    others = np.stack([x + 0.3, -0.02 + slope / 3 * x, 0 * x], axis=1)
    points = np.concatenate([sides, others])
    assert _tilt(points, 0.3, 0.02) == pytest.approx(abs(slope), abs=0.01)


def locate_again(found: Object3D, keep: np.ndarray) -> Object3D:
    return replace(found, points=found.points[keep])


def test_neighbours_block_the_fingers():
    scene = on_table((0.12, 0.04, 0.06), yaw=0.0)
    side = scene.thing.rotation[:, 1]
    walls = [
        Cuboid(
            scene.thing.center + sign * 0.035 * side - 0.01 * scene.up,
            scene.thing.rotation,
            np.array([0.12, 0.02, 0.04]),
        )
        for sign in (1, -1)
    ]
    depth, seen = render([scene.thing, scene.table, *walls])
    found = locate(seen == 0, depth, CAMERA, up=scene.up)
    rest, _ = cloud(without_object(depth, seen == 0), CAMERA)

    def across(grasps):
        return [one for one in grasps if abs(one.pose[:3, 1] @ side) > 0.9 and one.kind == "top"]

    assert across(parallel_grasps(found))
    assert not across(parallel_grasps(found, obstacles=rest))
    open_depth, open_seen = render([scene.thing, scene.table])
    free, _ = cloud(without_object(open_depth, open_seen == 0), CAMERA)
    alone = locate(open_seen == 0, open_depth, CAMERA, up=scene.up)
    assert across(parallel_grasps(alone, obstacles=free)), "the table is no obstacle"


def test_grasps_move_with_the_object():
    found = place(on_table((0.12, 0.05, 0.05)))
    pose = rigid([1, 2, 3], [0.1, 0.7, -0.2, 0.6])
    here, there = parallel_grasps(found), parallel_grasps(found.transformed(pose))
    best = pose @ here[0].pose
    near = [
        one
        for one in there
        if np.linalg.norm(one.pose[:3, 3] - best[:3, 3]) < 0.002
        and one.score == pytest.approx(here[0].score, abs=0.02)
    ]
    assert near
    assert all(abs(one.pose[:3, 2] @ best[:3, 2]) > 0.999 for one in near)


@pytest.mark.parametrize("seed", [None, 2])
def test_the_cup_goes_on_the_middle_of_the_top(seed):
    scene = on_table((0.12, 0.08, 0.05))
    grasps = suction_grasps(place(scene, seed=seed))
    origin, axes = local(grasps[0].pose, scene.thing)
    assert grasps[0].kind == "suction" and len(grasps) == 10, "as many as are wanted"
    assert axes[:, 2] == pytest.approx([0, 0, -1], abs=0.06)
    assert origin == pytest.approx([0, 0, 0.025], abs=0.02)
    assert grasps[0].score > 0.6
    for one in grasps:
        where, turned = local(one.pose, scene.thing)
        assert np.linalg.det(turned) == pytest.approx(1)
        # The whole cup is on a face, and presses against it.
        over = np.abs(where) - scene.thing.size / 2
        face = int(over.argmax())
        assert abs(over[face]) < 0.002
        assert -np.sign(where[face]) * turned[face, 2] > 0.9
        assert (np.delete(over, face) < -0.004).all()
    places = np.array([one.pose[:3, 3] for one in grasps])
    gaps = np.linalg.norm(places[:, None] - places[None], axis=-1)
    assert gaps[~np.eye(len(places), dtype=bool)].min() >= 0.01


def test_a_cup_needs_surface_all_around():
    """A flat strip, seen from the front, is narrower than the cup; a wider one is not."""
    scores = []
    for width in (0.015, 0.06):
        strip = Cuboid(np.array([0.0, 0.0, 0.6]), np.eye(3), np.array([0.15, width, 0.002]))
        depth, seen = render([strip, Ground(np.array([0.0, 0.0, -1.0]), -0.9)])
        found = suction_grasps(locate(seen == 0, depth, CAMERA), diameter=0.03)
        scores.append(max((one.score for one in found), default=0))
        for one in found:  # nor does it hang over an end
            assert abs(one.pose[0, 3]) < 0.075 - 0.004
    assert scores[0] < 0.2
    assert scores[1] > 0.7


def test_a_cup_does_not_seal_on_what_is_too_small_or_too_round():
    assert suction_grasps(place(on_table((0.12, 0.012, 0.012))), diameter=0.03) == []
    ball = Sphere(np.array([0.0, 0.0, 0.5]), 0.02)
    depth, seen = render([ball, Ground(np.array([0.0, 0.0, -1.0]), -0.52)])
    found = locate(seen == 0, depth, CAMERA)
    scores = [one.score for one in suction_grasps(found, diameter=0.03)]
    assert max(scores, default=0) < 0.3
    large = Sphere(np.array([0.0, 0.0, 0.6]), 0.1)
    depth, seen = render([large, Ground(np.array([0.0, 0.0, -1.0]), -0.7)])
    best = suction_grasps(locate(seen == 0, depth, CAMERA))[0]
    assert best.pose[:3, 2] @ (large.center - best.pose[:3, 3]) == pytest.approx(0.1, abs=0.002)
    assert best.score > 0.5


def half_cylinder(
    radius: float = 0.025, length: float = 0.12, up: bool = True
) -> tuple[np.ndarray, Box]:
    """A bottle that lies along x under z = up, of which a camera sees what faces -y and +z."""
    x, angle = np.meshgrid(np.linspace(-length / 2, length / 2, 60), np.linspace(-1.2, 0.45, 60))
    y, z = radius * np.sin(angle), radius * np.cos(angle) + radius
    points = np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1).astype(np.float32)
    box = Box(np.array([0, 0, radius]), np.eye(3), np.array([length, 2 * radius, 2 * radius]), True)
    return points, box


@pytest.mark.parametrize("sides", [(-1,), (1,), (-1, 1)])
def test_the_side_that_no_camera_saw_is_as_far_away_as_the_one_that_was_seen(sides):
    points, box = half_cylinder()
    points[:, 1] *= -sides[0]
    eyes = np.array([[0.0, 0.5 * side, 0.4] for side in sides])
    found = Object3D(points=points, centroid=points.mean(0), box=box, up=box.rotation[:, 2])
    best = parallel_grasps(replace(found, viewpoints=eyes))[0]
    assert best.kind == "top" and abs(best.pose[1, 1]) > 0.99
    seen = float(np.ptp(points[:, 1]))
    if len(sides) == 1:
        assert best.width == pytest.approx(2 * np.abs(points[:, 1]).max(), abs=0.002)
        assert best.pose[1, 3] == pytest.approx(0, abs=0.001)
    else:  # both were looked at, so nothing is hidden
        assert best.width == pytest.approx(seen, abs=0.002)


@pytest.mark.parametrize("thickness", [0.005, 0.015])
def test_the_fingers_thickness_needs_room_too(thickness):
    """A post beside the open hand: thin fingers pass it, thick ones do not."""
    points, box = half_cylinder()
    found = Object3D(points=points, centroid=points.mean(0), box=box, up=box.rotation[:, 2])
    found = replace(found, viewpoints=np.array([[0.0, -0.5, 0.4]]))
    gripper = Gripper(finger_thickness=thickness)
    heights = np.linspace(0, 0.06, 20)
    x = np.linspace(-0.06, 0.06, 60)
    away = gripper.opening / 2 + 0.010
    post = np.stack([np.repeat(x, 20), np.full(1200, away), np.tile(heights, 60)], axis=1)
    free = [one for one in parallel_grasps(found, gripper) if one.kind == "top"]
    beside = [one for one in parallel_grasps(found, gripper, post) if one.kind == "top"]
    assert free and bool(beside) == (thickness < 0.010)


def test_an_obstacle_blocks_where_a_finger_goes_and_nowhere_else():
    points, box = half_cylinder()
    found = Object3D(points=points, centroid=points.mean(0), box=box, up=box.rotation[:, 2])
    found = replace(found, viewpoints=np.array([[0.0, -0.5, 0.4]]))
    whole = len(parallel_grasps(found))

    def lost(x, y, z, count=10):
        obstacle = np.random.default_rng(0).uniform(-0.001, 0.001, (count, 3))
        obstacle += np.array([x, y, z])
        return whole - len(parallel_grasps(found, obstacles=obstacle))

    assert lost(0, 0.03, 0.03) > 0, "beside the middle"
    assert lost(0, -0.03, 0.03) > 0
    assert lost(0, 0.03, 0.03, count=2) == 0, "two stray points"
    assert lost(0, 0.0, 0.03) == 0, "within the object"
    assert lost(0, 0.03, 0.2) == 0, "above the hand"
    assert lost(0.2, 0.03, 0.03) == 0, "beyond its end"


@pytest.mark.parametrize("height", [0.0, 0.02])
def test_the_hand_stays_above_the_support_by_its_clearance(height):
    """As deep as the object reaches, but not into what it stands on."""
    points, box = half_cylinder()
    plane = Plane(np.array([0.0, 0, 1]), -height, 0.0)
    found = Object3D(
        points=points, centroid=points.mean(0), box=box, support=plane, up=box.rotation[:, 2]
    )
    found = replace(found, viewpoints=np.array([[0.0, -0.5, 0.2]]))
    gripper = Gripper(clearance=0.004, hand_width=0.08, finger_length=0.1)
    grasps = parallel_grasps(found, gripper)
    lowest = min(one.pose[2, 3] + height for one in grasps if one.kind == "top")
    assert lowest == pytest.approx(max(0.004, height), abs=1e-3) and lowest >= 0.004 - 1e-6


@pytest.mark.parametrize(("clearance", "fits"), [(0.001, True), (0.003, False)])
def test_air_must_stay_on_each_side_of_the_object(clearance, fits):
    """What is seen of it makes it 77 mm wide, between fingers that open 80 mm."""
    points, box = half_cylinder(radius=0.0413)
    found = Object3D(points=points, centroid=points.mean(0), box=box, up=box.rotation[:, 2])
    found = replace(found, viewpoints=np.array([[0.0, -0.5, 0.4]]))
    grasps = parallel_grasps(found, Gripper(clearance=clearance))
    assert any(one.kind == "top" for one in grasps) == fits
