"""Which depth image belongs to an image: by stamp, when late, over new subscriptions."""

from __future__ import annotations

import io
import struct
import time
from array import array
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from depth_rig import (
    COLOR,
    DEPTH,
    FRAME,
    INFO,
    DepthCamera,
    check_is_the_thing,
    later,
    millimetres,
)
from lisa_ros.msg import Instance
from node_rig import rig, wait_for
from PIL import Image as PilImage
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from lisa_ros.node.inputs.depth import DepthInput
from lisa_ros.node.inputs.frame import Received


def test_the_nearest_depth_image_is_taken(camera):
    wrong, right = millimetres(2 * DEPTH), millimetres()
    for away, depth in ((0.09, wrong), (-0.02, right)):
        depth.header.stamp = later(Header(stamp=_stamp(camera.second + 1)), away)
        depth.header.frame_id = FRAME
        camera.depth.publish(depth)
    check_is_the_thing(camera.ask().instances[0])


def _stamp(second: int) -> Any:
    return Header().stamp.__class__(sec=second, nanosec=500_000_000)


def test_depth_that_comes_after_its_image(camera):
    """As many drivers send it; the query waits for the image meanwhile."""
    robot = camera.robot
    time.sleep(1.1)  # the image before is too old now
    before = len(robot.results)
    robot.say("it")
    time.sleep(0.1)
    header = camera.show()
    time.sleep(0.03)
    depth = millimetres()
    depth.header = header
    camera.depth.publish(depth)
    wait_for(lambda: len(robot.results) > before, "the result")
    check_is_the_thing(robot.results[-1].instances[0])


def test_a_query_waits_only_while_a_nearer_depth_image_can_come():
    """What is needed is one at or behind the image, within the slop, and a camera_info."""
    found = DepthInput(SimpleNamespace(), {"depth.slop": 0.1, "depth.qos": "auto"})
    published = SimpleNamespace(has_publishers=True)
    found.depth, found.info = published, published
    header = Header(stamp=_stamp(5))

    def settled(*away: float, info: bool = True) -> bool:
        for kept in (found._depths, found._infos):
            kept.clear()
        found._depths += [Received(Image(header=Header(stamp=later(header, a))), 0.0) for a in away]
        found._infos += [Received(INFO, 0.0)] * info
        return found._settled(Received(Image(header=header), 0.0))

    assert settled(0.0) and settled(0.05) and settled(-0.05, 0.09)
    assert not settled() and not settled(-0.05) and not settled(0.2)
    assert not settled(0.0, info=False)
    found.info = SimpleNamespace(has_publishers=False)
    assert settled(0.0, info=False), "nobody publishes one"
    found.depth = SimpleNamespace(has_publishers=False)
    assert settled()


def test_the_first_depth_image_of_all_may_be_late(masks):
    """A subscription that was only just made has not found its publisher yet."""
    with rig() as robot:
        robot.start("-p", masks, "-p", "depth.slop:=0.02")
        camera = DepthCamera(robot)  # its end is the moment of the new subscriptions
        header = camera.show()
        robot.say("it")
        time.sleep(0.3)
        depth = millimetres()
        depth.header = header
        camera.depth.publish(depth)
        wait_for(lambda: robot.results, "the result")
        check_is_the_thing(robot.results[-1].instances[0])
        last = camera.ask().instances[0]  # the next one is not waited for any longer than usual
        assert not last.has_pose and "within 0.02 s" in last.pose_reason


def test_what_has_come_survives_a_new_subscription(masks):
    """Here another publisher appears that is not reliable, so that the node subscribes anew."""
    with rig() as robot:
        robot.start("-p", masks, "-p", "input.max_age:=60.0")
        camera = DepthCamera(robot)
        header = camera.show(depth=millimetres())
        robot.node.create_publisher(Image, "depth", qos_profile_sensor_data)
        name = camera.depth.topic_name
        wait_for(lambda: not camera.reliably_heard(name), "the new subscription")
        result = robot.ask("it")
        assert result.header == header
        check_is_the_thing(result.instances[0])


def test_time_that_jumps_back_as_in_a_looped_bag(camera):
    """What is kept from before would be as near by stamp as the right one, or nearer."""
    camera.ask(depth=millimetres(2 * DEPTH))
    camera.ask(depth=millimetres(2 * DEPTH))
    camera.second -= 2
    check_is_the_thing(camera.ask(depth=millimetres(), away=0.02).instances[0])


def test_queries_about_one_image_share_its_depth(camera):
    first = camera.ask(depth=millimetres())
    second = camera.robot.ask("it")
    assert second.header == first.header
    check_is_the_thing(second.instances[0])


def test_compressed_depth_and_a_latched_camera_info(masks):
    """compressedDepth as image_transport makes it; the camera_info was sent once, before."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    with rig() as robot:
        info = robot.node.create_publisher(CameraInfo, "camera_info", latched)
        info.publish(INFO)
        robot.start("-p", masks, "-p", "depth.transport:=compressed", "-p", "depth.slop:=5.0")
        depth = robot.node.create_publisher(CompressedImage, "depth/compressedDepth", 10)
        wait_for(depth.get_subscription_count, "the node's subscription")

        def placed(message: CompressedImage) -> Instance | None:
            image = robot.show(COLOR)
            message.header = image.header
            depth.publish(message)
            result = robot.ask("it")
            return result.instances[0] if result.instances and result.instances[0].points else None

        for encoding in ("16UC1", "32FC1"):
            found = wait_for(lambda kind=encoding: placed(compressed(kind)), f"depth by {encoding}")
            check_is_the_thing(found, 0.004)


def compressed(encoding: str) -> CompressedImage:
    """Depth as whole millimetres, or as inverse metres with a quantum and an offset."""
    quantum, offset = 100.0, 1.5
    whole = np.round(DEPTH * 1000) if encoding == "16UC1" else np.round(quantum / DEPTH + offset)
    file = io.BytesIO()
    PilImage.fromarray(whole.astype(np.uint16)).save(file, "PNG")
    data = struct.pack("<iff", 0, quantum, offset) + file.getvalue()
    return CompressedImage(format=f"{encoding}; compressedDepth png", data=array("B", data))
