"""The object behind a mask, held against scenes whose geometry is known exactly."""

import numpy as np
import pytest
from geometry_scenes import CAMERA, Cuboid, Ground, Sphere, noisy, on_table, render, sight
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st

from lisa_ros.geometry import Intrinsics, Object3D, locate, quaternion, rigid, transform_points
from lisa_ros.geometry.depth import fit_mask, visible_fraction
from lisa_ros.geometry.object3d import make_box
from lisa_ros.geometry.pointcloud import Plane

pytestmark = pytest.mark.filterwarnings("error")
few = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


def number(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False)


@st.composite
def rotations(draw: st.DrawFn) -> np.ndarray:
    seed = draw(st.integers(0, 10_000))
    return rigid([0, 0, 0], np.random.default_rng(seed).normal(size=4))[:3, :3]


places = st.builds(
    lambda x, y, z: np.array([x, y, z]), number(-0.04, 0.04), number(-0.03, 0.03), number(0.5, 0.7)
)


def sorted_error(found: Object3D, size: np.ndarray) -> float:
    """The largest relative error of the box' lengths, the longest compared with the longest."""
    return float(np.abs(np.sort(found.box.size) / np.sort(size) - 1).max())


@few
@given(places, number(0.045, 0.09))
def test_the_visible_part_of_a_sphere(center, radius):
    sphere = Sphere(center, radius)
    depth, seen = render([sphere])
    found = locate(seen == 0, depth, CAMERA)
    assert found.reason == ""
    fine = sight(CAMERA, finer=2)
    fine = fine[np.abs(fine - center / center[2]).max(axis=-1) < 0.3]
    distance = sphere.hit(np.zeros(3), fine)
    visible = fine[np.isfinite(distance)] * distance[np.isfinite(distance)][:, None]
    assert np.linalg.norm(found.centroid - visible.mean(axis=0)) < 0.002
    # The silhouette is a circle somewhat before the middle of the sphere.
    share = radius / np.linalg.norm(center)
    width, thickness = 2 * radius * np.sqrt(1 - share**2), radius * (1 - share)
    assert found.box.size[:2] == pytest.approx([width, width], rel=0.03)
    # The rim is seen edge on: from one pixel to the next the depth changes by millimetres.
    assert found.box.size[2] == pytest.approx(thickness, abs=0.004)


@few
@given(places, rotations(), st.tuples(*[number(0.06, 0.16)] * 3))
def test_a_box_of_any_orientation_of_which_three_faces_show(center, rotation, size):
    facing = np.abs(rotation.T @ center) / np.linalg.norm(center)
    assume(facing.min() > 0.2)
    cuboid = Cuboid(center, rotation, np.array(size))
    depth, seen = render([cuboid])
    found = locate(seen == 0, depth, CAMERA)
    assert sorted_error(found, cuboid.size) < 0.03
    assert np.linalg.norm(found.box.center - center) < 0.002
    assert np.linalg.det(found.box.rotation) == pytest.approx(1)
    assert not found.box.upright
    assert (np.diff(found.box.size) <= 0).all() and found.box.rotation[0, 0] >= 0
    assert found.box.rotation[2, 2] <= 0, "z looks to the camera"


@pytest.mark.parametrize("turn", [0.4, np.pi / 4, 1.0])
def test_a_box_of_which_two_faces_show(turn):
    """The smallest box around two faces is not the only one of its size."""
    rotation = rigid([0, 0, 0], [0, np.sin(turn / 2), 0, np.cos(turn / 2)])[:3, :3]
    cuboid = Cuboid(np.array([0.0, 0.0, 0.6]), rotation, np.array([0.14, 0.1, 0.08]))
    depth, seen = render([cuboid])
    found = locate(seen == 0, depth, CAMERA)
    assert sorted_error(found, cuboid.size) < 0.03
    assert np.linalg.norm(found.box.center - cuboid.center) < 0.002


@few
@given(
    st.tuples(number(0.06, 0.16), number(0.06, 0.16), number(0.02, 0.16)),
    number(-3.1, 3.1),
    number(0.5, 1.3),
    st.sampled_from(["given", "support"]),
)
def test_a_box_that_stands_on_a_table(size, yaw, elevation, up):
    scene = on_table(size, yaw, elevation)
    depth, seen = render([scene.thing, scene.table])
    found = locate(seen == 0, depth, CAMERA, up=scene.up if up == "given" else up)
    flat, box = scene.thing.size[:2], found.box
    assert np.sort(box.size[:2]) == pytest.approx(np.sort(flat), rel=0.03)
    assert box.size[2] == pytest.approx(scene.thing.size[2], rel=0.03, abs=0.001)
    assert np.linalg.norm(box.center - scene.thing.center) < 0.002
    assert box.upright
    assert box.rotation[:, 2] @ scene.up > 0.9999
    assert box.size[0] >= box.size[1] and box.rotation[0, 0] >= 0, "x: the longer, to the right"
    assert found.support.normal @ scene.up > 0.9999
    assert found.support.offset == pytest.approx(scene.table.offset, abs=0.001)


