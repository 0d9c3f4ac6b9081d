"""The simulated tabletop as a ROS camera: colour, depth and camera_info with one stamp."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from lisa_ros.node.inputs.image_conversion import to_message
from lisa_tabletop.world.camera import TabletopCamera, View
from lisa_tabletop.world.tabletop import Tabletop

FRAME = "camera_color_optical_frame"


class SimCamera(Node):
    """Publishes `image_raw` (rgb8), `depth/image_raw` (16UC1, millimetres) and `camera_info`.

    Args:
        seed: of the scene and of the camera's pose.
        rate: pictures per second; a slow machine gives fewer.
    """

    def __init__(self, seed: int, rate: float) -> None:
        super().__init__("sim_camera", namespace="camera")
        self._camera = TabletopCamera(Tabletop(seed))
        self._camera.move(np.random.default_rng((seed, 1)))
        self._image = self.create_publisher(Image, "image_raw", 1)
        self._depth = self.create_publisher(Image, "depth/image_raw", 1)
        self._info = self.create_publisher(CameraInfo, "camera_info", 1)
        self.create_timer(1 / rate, self._tick)
        things = ", ".join(f"{item.color} {item.kind}" for item in self._camera.scene.items)
        self.get_logger().info(f"on the table: {things}")

    def _tick(self) -> None:
        view = self._camera.look()
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=FRAME)
        self._image.publish(to_message(view.rgb, "rgb8", header))
        self._depth.publish(depth_message(view.depth, header))
        self._info.publish(camera_info(view, header))


def depth_message(depth: np.ndarray, header: Header) -> Image:
    """Depth (H,W) in metres as 16UC1 millimetres, 0 where it is beyond the encoding's 65 m."""
    millimetres = np.where(depth < 65.0, np.round(depth * 1000), 0).astype(np.uint16)
    return to_message(millimetres, "16UC1", header)


def camera_info(view: View, header: Header) -> CameraInfo:
    """The pinhole of a view, without distortion."""
    height, width = view.depth.shape
    matrix = view.intrinsics
    projection = np.hstack([matrix, np.zeros((3, 1))])
    return CameraInfo(
        header=header,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=matrix.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=projection.ravel().tolist(),
    )
