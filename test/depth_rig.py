"""A camera with depth over a box on a table, and what the node publishes about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray
from geometry_scenes import CAMERA, on_table, render
from lisa_ros.msg import Instance, Segmentation
from node_rig import Rig, image_message, wait_for
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Float32MultiArray, Header
from visualization_msgs.msg import MarkerArray

from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.status import Status

SCENE = on_table((0.1, 0.06, 0.08))
DEPTH, SEEN = render([SCENE.thing, SCENE.table])
COLOR = np.where((SEEN == 0)[..., None], np.uint8([200, 100, 50]), np.uint8([90, 90, 90]))
HEIGHT, WIDTH = DEPTH.shape
K = [CAMERA.fx, 0.0, CAMERA.cx, 0.0, CAMERA.fy, CAMERA.cy, 0.0, 0.0, 1.0]
INFO = CameraInfo(width=WIDTH, height=HEIGHT, k=K, distortion_model="plumb_bob", d=[0.0] * 5)
FRAME = "camera_optical"


class DepthCamera:
    """Publishes camera_info, depth and image, each set with a stamp one second after the last."""

    def __init__(self, robot: Rig) -> None:
        self.robot, self.second = robot, 10
        self.info = robot.node.create_publisher(CameraInfo, "camera_info", 10)
        self.depth = robot.node.create_publisher(Image, "depth", 10)
        for publisher in (self.info, self.depth, robot.images):
            # subscribed anew, once the node has seen that the publisher is reliable
            name = publisher.topic_name
            wait_for(lambda topic=name: self.reliably_heard(topic), f"the node on {name}")

    def reliably_heard(self, topic: str) -> bool:
        found = self.robot.node.get_subscriptions_info_by_topic(topic)
        return [one.qos_profile.reliability.name for one in found] == ["RELIABLE"]

    def show(
        self,
        depth: Image | None = None,
        info: CameraInfo | None = INFO,
        away: float = 0.0,
        image: np.ndarray = COLOR,
        stamped: bool = True,
    ) -> Header:
        """One set, the depth image `away` seconds later by its stamp; the header of the image.

        `stamped`: false for a depth camera that sets no stamps.
        """
        self.second += 1
        message = image_message(image, stamp=(self.second, 500_000_000))
        if info is not None:
            info.header = message.header if stamped else Header(frame_id=FRAME)
            self.info.publish(info)
        if depth is not None:
            frame_id = depth.header.frame_id or FRAME
            depth.header = Header(frame_id=frame_id)
            if stamped:
                depth.header.stamp = later(message.header, away)
            self.depth.publish(depth)
        self.robot.images.publish(message)
        return message.header

    def ask(self, text: str = "it", **given: Any) -> Segmentation:
        """The answer about a new set."""
        header = self.show(**given)

        def answer() -> Segmentation | None:
            result = self.robot.ask(text)
            return result if result.header == header else None

        result = wait_for(answer, "the new image")
        assert result.status in (Status.OK, Status.NOT_FOUND) and result.error == ""
        return result


def later(header: Header, seconds: float) -> Any:
    nanoseconds = header.stamp.sec * 10**9 + header.stamp.nanosec + round(seconds * 1e9)
    return type(header.stamp)(sec=nanoseconds // 10**9, nanosec=nanoseconds % 10**9)


def millimetres(depth: np.ndarray = DEPTH) -> Image:
    return to_message(np.round(depth * 1000).astype(np.uint16), "16UC1", Header())


def metres(depth: np.ndarray = DEPTH) -> Image:
    return to_message(depth.astype(np.float32), "32FC1", Header())


def true_mask(folder: Path) -> str:
    """The parameter of a model that knows the true mask of the object; written into `folder`."""
    path = folder / "masks.npy"
    np.save(path, (SEEN == 0)[None])
    return f"model.path:=masks:{path}"


def check_is_the_thing(found: Instance, tolerance: float = 0.002) -> None:
    """The box of the instance is the cuboid of the scene."""
    middle, size, thing = found.pose.pose.position, found.size, SCENE.thing
    assert found.has_pose and found.pose_reason == ""
    assert np.allclose([middle.x, middle.y, middle.z], thing.center, atol=tolerance)
    assert np.allclose([size.x, size.y, size.z], thing.size, atol=tolerance)


HEARD = {
    "points": PointCloud2,
    "scene/points": PointCloud2,
    "markers": MarkerArray,
    "grasps": PoseArray,
    "grasps/scores": Float32MultiArray,
    "input/image": Image,
    "input/depth": Image,
    "input/camera_info": CameraInfo,
}


@contextmanager
def listening(robot: Rig) -> Iterator[dict[str, list[Any]]]:
    with ExitStack() as stack:
        yield {name: stack.enter_context(robot.hearing(kind, name)) for name, kind in HEARD.items()}