@few
@given(number(0.0, 1.1), number(-3.1, 3.1), number(0.5, 0.9), number(0.07, 0.2))
def test_a_patch_of_a_tilted_plane(tilt, around, distance, length):
    normal = np.array([np.sin(tilt) * np.cos(around), np.sin(tilt) * np.sin(around), -np.cos(tilt)])
    middle = np.array([0.0, 0.0, distance])
    depth, _ = render([Ground(normal, float(normal @ middle))])
    side = np.cross(normal, [0.3, 0.8, 0.1])
    side /= np.linalg.norm(side)
    points = sight(CAMERA) * depth[..., None] - middle
    mask = (np.abs(points @ side) < length / 2) & (np.abs(points @ np.cross(normal, side)) < 0.03)
    assume(mask.sum() > 600)
    found = locate(mask, depth, CAMERA)
    assert found.box.size[:2] == pytest.approx([length, 0.06], rel=0.03, abs=0.002)
    assert found.box.size[2] < 0.001
    assert np.abs(found.box.rotation[:, 2] @ normal) > 0.999
    assert np.linalg.norm(found.box.center - middle) < 0.002
    assert np.linalg.norm(found.centroid - middle - points[mask].mean(axis=0)) < 0.002


@pytest.mark.parametrize("seed", range(4))
def test_sensor_noise_and_mixed_edge_pixels_cost_millimetres(seed):
    random = np.random.default_rng(seed)
    scene = on_table(random.uniform(0.05, 0.12, 3), random.uniform(-3, 3), random.uniform(0.6, 1.1))
    depth, seen = render([scene.thing, scene.table])
    clean = locate(seen == 0, depth, CAMERA, up="support")
    # Twice the noise of a usual stereo camera: 1.8 mm at 0.6 m.
    found = locate(seen == 0, noisy(depth, seed, share=0.005), CAMERA, up="support")
    assert np.sort(found.box.size[:2]) == pytest.approx(np.sort(scene.thing.size[:2]), abs=0.0025)
    assert found.box.size[2] == pytest.approx(scene.thing.size[2], abs=0.0025)
    assert np.linalg.norm(found.box.center - scene.thing.center) < 0.0015
    assert np.linalg.norm(found.centroid - clean.centroid) < 0.002
    assert found.support.normal @ scene.up > np.cos(np.deg2rad(0.5))


def test_edge_flying_pixels_are_no_part_of_the_object():
    scene = on_table([0.1, 0.06, 0.12], elevation=0.5)
    depth, seen = render([scene.thing, scene.table])
    mask = seen == 0
    far = np.roll(mask, 1, axis=1) & ~mask  # the first column of pixels beside the object
    flying, mask = depth.copy(), mask | far
    random = np.random.default_rng(0)
    flying[far] = (0.5 + 0.5 * random.uniform(0.1, 1, far.sum())) * depth[far]
    found = locate(mask, flying, CAMERA, up=scene.up)
    assert sorted_error(found, scene.thing.size) < 0.03
    assert np.linalg.norm(found.box.center - scene.thing.center) < 0.002


@pytest.mark.parametrize("pixels", [3, 8])
def test_a_mask_that_spills_on_table_and_wall(pixels):
    scene = on_table([0.1, 0.06, 0.12], elevation=0.4)
    wall = Ground(np.array([0.0, 0.0, -1.0]), -1.1)
    depth, seen = render([scene.thing, scene.table, wall])
    rows, columns = np.nonzero(seen == 0)
    mask = np.zeros_like(seen, bool)
    for down in range(-pixels, pixels + 1):
        for right in range(-pixels, pixels + 1):
            mask[rows + down, columns + right] = True
    found = locate(mask, depth, CAMERA, up=scene.up)
    assert sorted_error(found, scene.thing.size) < 0.03
    assert np.linalg.norm(found.box.center - scene.thing.center) < 0.002


