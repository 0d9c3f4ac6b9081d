"""Depth images, intrinsics and masks that cannot be used: a reason instead of numbers."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from geometry_scenes import CAMERA, on_table, render

from lisa_ros.geometry import (
    DepthError,
    Gripper,
    Intrinsics,
    cloud,
    locate,
    parallel_grasps,
    suction_grasps,
    without_object,
)
from lisa_ros.geometry.camera import project, rays
from lisa_ros.geometry.depth import check_registered

K = [550, 0, 200, 0, 550, 150, 0, 0, 1]
SCENE = on_table([0.1, 0.06, 0.12])
DEPTH, SEEN = render([SCENE.thing, SCENE.table])
MASK = SEEN == 0
MILLIMETRES = np.round(DEPTH * 1000).astype(np.uint16)


def few_pixels() -> np.ndarray:
    depth = np.zeros_like(DEPTH)
    rows, columns = np.nonzero(MASK)
    depth[rows[:20], columns[:20]] = 0.6
    depth[:50, :50] = 0.9  # there is depth elsewhere
    return depth


CASES = {
    "no depth image": (MASK, None, CAMERA, "no depth image"),
    "no camera_info": (MASK, DEPTH, None, "no camera_info"),
    "zeros": (MASK, np.zeros_like(DEPTH), CAMERA, "no measurement"),
    "integer zeros": (MASK, np.zeros_like(MILLIMETRES), CAMERA, "no measurement"),
    "nan": (MASK, np.full_like(DEPTH, np.nan), CAMERA, "no measurement"),
    "infinite": (MASK, np.full_like(DEPTH, np.inf), CAMERA, "no measurement"),
    "negative": (MASK, -DEPTH, CAMERA, "no measurement"),
    "millimetres declared as metres": (MASK, DEPTH * 1000, CAMERA, "millimetres declared"),
    "metres declared as millimetres": (
        MASK,
        np.ceil(DEPTH).astype(np.uint16),
        CAMERA,
        "metres declared",
    ),
    "bytes": (MASK, DEPTH.astype(np.uint8), CAMERA, "uint8"),
    "whole numbers with sign": (MASK, MILLIMETRES.astype(np.int32), CAMERA, "int32"),
    "three channels": (MASK, np.stack([DEPTH] * 3, axis=-1), CAMERA, "300, 400, 3"),
    "empty mask": (np.zeros_like(MASK), DEPTH, CAMERA, "no pixel"),
    "hardly any depth in the mask": (MASK, few_pixels(), CAMERA, "are needed"),
    "tiny mask": (MASK & (np.cumsum(MASK).reshape(MASK.shape) <= 12), DEPTH, CAMERA, "needed"),
    "another view": (MASK, DEPTH[:, 50:350], CAMERA, "registered"),
    "camera_info of another view": (
        MASK,
        DEPTH,
        Intrinsics(1280, 720, 900, 900, 640, 360),
        "1280x720",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_used_leaves_the_object_empty_and_says_why(case):
    mask, depth, camera, word = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = locate(mask, depth, camera, up="support")
    assert word in found.reason
    assert not found.reason.endswith(".")
    assert found.box is None
    assert found.centroid is None
    assert found.support is None
    assert len(found.points) == len(found.pixels) == 0
    assert parallel_grasps(found, Gripper()) == []
    assert suction_grasps(found) == []
    assert found.transformed(np.eye(4)) == found


def test_a_handful_of_bad_pixels_does_not_make_the_depth_image_implausible():
    depth = DEPTH.copy()
    depth[:30] = 3000.0
    depth[30:40] = np.inf
    assert locate(MASK & (np.arange(300) > 50)[:, None], depth, CAMERA).reason == ""


@pytest.mark.parametrize(
    ("k", "model", "d", "word"),
    [
        ([0.0] * 9, "plumb_bob", [], "no intrinsics"),
        ([550, 0, 200, 0, float("nan"), 150, 0, 0, 1], "", [], "no intrinsics"),
        ([550, 0, 200, 0, 550], "", [], "no intrinsics"),
        ([550, 0, 200, 0, 550, 150, 0, 0, 1], "equidistant", [0.1, 0, 0, 0], "equidistant"),
        ([550, 0, 200, 0, 550, 150, 0, 0, 1], "plumb_bob", [0.1, 0.2], "coefficients"),
        ([550, 0, 200, 0, 550, 150, 0, 0, 1], "rational_polynomial", [0.1] * 5, "coefficients"),
    ],
)
def test_intrinsics_that_are_none(k, model, d, word):
    with pytest.raises(DepthError, match=word):
        Intrinsics.from_matrix(k, 400, 300, model, d)


@pytest.mark.parametrize("d", [[], [0.0] * 4, [0.01, 0, 0, 0]])
@pytest.mark.parametrize("model", ["equidistant", "fisheye", "kannala_brandt", "Plumb_Bob", "none"])
def test_an_unknown_lens_is_no_pinhole_whatever_its_coefficients(model, d):
    """A fisheye without coefficients bends all the same: r = f angle and not f tan(angle)."""
    with pytest.raises(DepthError, match=f"{model}.* not known"):
        Intrinsics.from_matrix(K, 400, 300, model, d)


@pytest.mark.parametrize("zeros", [4, 6])
@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", [0.1, -0.05, 0.001, 0.002, 0.01, 0, 0, 0]),
        ("rational_polynomial", [0.5, -2.6, 0.0004, -0.0003, 1.5, 0.4, -2.4, 1.4]),
    ],
)
def test_coefficients_that_opencv_fills_up_with_zeros_are_taken(model, d, zeros):
    short = Intrinsics.from_matrix(K, 400, 300, model, d[:5] if model == "plumb_bob" else d)
    assert Intrinsics.from_matrix(K, 400, 300, model, d + [0.0] * zeros) == short
    assert short.distortion == tuple(d)
    for at in (8, 7 + zeros):  # a prism or a tilted sensor: no model that is known here
        more = d + [0.0] * zeros
        more[at] = 0.01
        with pytest.raises(DepthError, match="coefficients"):
            Intrinsics.from_matrix(K, 400, 300, model, more)


@pytest.mark.parametrize("model", ["", "plumb_bob", "rational_polynomial"])
@pytest.mark.parametrize("count", [0, 4, 5, 8, 14])
def test_a_known_lens_without_distortion(model, count):
    assert Intrinsics.from_matrix(K, 400, 300, model, [0.0] * count).distortion == ()


IMPLAUSIBLE = {
    "identity": ([1, 0, 0, 0, 1, 0, 0, 0, 1], "field of view of 1[78]"),
    "parts of the width": ([0.8, 0, 0.5, 0, 1.1, 0.5, 0, 0, 1], "field of view of 1[78]"),
    "millimetres": ([4.2, 0, 3.2, 0, 4.2, 2.4, 0, 0, 1], "field of view of 17"),
    "only one focal length": ([550, 0, 200, 0, 1, 150, 0, 0, 1], "300 pixels high"),
    "a telescope": ([55_000, 0, 200, 0, 55_000, 150, 0, 0, 1], "field of view of 0.4"),
    "no centre": ([550, 0, 0, 0, 550, 0, 0, 0, 1], r"principal point \(0, 0\)"),
    "centre to the right": ([550, 0, 410, 0, 550, 150, 0, 0, 1], r"point \(410, 150\)"),
    "centre below": ([550, 0, 200, 0, 550, 320, 0, 0, 1], r"point \(200, 320\)"),
    "centre to the left": ([550, 0, -20, 0, 550, 150, 0, 0, 1], r"point \(-20, 150\)"),
    "columns for rows": ([550, 0, 0, 0, 550, 0, 200, 150, 1], "not of the form"),
    "times two": ([1100, 0, 400, 0, 1100, 300, 0, 0, 2], "not of the form"),
    "skew": ([550, 90, 200, 0, 550, 150, 0, 0, 1], "not of the form"),
}


@pytest.mark.parametrize("case", IMPLAUSIBLE)
def test_numbers_that_no_camera_has_are_refused_with_the_reason(case):
    k, words = IMPLAUSIBLE[case]
    with pytest.raises(DepthError, match=words):
        Intrinsics.from_matrix(k, 400, 300)
    if "form" not in words:  # without a size it can be told once the image is there
        found = locate(MASK, DEPTH, Intrinsics.from_matrix(k, 0, 0))
        assert found.box is None and "implausible" in found.reason


@pytest.mark.parametrize(
    "k",
    [
        [110, 0, 200, 0, 110, 150, 0, 0, 1],  # 122 degrees wide
        [5000, 0, 200, 0, 5000, 150, 0, 0, 1],  # a telephoto lens
        [550, 0, 260, 0, 550, 90, 0, 0, 1],  # a shifted sensor
        [550, 0, 200, 0, 275, 150, 0, 0, 1],  # lines that were read every second time
    ],
)
def test_unusual_cameras_are_cameras(k):
    assert Intrinsics.from_matrix(k, 400, 300).fx == k[0]


def camera_info(roi=(0, 0, 0, 0), **changed):
    """A CameraInfo whose `p` is another camera than its `k`; `roi` is x, y, width, height."""
    names = ("x_offset", "y_offset", "width", "height")
    fields = {"width": 400, "height": 300, "k": K, "distortion_model": "plumb_bob", "d": []}
    fields |= {"p": [500, 0, 210, 0, 0, 510, 140, 0, 0, 0, 1, 0], "binning_x": 0, "binning_y": 0}
    region = SimpleNamespace(**dict(zip(names, roi, strict=True)), do_rectify=False)
    return SimpleNamespace(roi=region, **fields | changed)


def test_a_region_of_interest_and_binning_show_every_point_where_the_sensor_saw_it():
    whole = Intrinsics.from_camera_info(camera_info())
    assert (whole.fx, whole.fy, whole.cx, whole.cy) == (550, 550, 200, 150)
    info = camera_info((100, 80, 240, 200), binning_x=2, binning_y=4)
    part = Intrinsics.from_camera_info(info)
    assert (part.width, part.height) == (120, 50)
    points = np.array([[0.1, -0.05, 0.6], [-0.2, 0.1, 0.9]])
    on_sensor = project(whole, points) + 0.5  # from the corner of the sensor, not from (0, 0)
    assert project(part, points) + 0.5 == pytest.approx((on_sensor - [100, 80]) / [2, 4])


def test_a_region_without_the_principal_point_is_a_region_all_the_same():
    assert Intrinsics.from_camera_info(camera_info((240, 0, 160, 100))).cx == -40


def test_rectified_images_have_the_other_matrix_and_no_distortion():
    raw = Intrinsics.from_camera_info(camera_info(d=[0.1] * 5))
    assert raw.fx == 550 and raw.distortion
    fisheye = camera_info(distortion_model="equidistant", d=[0.1] * 4)
    assert Intrinsics.from_camera_info(fisheye, True) == Intrinsics(400, 300, 500, 510, 210, 140)
    with pytest.raises(DepthError, match="no intrinsics"):  # never calibrated
        Intrinsics.from_camera_info(camera_info(p=[0.0] * 12), True)


def test_a_camera_info_without_size_takes_that_of_the_depth_image():
    nameless = Intrinsics(0, 0, CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy)
    one, other = locate(MASK, DEPTH, nameless), locate(MASK, DEPTH, CAMERA)
    assert one.box.center == pytest.approx(other.box.center)


def test_resized_intrinsics_see_every_point_in_the_same_place_of_the_image():
    points = np.array([[0.1, -0.05, 0.6], [-0.2, 0.1, 0.9]])
    edges = (project(CAMERA, points) + 0.5) / [400, 300]  # 0 and 1 are the borders
    half = CAMERA.resized(200, 150)
    assert (project(half, points) + 0.5) / [200, 150] == pytest.approx(edges)


@pytest.mark.parametrize(
    ("model", "d"),
    [
        ("plumb_bob", [-0.28, 0.09, 0.001, -0.002, 0.0]),
        ("plumb_bob", [0.12, -0.05, 0.0, 0.001, 0.01]),
        ("rational_polynomial", [0.5, -2.6, 0.0004, -0.0003, 1.5, 0.4, -2.4, 1.4]),
    ],
)
def test_rays_are_where_opencv_sees_the_pixels(model, d):
    matrix = np.array([[300.0, 0, 201], [0, 302, 148], [0, 0, 1]])
    camera = Intrinsics.from_matrix(matrix, 400, 300, model, d)
    found = rays(camera)
    assert np.isfinite(found).mean() > 0.99
    pixels = np.stack(np.meshgrid(np.arange(400.0), np.arange(300.0)), axis=-1)
    points = np.concatenate([found, np.ones((300, 400, 1))], axis=-1).reshape(-1, 3)
    usable = np.isfinite(points).all(axis=1)
    expected = pixels.reshape(-1, 2)[usable]
    there = cv2.projectPoints(points[usable], np.zeros(3), np.zeros(3), matrix, np.array(d))[0]
    assert np.abs(there[:, 0] - expected).max() < 0.35
    assert np.abs(project(camera, points[usable]) - expected).max() < 0.35
    assert np.abs(there[:, 0] - expected).mean() < 0.001


def test_a_lens_that_folds_the_image_over_gives_no_rays_there():
    matrix = [150, 0, 200, 0, 150, 150, 0, 0, 1]
    folded = Intrinsics.from_matrix(matrix, 400, 300, "plumb_bob", [-0.45, 0.1, 0, 0, 0])
    found = rays(folded)
    assert np.isnan(found[0, 0]).all()
    assert np.isfinite(found[150, 200]).all()
    depth = np.full((300, 400), 0.7, np.float32)
    assert np.isfinite(cloud(depth, folded)[0]).all()


def test_the_whole_scene_as_a_cloud():
    points, pixels = cloud(MILLIMETRES, CAMERA)
    columns, rows = pixels.T
    assert len(points) == (MILLIMETRES > 0).sum()
    assert np.abs(points[:, 2] - DEPTH[rows, columns]).max() < 0.0006
    across = (columns - CAMERA.cx) / CAMERA.fx * points[:, 2]
    assert np.abs(points[:, 0] - across).max() < 1e-5
    with pytest.raises(DepthError, match="no measurement"):
        cloud(np.zeros_like(DEPTH), CAMERA)


@pytest.mark.parametrize(("depth", "gone"), [(MILLIMETRES, 0), (DEPTH, np.nan)])
def test_a_depth_image_without_the_object(depth, gone):
    before = depth.copy()
    rest = without_object(depth, MASK, margin=2)
    assert np.array_equal(depth, before)
    assert rest.dtype == depth.dtype
    assert np.array_equal(rest[MASK], np.full(MASK.sum(), gone, depth.dtype), equal_nan=True)
    taken = ~((rest == depth) | (np.isnan(rest) & np.isnan(depth)))
    rows, columns = np.nonzero(MASK)
    assert np.nonzero(taken)[0].min() >= rows.min() - 2
    assert np.nonzero(taken)[1].max() <= columns.max() + 2


@pytest.mark.parametrize("margin", [0, 1, 4])
def test_the_margin_around_a_removed_object_is_gone_on_every_side(margin):
    mask = np.zeros((40, 50), bool)
    mask[10:20, 15:30] = True
    rest = without_object(np.full((40, 50), 700, np.uint16), mask, margin)
    wanted = np.zeros_like(mask)
    wanted[10 - margin : 20 + margin, 15 - margin : 30 + margin] = True
    assert np.array_equal(rest == 0, wanted)


def test_a_depth_image_is_of_the_frame_of_its_image():
    check_registered("camera", "/camera")
    check_registered("", "depth")
    check_registered("camera", "")
    with pytest.raises(DepthError, match=r"'camera'.*'depth'.*registered"):
        check_registered("/camera", "depth")


def test_the_rays_of_a_camera_are_worked_out_once():
    """They cost more than all else about an object; nobody may write into what others read."""
    found = rays(replace(CAMERA, distortion=(-0.1, 0.02, 0, 0, 0, 0, 0, 0)))
    assert rays(replace(CAMERA, distortion=(-0.1, 0.02, 0, 0, 0, 0, 0, 0))) is found
    assert not found.flags.writeable


def test_what_is_not_before_the_camera_has_no_pixel():
    """Behind it a point would be seen upside down, as if it were there."""
    points = np.array([[0.1, 0.05, -0.6], [0.1, 0.05, 0.0], [0.1, 0.05, 0.6]])
    assert np.isnan(project(CAMERA, points)).all(axis=1).tolist() == [True, True, False]
