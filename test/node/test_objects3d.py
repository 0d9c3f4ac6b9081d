"""Objects, clouds, grasps and obstacles in the frame that was asked for, without a running node.

The pose of the camera in that frame is oblique: its rotation is not its own transpose, so that a
rotation taken the wrong way round, or not at all, shows.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from depth_rig import COLOR, DEPTH, INFO, SCENE, SEEN, metres
from fake_engine import instance
from geometry_scenes import Cuboid, render, upright
from lisa_ros.msg import Segmentation
from sensor_msgs.msg import CameraInfo, RegionOfInterest
from std_msgs.msg import Header

from lisa_ros.geometry import Box, Object3D, transform_points
from lisa_ros.node.inputs.frame import DepthMatch
from lisa_ros.node.inputs.subscription import OnDemandSubscription
from lisa_ros.node.parameters import BY_NAME
from lisa_ros.node.results import messages, objects3d
from lisa_ros.node.results.objects3d import Objects3D, localize

SETTINGS = {name: parameter.default for name, parameter in BY_NAME.items()}
HEADER = Header(frame_id="camera_optical")
MASKS = [SEEN == 0]
# z of the target frame is the table's normal, as with base_link; it is turned about it by 40
# degrees and moved aside.
POSE = np.eye(4)
POSE[:3, :3] = upright(SCENE.up, 0.7).T
POSE[:3, 3] = [0.3, -0.2, 0.5]


def found(depth=DEPTH, info=INFO, look_up=lambda header: POSE, **changes) -> Objects3D:
    """What `localize` makes of the scene; in the target frame unless `look_up` is None."""
    settings = SETTINGS | {"target_frame": "base"} | changes
    return localize(MASKS, DepthMatch(metres(depth), info), HEADER, settings, look_up)


def xyz(cloud: np.ndarray) -> np.ndarray:
    """Points (N,3) of a coloured cloud, sorted."""
    points = np.stack([cloud[axis] for axis in "xyz"], axis=1)
    return points[np.lexsort(np.round(points, 4).T)]


def same_points(one: np.ndarray, other: np.ndarray) -> None:
    """Both clouds hold the same points, in whatever order."""
    assert len(one) == len(other) > 100
    for axis in range(3):
        assert np.allclose(np.sort(one[:, axis]), np.sort(other[:, axis]), atol=1e-5)


def test_objects_and_clouds_lie_in_the_target_frame():
    camera, base = found(look_up=None), found()
    assert (camera.frame_id, base.frame_id) == ("camera_optical", "base")
    expected = transform_points(SCENE.thing.center[None], POSE)[0]
    assert np.allclose(base.objects[0].box.center, expected, atol=0.002)
    for make in (
        lambda where: objects3d.object_cloud(where, COLOR),
        lambda where: objects3d.scene_cloud(where, COLOR, MASKS),
    ):
        same_points(xyz(make(base)), transform_points(xyz(make(camera)), POSE))


def test_boxes_stand_upright_along_the_z_of_the_target_frame():
    box = found(**{"depth.box": "target_frame"}).objects[0].box
    assert np.abs(box.rotation[2]).max() > 0.999
    assert np.allclose(np.sort(box.size), np.sort(SCENE.thing.size), atol=0.003)


def beside(gap: float) -> np.ndarray:
    """The depth image with walls along both long sides of the thing, `gap` metres away."""
    thing = SCENE.thing
    walls = [
        Cuboid(
            thing.center + side * thing.rotation[:, 1] * (thing.size[1] / 2 + gap + 0.01),
            thing.rotation,
            np.array([0.1, 0.02, 0.08]),
        )
        for side in (1, -1)
    ]
    depth, seen = render([thing, SCENE.table, *walls])
    return np.where((seen == 0) | (SEEN != 0), depth, 0)


def test_obstacles_lie_in_the_target_frame():
    """What stands beside the thing, also where the camera's frame is not the target's."""
    depth = beside(0.01)
    where = found(depth)
    obstacles = objects3d._obstacles(where, where.objects[0], MASKS[0])
    assert len(obstacles) > 20
    table = transform_points((SCENE.up * SCENE.table.offset)[None], POSE)[0][2]
    assert (obstacles[:, 2] > table + 0.004).all() and (obstacles[:, 2] < table + 0.1).all()
    away = np.linalg.norm(obstacles - where.objects[0].box.center, axis=1)
    assert away.max() < 0.2


def test_the_edge_of_the_thing_is_no_obstacle_to_its_own_grasps():
    """A mask is never quite exact: what it leaves out around the thing is still the thing."""
    import cv2

    small = [cv2.erode(MASKS[0].astype(np.uint8), np.ones((5, 5), np.uint8)) > 0]
    where = localize(small, DepthMatch(metres(DEPTH), INFO), HEADER, SETTINGS)
    assert len(objects3d._obstacles(where, where.objects[0], small[0])) == 0
    every, reasons = objects3d.grasps(where, small, SETTINGS)
    assert every and not reasons
    heights = xyz(objects3d.scene_cloud(where, COLOR, small)) @ SCENE.up - SCENE.table.offset
    assert (heights < 0.006).all(), "nor is it part of the scene"


@pytest.mark.parametrize("look_up", [None, lambda header: POSE], ids=["camera", "base"])
def test_fingers_do_not_close_where_something_stands(look_up):
    """Free, the thing is held across its 6 cm; between walls there is no room for the fingers."""
    free, _ = objects3d.grasps(found(look_up=look_up), MASKS, SETTINGS)
    walled, reasons = objects3d.grasps(found(beside(0.005), look_up=look_up), MASKS, SETTINGS)

    def from_above(every) -> list:
        return [one for _, one in every if one.kind == "top" and abs(one.width - 0.06) < 0.005]

    assert from_above(free) and not from_above(walled)
    assert walled or "without slipping or touching" in reasons[1]


def test_what_a_camera_info_says_about_the_image_is_heeded():
    """A region of interest, binning, and `p` in the place of `k` where images are rectified."""
    whole = found(look_up=None).objects[0].box.center
    height, width = DEPTH.shape
    region = CameraInfo(width=width + 40, height=height + 20, k=list(INFO.k))
    region.k[2], region.k[5] = INFO.k[2] + 30, INFO.k[5] + 15
    region.roi = RegionOfInterest(x_offset=30, y_offset=15, width=width, height=height)
    assert np.allclose(found(info=region, look_up=None).objects[0].box.center, whole, atol=1e-4)
    binned = CameraInfo(width=2 * width, height=2 * height, binning_x=2, binning_y=2)
    binned.k = [2 * value for value in INFO.k[:6]] + [0.0, 0.0, 1.0]
    binned.k[2], binned.k[5] = 2 * INFO.k[2] + 0.5, 2 * INFO.k[5] + 0.5
    assert np.allclose(found(info=binned, look_up=None).objects[0].box.center, whole, atol=1e-4)
    rectified = CameraInfo(width=width, height=height, k=list(INFO.k), d=[0.3, -0.1, 0.0, 0.0, 0.0])
    rectified.distortion_model = "plumb_bob"
    rectified.p = [*INFO.k[:3], 0.0, *INFO.k[3:6], 0.0, 0.0, 0.0, 1.0, 0.0]
    rectified.k[0] = rectified.k[4] = 700.0
    taken = found(info=rectified, look_up=None, **{"depth.rectified": True}).objects[0]
    assert np.allclose(taken.box.center, whole, atol=1e-4)
    other = found(info=rectified, look_up=None).objects[0]
    assert not np.allclose(other.box.center, whole, atol=0.005)


def test_markers_are_as_large_as_their_object():
    """And lines are thick enough to be seen, of large things and small ones."""
    box = Box(np.zeros(3), np.eye(3), np.array([1.5, 0.4, 0.2]), upright=True)
    large = Object3D(box=box, centroid=np.zeros(3))
    small = replace(large, box=replace(box, size=box.size / 100))
    array = messages.marker_array([large, Object3D(reason="no depth"), small], "abc", Header())
    cubes, lines, texts = (
        [one for one in array.markers if one.ns == name] for name in ("boxes", "axes", "labels")
    )
    assert [one.scale.x for one in cubes] == pytest.approx([1.5, 0.015])
    assert [one.scale.x for one in lines] == pytest.approx([0.03, 0.002])
    assert [(one.id, one.text) for one in texts] == [(1, "1 a"), (3, "3 c")]
    assert all(one.scale.z > 0 and one.color.a > 0 for one in texts)


def test_the_smaller_mask_is_on_top_in_the_label_image():
    """And its number fits into the image, however many there are."""
    whole, part = np.ones((20, 20), bool), np.zeros((20, 20), bool)
    part[5:10, 5:10] = True
    image = messages.label_image(published(part, whole), (20, 20), Header())
    labels = np.frombuffer(image.data, np.uint8).reshape(20, 20)
    assert (labels[part] == 1).all() and (labels[~part] == 2).all()
    many = published(*[part] * 300)
    labels = np.frombuffer(messages.label_image(many, (20, 20), Header()).data, np.uint8)
    assert labels.max() == 255


def published(*masks: np.ndarray) -> list:
    """The masks as they go out."""
    nowhere = Objects3D.none(len(masks), "")
    return messages.instance_messages([instance(one, "it") for one in masks], Header(), nowhere)


def test_a_summary_fits_a_screen():
    """Whatever is in the answer, its masks are not."""
    answer = Segmentation(query="the mug", status=1, answer="It is here.", query_id="7")
    assert messages.summary(answer) == "query 7 'the mug': OK, 0 ms\nIt is here."


def test_a_subscription_is_not_destroyed_while_a_message_is_taken():
    """The middleware would be asked for a message of something that is gone."""
    taking, go_on, destroyed = threading.Event(), threading.Event(), threading.Event()

    class Handle:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def take_message(self, kind, raw):
            taking.set()
            assert go_on.wait(180)
            assert not destroyed.is_set()
            return "message", {}

    node = SimpleNamespace(destroy_subscription=lambda one: destroyed.set())
    subscription = OnDemandSubscription(node, SETTINGS, "input.qos", 1)
    subscription._subscription = SimpleNamespace(handle=Handle())
    taken: list[object] = []
    threads = [
        threading.Thread(target=lambda: taken.append(subscription.take())),
        threading.Thread(target=subscription.close),
    ]
    threads[0].start()
    assert taking.wait(180)
    threads[1].start()
    assert not destroyed.wait(0.2)
    go_on.set()
    for one in threads:
        one.join()
    assert taken == [("message", {})] and destroyed.is_set()
    assert subscription.take() is None


def test_the_scene_is_without_any_of_the_objects():
    where, other = found(look_up=None), np.zeros(DEPTH.shape, bool)
    other[20:60, 20:60] = True
    one = objects3d.scene_cloud(where, COLOR, MASKS)
    both = objects3d.scene_cloud(where, COLOR, [*MASKS, other])
    assert len(both) <= len(one) - other.sum()