def test_a_piece_of_background_in_the_mask_is_left_out():
    ball = Sphere(np.array([-0.03, 0.0, 0.6]), 0.05)
    behind = Sphere(np.array([0.1, 0.0, 0.9]), 0.04)  # a quarter as large to the camera
    depth, seen = render([ball, behind])
    alone, found = locate(seen == 0, depth, CAMERA), locate(seen >= 0, depth, CAMERA)
    assert found.box.size == pytest.approx(alone.box.size, abs=1e-6)
    assert found.centroid == pytest.approx(alone.centroid, abs=1e-6)


def test_an_object_cut_in_two_by_something_before_it_stays_one_object():
    bar = Cuboid(np.array([0.0, 0.0, 0.6]), np.eye(3), np.array([0.3, 0.05, 0.05]))
    before = Cuboid(np.array([0.04, 0.0, 0.4]), np.eye(3), np.array([0.03, 0.2, 0.02]))
    depth, seen = render([bar, before])
    found = locate(seen == 0, depth, CAMERA)
    assert found.box.size[0] == pytest.approx(0.3, rel=0.03)
    assert found.visible_fraction < 0.95
    alone, whole = render([bar])
    assert locate(whole == 0, alone, CAMERA).visible_fraction == 1.0


def test_a_pixel_belongs_to_a_mask_that_covers_half_of_it():
    mask = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
    assert fit_mask(mask, (1, 2)).tolist() == [[True, False]]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turn", [False, True])
def test_each_side_of_an_outline_counts_a_quarter(turn, flip):
    """Cut off by something nearer, or by the border of the image; what is farther hides nothing."""
    mask, z = np.zeros((60, 60), bool), np.full((60, 60), 1.2, np.float32)
    mask[20:40, 20:40] = True
    z[mask], limit = 1.0, np.full((60, 60), 0.02, np.float32)

    def share(z: np.ndarray, mask: np.ndarray = mask, part=np.s_[:, :]) -> float:
        z, found = z[part], mask[part]
        z, found = (z.T, found.T) if turn else (z, found)
        z, found = (z[::-1], found[::-1]) if flip else (z, found)
        return visible_fraction(found, z, limit[: z.shape[0], : z.shape[1]])

    assert share(z) == 1.0
    nearer = np.where(np.arange(60)[:, None] < 20, np.float32(0.7), z)
    assert share(nearer) == pytest.approx(0.75)
    assert share(z, part=np.s_[20:]) == pytest.approx(0.75)
    corner = np.where(np.arange(60)[None] < 20, np.float32(0.7), nearer)
    assert share(corner) == pytest.approx(0.5)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_what_seems_to_stand_on_its_support_reaches_down_to_it(scale):
    """Its lower part is hidden; higher up than three quarters of what is seen of it, it floats."""
    points = np.random.default_rng(0).uniform(-0.05, 0.05, (2000, 3)) * scale
    up, seen = np.array([0.0, 0, 1]), 0.1 * scale
    for gap, stands in ((0.0, True), (0.6 * seen, True), (1.2 * seen, False)):
        above = points + np.array([0, 0, gap + seen / 2])
        box = make_box(above, up, Plane(up, 0.0, 0.0))
        height = gap + seen if stands else seen
        assert box.size[2] == pytest.approx(height, abs=0.004 * scale)
        assert box.center[2] == pytest.approx(gap + seen - height / 2, abs=0.004 * scale)


def test_visible_fraction_falls_with_what_hides_the_object():
    ball = Sphere(np.array([0.0, 0.0, 0.6]), 0.08)
    fractions = []
    for shift in (0.3, 0.09, 0.03):
        before = Cuboid(np.array([shift, 0.0, 0.4]), np.eye(3), np.array([0.1, 0.4, 0.01]))
        depth, seen = render([ball, before, Ground(np.array([0.0, 0.0, -1.0]), -1.0)])
        fractions.append(locate(seen == 0, depth, CAMERA).visible_fraction)
    assert fractions[0] == 1.0
    assert fractions[0] > fractions[1] > fractions[2] > 0.2
    cut = Sphere(np.array([0.21, 0.0, 0.6]), 0.08)  # the border of the image goes through it
    depth, seen = render([cut, Ground(np.array([0.0, 0.0, -1.0]), -1.0)])
    assert locate(seen == 0, depth, CAMERA).visible_fraction < 0.9


