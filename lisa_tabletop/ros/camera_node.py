"""The simulated tabletop as a ROS camera: colour, depth and camera_info with one stamp."""

from __future__ import annotations

import numpy as np
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from lisa_ros.node.inputs.image_conversion import to_message
from lisa_tabletop.world.camera import SceneView, TabletopCamera
from lisa_tabletop.world.tabletop import Tabletop

IMAGE, DEPTH, INFO = "/camera/image_raw", "/camera/depth/image_raw", "/camera/camera_info"
FRAME = "camera_color_optical_frame"


class ViewPublisher:
    """Publishes views as a camera does: /camera/image_raw (rgb8), /camera/depth/image_raw (16UC1,
    millimetres) and /camera/camera_info, all with the stamp of now."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._image = node.create_publisher(Image, IMAGE, 1)
        self._depth = node.create_publisher(Image, DEPTH, 1)
        self._info = node.create_publisher(CameraInfo, INFO, 1)

    def publish(self, view: SceneView, stamp: Time | None = None) -> Header:
        """With the stamp of now unless another is given; returns the header of all three."""
        header = Header(stamp=(stamp or self._clock.now()).to_msg(), frame_id=FRAME)
        self._info.publish(camera_info(view, header))
        self._depth.publish(depth_message(view.depth, header))
        self._image.publish(to_message(view.rgb, "rgb8", header))
        return header


class SimCamera(Node):
    """The live camera over one table.

    Args:
        seed: of the scene and of the camera's pose.
        rate: images per second; a slow machine gives fewer.
    """

    def __init__(self, seed: int, rate: float) -> None:
        super().__init__("sim_camera", namespace="camera")
        camera = TabletopCamera(Tabletop(seed))
        camera.move(np.random.default_rng((seed, 1)))
        publisher = ViewPublisher(self)
        self.create_timer(1 / rate, lambda: publisher.publish(camera.look()))
        things = ", ".join(f"{item.color} {item.kind}" for item in camera.scene.items)
        self.get_logger().info(f"on the table: {things}")


def depth_message(depth: np.ndarray, header: Header) -> Image:
    """Depth (H,W) in metres as 16UC1 millimetres, 0 where it is beyond the encoding's 65 m."""
    millimetres = np.where(depth < 65.0, np.round(depth * 1000), 0).astype(np.uint16)
    return to_message(millimetres, "16UC1", header)


def camera_info(view: SceneView, header: Header) -> CameraInfo:
    """The pinhole of a view, without distortion."""
    height, width = view.depth.shape
    projection = np.hstack([view.intrinsics, np.zeros((3, 1))])
    return CameraInfo(
        header=header,
        height=height,
        width=width,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=view.intrinsics.ravel().tolist(),
        r=np.eye(3).ravel().tolist(),
        p=projection.ravel().tolist(),
    )
