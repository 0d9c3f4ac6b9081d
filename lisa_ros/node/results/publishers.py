"""Everything the node publishes about a query."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseArray
from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Float32MultiArray, Header, String

from lisa_ros.geometry import Grasp
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.inputs.subscription import latched_qos, reliable_qos
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.results import messages, objects3d
from lisa_ros.node.results.objects3d import Objects3D
from lisa_ros.node.results.overlay import draw_overlay
from lisa_ros.node.status import ANSWERED, Status

RESULTS_KEPT = 1000  # a flood of rejected queries must not overwrite results that are on their way
IMAGES_KEPT = 5


class ResultPublishers:
    """The publishers of results. They exist as long as the node and work in every state of it.

    Lifecycle publishers would be silent while the node is inactive, and a query that arrives then
    must be answered too. Publishing is safe from any thread.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        def images(kind: type, name: str) -> Any:
            return node.create_publisher(kind, name, reliable_qos(IMAGES_KEPT))

        self._parameters, self._logger = parameters, node.get_logger()
        self._drawing = NewestWins(self._logger)
        self._result = node.create_publisher(Segmentation, "mask", reliable_qos(RESULTS_KEPT))
        # For people and for who comes late. On `mask` an old target would be taken for a new one.
        self._last = node.create_publisher(Segmentation, "mask/last", latched_qos())
        self._summary = node.create_publisher(String, "mask/summary", latched_qos())
        self._answer = node.create_publisher(String, "answer", reliable_qos(RESULTS_KEPT))
        self._union = images(Image, "mask/image")
        self._labels = images(Image, "mask/labels")
        self._names = node.create_publisher(String, "mask/label_names", latched_qos())
        self._overlay = images(Image, "overlay")
        self._image = images(Image, "input/image")
        self._depth = images(Image, "input/depth")
        self._info = images(CameraInfo, "input/camera_info")
        self._points = images(PointCloud2, "points")
        self._scene = images(PointCloud2, "scene/points")
        self._grasps = images(PoseArray, "grasps")
        self._scores = images(Float32MultiArray, "grasps/scores")
        self._detections = DetectionPublishers(node, "mask")
        # Two packages that not every robot has.
        self._infos: Any = None
        self._markers: Any = None
        try:
            from vision_msgs.msg import LabelInfo

            self._infos = node.create_publisher(LabelInfo, "mask/label_info", latched_qos())
        except ImportError:
            pass
        try:
            from visualization_msgs.msg import MarkerArray

            self._markers = images(MarkerArray, "markers")
        except ImportError:
            node.get_logger().warning(
                "visualization_msgs is not installed, so nothing is published on markers"
            )

    def publish_result(self, query: Query, outcome: Outcome, model: str) -> Segmentation:
        """Send the result of a query out; returns it."""
        message, grasps = messages.segmentation(query, outcome, model), None
        if outcome.objects is not None and _has_subscribers(self._grasps, self._scores):
            began = time.monotonic()
            grasps, reasons = self._look_for_grasps(outcome)
            for one in message.instances:
                one.grasps_reason = reasons.get(one.id, "")
            message.timings.grasps = (time.monotonic() - began) * 1e3
        message.timings.total = messages.since(query)
        self._result.publish(message)
        if grasps is not None:
            header = Header(stamp=message.header.stamp, frame_id=outcome.objects.frame_id)
            poses, scores = messages.grasp_messages(grasps, header, query.id)
            self._grasps.publish(poses)
            self._scores.publish(scores)
        return message

    def _look_for_grasps(self, outcome: Outcome) -> tuple[list[tuple[int, Grasp]], dict[int, str]]:
        """Grasps, and by the number of an object why there are none; the masks stand anyway."""
        masks = [one.mask for one in outcome.answer.instances]
        try:
            return objects3d.grasps(outcome.objects, masks, self._parameters)
        except Exception as error:
            self._logger.error(f"grasps\n{traceback.format_exc()}")
            reason = f"looking for grasps failed with {type(error).__name__}; see the node's log"
            return [], dict.fromkeys(range(1, len(masks) + 1), reason)

    def publish_rest(self, query: Query, outcome: Outcome, message: Segmentation) -> None:
        """The words, and the rest for those who listen."""
        self._answer.publish(String(data=messages.words(message)))
        self._last.publish(message)
        self._summary.publish(String(data=messages.summary(message)))
        if query.frame is None:
            return
        if outcome.status in ANSWERED:
            self._publish_masks(message)
            self._publish_inputs(query.frame, outcome.objects, message.header)
            self._publish_objects(query, outcome, message)
        if query.frame.decoded is not None:
            self._publish_drawn("overlay", self._overlay, lambda: _overlay(query, outcome, message))

    def _publish_masks(self, message: Segmentation) -> None:
        if _has_subscribers(self._union):
            self._union.publish(messages.union_image(message))
        if _has_subscribers(self._labels):
            size = message.width, message.height
            labels = messages.label_image(message.instances, size, message.header)
            self._labels.publish(labels)
        self._names.publish(String(data=messages.label_names(message)))
        if self._infos is not None:
            self._infos.publish(messages.label_info(message))
        self._detections.publish(message)

    def _publish_inputs(self, frame: Frame, objects: Objects3D, header: Header) -> None:
        """Image, depth and camera_info once more, all with the header of the image.

        An answer comes later than synchronisers remember the camera's own messages, and those may
        have stamps of their own.
        """
        match = frame.match
        if _has_subscribers(self._image):
            compressed = isinstance(frame.message, CompressedImage)
            image = to_message(frame.decoded, "rgb8", header) if compressed else frame.message
            self._image.publish(image)
        if match.depth is not None and _has_subscribers(self._depth):
            if not isinstance(match.depth, CompressedImage):
                self._depth.publish(_with_header(match.depth, header))
            elif objects.depth is not None:
                encoding = "16UC1" if objects.depth.dtype == np.uint16 else "32FC1"
                self._depth.publish(to_message(objects.depth, encoding, header))
        if match.info is not None and _has_subscribers(self._info):
            self._info.publish(_with_header(match.info, header))

    def _publish_objects(self, query: Query, outcome: Outcome, message: Segmentation) -> None:
        """What is made of the objects in space; also when nothing was found, then it is empty."""
        found, rgb = outcome.objects, query.frame.decoded
        header = Header(stamp=message.header.stamp, frame_id=found.frame_id)
        masks = [one.mask for one in outcome.answer.instances]

        def points() -> PointCloud2:
            return messages.cloud_message(objects3d.object_cloud(found, rgb), header)

        def markers() -> Any:
            labels = [one.label for one in message.instances]
            return messages.marker_array(found.objects, labels, header)

        def scene() -> PointCloud2:
            return messages.cloud_message(objects3d.scene_cloud(found, rgb, masks), header)

        self._publish_drawn("points", self._points, points)
        self._publish_drawn("markers", self._markers, markers)
        self._publish_drawn("scene", self._scene, scene)

    def _publish_drawn(self, name: str, publisher: Any, make: Callable[[], Any]) -> None:
        """Send out what `make` makes while someone listens; the next query does not wait for it."""
        if publisher is not None and _has_subscribers(publisher):
            self._drawing.submit(name, lambda: publisher.publish(make()))

    def close(self, seconds: float) -> None:
        """Wait until the results have arrived wherever they are awaited, at most so long."""
        self._drawing.close()
        self._result.wait_for_all_acked(Duration(seconds=seconds))