def test_a_ball_stands_on_the_table_although_its_underside_is_hidden():
    up = np.array([0.0, -np.sin(0.9), -np.cos(0.9)])
    ball = Sphere(np.array([0.0, 0.0, 0.6]), 0.04)
    depth, seen = render([ball, Ground(up, float(up @ ball.center) - 0.04)])
    found = locate(seen == 0, depth, CAMERA, up=up)
    assert found.box.size[2] == pytest.approx(0.08, rel=0.03)
    floating, seen = render([ball, Ground(up, float(up @ ball.center) - 0.3)])
    assert locate(seen == 0, floating, CAMERA, up=up).box.size[2] < 0.075


def test_on_a_ramp_the_box_reaches_down_to_the_ramp_below_its_middle():
    """Gravity and the support's normal differ by 15 degrees."""
    normal, tilt = np.array([0.0, -np.sin(0.9), -np.cos(0.9)]), np.deg2rad(15)
    up = np.array([np.sin(tilt), 0, 0]) + np.cos(tilt) * normal
    ball = Sphere(np.array([0.0, 0.0, 0.6]), 0.04)
    offset = float(normal @ ball.center) - 0.04
    depth, seen = render([ball, Ground(normal, offset)])
    found = locate(seen == 0, depth, CAMERA, up=up)
    floor = found.centroid @ up - (found.centroid @ normal - offset) / np.cos(tilt)
    assert found.box.size[2] == pytest.approx(ball.center @ up + 0.04 - floor, abs=0.001)


def test_the_support_lies_under_the_object_even_if_higher_things_fill_the_view():
    scene = on_table([0.08, 0.05, 0.03], yaw=0.0, elevation=1.35)
    crates = [
        Cuboid(
            scene.thing.center + side * 0.095 * scene.thing.rotation[:, 0] + 0.02 * scene.up,
            scene.thing.rotation,
            np.array([0.1, 0.4, 0.07]),
        )
        for side in (1, -1)
    ]
    depth, seen = render([scene.thing, scene.table, *crates])
    found = locate(seen == 0, depth, CAMERA, up=scene.up)
    assert found.support.offset == pytest.approx(scene.table.offset, abs=0.001)
    assert found.box.size[2] == pytest.approx(0.03, abs=0.001)


def test_a_steep_wall_is_no_support_where_gravity_is_known():
    wall = Ground(np.array([0.0, 0.0, -1.0]), -0.8)
    box = Cuboid(np.array([0.0, 0.0, 0.77]), np.eye(3), np.array([0.1, 0.1, 0.06]))
    depth, seen = render([box, wall])
    assert locate(seen == 0, depth, CAMERA, up=np.array([0.0, -1.0, 0.0])).support is None
    assert locate(seen == 0, depth, CAMERA).support.normal @ wall.normal > 0.999


