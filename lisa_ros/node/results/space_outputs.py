"""What the node publishes about the objects in space, and the inputs that an answer is about."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Float32MultiArray, Header

from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.inputs.qos import kept
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.results import clouds_and_grasps as scene
from lisa_ros.node.results import space_messages
from lisa_ros.node.results.localization import Space

KEPT = 5
WITHOUT_MARKERS = "visualization_msgs is not installed, so nothing is published on markers"


class SpaceOutputs:
    """Publishers that work while somebody listens. Publishing is safe from any thread."""

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._parameters = parameters

        def publisher(kind: type, name: str) -> Any:
            return node.create_publisher(kind, name, kept(KEPT))

        self._image = publisher(Image, "input/image")
        self._depth = publisher(Image, "input/depth")
        self._info = publisher(CameraInfo, "input/camera_info")
        self._points = publisher(PointCloud2, "points")
        self._scene = publisher(PointCloud2, "scene/points")
        self._grasps = publisher(PoseArray, "grasps")
        self._scores = publisher(Float32MultiArray, "grasps/scores")
        self._markers: Any = None
        try:
            from visualization_msgs.msg import MarkerArray

            self._markers = publisher(MarkerArray, "markers")
        except ImportError:
            node.get_logger().warning(WITHOUT_MARKERS)

    def publish(self, query: Query, outcome: Outcome, message: Segmentation) -> None:
        """Everything about an answer, also about one that found nothing."""
        space = outcome.space
        self._publish_inputs(query, space, message.header)
        if space is None:
            return
        header = Header(stamp=message.header.stamp, frame_id=space.frame_id)
        masks = [one.mask for one in outcome.answer.instances]
        if _heard(self._grasps, self._scores):
            found = scene.grasps(space, masks, self._parameters)
            poses, scores = space_messages.grasp_messages(found, header, query.id)
            self._grasps.publish(poses)
            self._scores.publish(scores)
        if _heard(self._points):
            points = scene.object_cloud(space, query.frame.decoded)
            self._points.publish(space_messages.cloud_message(points, header))
        if self._markers is not None and _heard(self._markers):
            labels = [one.label for one in message.instances]
            self._markers.publish(space_messages.marker_array(space.things, labels, header))
        if _heard(self._scene):
            points = scene.scene_cloud(space, query.frame.decoded, masks)
            self._scene.publish(space_messages.cloud_message(points, header))

    def _publish_inputs(self, query: Query, space: Space | None, header: Header) -> None:
        """Image, depth and camera_info once more, all with the header of the image.

        An answer comes later than synchronisers remember the camera's own messages, and those may
        have stamps of their own.
        """
        frame, partner = query.frame, query.frame.partner
        if frame.decoded is not None and _heard(self._image):
            compressed = isinstance(frame.message, CompressedImage)
            image = to_message(frame.decoded, "rgb8", header) if compressed else frame.message
            self._image.publish(image)
        if partner.depth is not None and _heard(self._depth):
            if not isinstance(partner.depth, CompressedImage):
                self._depth.publish(_with_header(partner.depth, header))
            elif space is not None and space.depth is not None:
                encoding = "16UC1" if space.depth.dtype == np.uint16 else "32FC1"
                self._depth.publish(to_message(space.depth, encoding, header))
        if partner.info is not None and _heard(self._info):
            self._info.publish(_with_header(partner.info, header))


def _heard(*publishers: Any) -> bool:
    return any(one.get_subscription_count() for one in publishers)


def _with_header(message: Any, header: Header) -> Any:
    """The same message with another header; its data are not copied."""
    copied = copy(message)
    copied.header = header
    return copied