class DetectionPublishers:
    """The same as vision_msgs, for programs that know no other messages; where it is installed."""

    def __init__(self, node: Node, under: str) -> None:
        """`under`: the topic whose messages they repeat."""
        self._both: list[tuple[Any, Callable[[Segmentation], Any]]] = []
        try:
            from vision_msgs.msg import Detection2DArray, Detection3DArray
        except ImportError:
            return
        qos = reliable_qos(IMAGES_KEPT)
        for name, kind, make in (
            ("detections_2d", Detection2DArray, messages.detections_2d),
            ("detections_3d", Detection3DArray, messages.detections_3d),
        ):
            self._both.append((node.create_publisher(kind, f"{under}/{name}", qos), make))

    def publish(self, message: Segmentation) -> None:
        """Both, while someone listens."""
        for publisher, make in self._both:
            if _has_subscribers(publisher):
                publisher.publish(make(message))


class NewestWins:
    """A thread for what is made for people and maps, so that the next query does not wait for it.

    Of the jobs with one name only the newest is kept while the thread is busy.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._jobs: dict[str, Callable[[], None]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lisa_drawing")

    def submit(self, name: str, job: Callable[[], None]) -> None:
        """Have the job done soon, unless a newer one of its name comes before its turn."""
        with self._lock:
            waits = name in self._jobs
            self._jobs[name] = job
        if not waits:
            self._thread.submit(self._do, name)

    def _do(self, name: str) -> None:
        with self._lock:
            job = self._jobs.pop(name)
        try:
            job()
        except Exception:
            self._logger.error(f"{name}\n{traceback.format_exc()}")

    def close(self) -> None:
        """Take nothing more; what waits is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _overlay(query: Query, outcome: Outcome, message: Segmentation) -> Image:
    found = outcome.answer.instances if outcome.answer else query.instances
    drawn = draw_overlay(
        query.frame.decoded,
        [one.mask for one in found],
        query.instruction,
        message.error or message.answer,
        failed=outcome.status not in (Status.OK, Status.TEXT_ONLY),
    )
    return to_message(drawn, "rgb8", message.header)


def _has_subscribers(*publishers: Any) -> bool:
    return any(one.get_subscription_count() for one in publishers)


def _with_header(message: Any, header: Header) -> Any:
    """The same message with another header; its data are not copied."""
    copied = copy(message)
    copied.header = header
    return copied