def test_an_object_moves_rigidly_into_another_frame():
    scene = on_table([0.1, 0.06, 0.12])
    depth, seen = render([scene.thing, scene.table])
    found = locate(seen == 0, depth, CAMERA, up=scene.up)
    shift, pose = [1.0, -2.0, 0.5], rigid([1.0, -2.0, 0.5], [0.4, -0.3, 0.1, 0.8])
    there = found.transformed(pose)
    assert there.box.size == pytest.approx(found.box.size)
    assert there.box.corners == pytest.approx(transform_points(found.box.corners, pose), abs=1e-6)
    assert there.centroid == pytest.approx(there.points.mean(axis=0, dtype=float), abs=1e-4)
    assert there.support.height(there.points) == pytest.approx(
        found.support.height(found.points), abs=1e-5
    )
    assert there.up == pytest.approx(pose[:3, :3] @ found.up)
    assert there.viewpoints == pytest.approx(np.array([shift]))
    assert there.transformed(np.linalg.inv(pose)).points == pytest.approx(found.points, abs=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_quaternions_and_matrices_mean_the_same(seed):
    values = np.random.default_rng(seed).normal(size=4)
    if seed % 5 == 0:
        values[3] = 0  # half turns
    values /= np.linalg.norm(values)
    again = quaternion(rigid([0, 0, 0], values)[:3, :3])
    assert again[3] >= 0
    assert abs(again @ values) == pytest.approx(1)
    x, y, z, w = values  # rotating a vector by q v q*
    vector = np.array([0.3, -0.2, 0.9])
    cross = np.cross([x, y, z], vector)
    turned = vector + 2 * w * cross + 2 * np.cross([x, y, z], cross)
    assert rigid([1, 2, 3], values)[:3, :3] @ vector == pytest.approx(turned)


def test_millimetres_and_metres_give_the_same_object():
    scene = on_table([0.1, 0.06, 0.12])
    depth, seen = render([scene.thing, scene.table])
    whole = np.round(depth * 1000).astype(np.uint16)
    one = locate(seen == 0, depth, CAMERA, up=scene.up)
    other = locate(seen == 0, whole, CAMERA, up=scene.up)
    double = locate(seen == 0, depth.astype(np.float64), CAMERA, up=scene.up)
    assert other.box.center == pytest.approx(one.box.center, abs=0.001)
    assert other.box.size == pytest.approx(one.box.size, abs=0.002)
    assert double.box.size == pytest.approx(one.box.size)


@pytest.mark.parametrize("scale", [0.5, 1.5, 2])
def test_the_mask_may_have_another_size_than_the_depth_image(scale):
    scene = on_table([0.1, 0.06, 0.12])
    shapes = [scene.thing, scene.table]
    depth, seen = render(shapes)
    colour = CAMERA.resized(int(400 * scale), int(300 * scale))
    _, large = render(shapes, colour)
    found = locate(large == 0, depth, CAMERA, up=scene.up)
    same = locate(seen == 0, depth, CAMERA, up=scene.up.tolist())
    # Half a pixel of the coarser image is 1.1 mm here at most.
    assert found.box.center == pytest.approx(same.box.center, abs=0.0015)
    assert found.box.size == pytest.approx(same.box.size, abs=0.003)
    # The intrinsics of the colour image are those of the depth image but for the size.
    assert locate(large == 0, depth, colour, up=scene.up).box.center == pytest.approx(
        found.box.center, abs=1e-6
    )


@pytest.mark.parametrize("size", [(240, 320), (300, 400), (450, 600), (960, 1280)])
def test_a_mask_keeps_its_place_and_area_at_every_size(size):
    ball = Sphere(np.array([0.05, -0.03, 0.6]), 0.06)
    _, seen = render([ball])
    mask = fit_mask(seen == 0, size)
    assert mask.shape == size
    assert mask.mean() == pytest.approx((seen == 0).mean(), rel=0.01)
    for axis in (0, 1):
        here = (np.nonzero(mask)[axis].mean() + 0.5) / size[axis]
        there = (np.nonzero(seen == 0)[axis].mean() + 0.5) / seen.shape[axis]
        assert here == pytest.approx(there, abs=0.0005)


def test_pixels_say_where_in_the_depth_image_the_points_come_from():
    scene = on_table([0.1, 0.06, 0.12])
    depth, seen = render([scene.thing, scene.table])
    found = locate(seen == 0, depth, CAMERA)
    columns, rows = found.pixels.T
    assert (seen[rows, columns] == 0).all()
    assert found.points[:, 2] == pytest.approx(depth[rows, columns], abs=0.002)
    assert len(found.pixels) > 0.95 * (seen == 0).sum()
    assert found.depth_fraction == 1.0
    assert (found.views, found.agreement) == (1, 1.0)


def test_holes_in_the_depth_image_lower_the_fraction_only():
    scene = on_table([0.1, 0.06, 0.12])
    depth, seen = render([scene.thing, scene.table])
    holes = np.random.default_rng(0).uniform(size=depth.shape) < 0.4
    found = locate(seen == 0, np.where(holes, np.nan, depth), CAMERA, up=scene.up)
    assert found.depth_fraction == pytest.approx(0.6, abs=0.02)
    assert sorted_error(found, scene.thing.size) < 0.03
    assert np.isfinite(found.points).all()


def test_a_wide_lens_is_taken_into_account():
    from lisa_ros.geometry.camera import rays

    matrix = [275, 0, 201, 0, 276, 148, 0, 0, 1]
    lens = Intrinsics.from_matrix(matrix, 400, 300, "plumb_bob", [-0.28, 0.09, 0.001, 0.002, 0])
    pinhole = Intrinsics.from_matrix(matrix, 400, 300)
    scene_place = np.array([0.25, 0.17, 0.6])
    box = Cuboid(scene_place, rigid([0, 0, 0], [0.3, 0.4, 0.1, 0.8])[:3, :3], np.full(3, 0.08))
    seen_by_lens = np.concatenate([rays(lens), np.ones((300, 400, 1))], axis=-1)
    depth, seen = render([box], rays=seen_by_lens)
    found = locate(seen == 0, depth, lens)
    assert np.linalg.norm(found.box.center - scene_place) < 0.002
    assert np.linalg.norm(locate(seen == 0, depth, pinhole).box.center - scene_place) > 0.01
