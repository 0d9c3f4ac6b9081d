"""Why no image arrives: the most frequent question about a perception node, answered by it."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from lisa_ros.errors import counted
from lisa_ros.node.inputs.camera import CameraInput
from lisa_ros.node.inputs.depth import DepthInput
from lisa_ros.node.inputs.subscription import BEST_EFFORT, RELIABLE, OnDemandSubscription
from lisa_ros.node.parameters import Parameters

REPEAT = 30.0  # seconds between two equal warnings in the log
SHOWN = 6  # topics that are named as possible cameras
OUR_TYPE = "lisa_ros/msg/Segmentation"
CLOSED = "closed while the node is not active"
Report = tuple[bytes, str, dict[str, Any]]
"""level, sentence and values for the diagnostics"""


class CameraWatchdog:
    """Looks at camera, depth and camera_info once a second; warns in the log, reports."""

    def __init__(
        self, node: Node, camera: CameraInput, depth: DepthInput, parameters: Parameters
    ) -> None:
        self._node, self._camera, self._depth = node, camera, depth
        self._parameters = parameters
        self._warned: dict[str, tuple[str, float]] = {}
        self._seen: tuple[int, float] | None = None

    def camera(self) -> Report:
        """Whether images arrive, and if not, why."""
        camera = self._camera
        if not camera.subscription.reliability:
            return DiagnosticStatus.OK, CLOSED, {}
        frame = camera.last
        waited = frame.age if frame else time.monotonic() - camera.opened
        values = {
            "topic": camera.topic,
            "reliability": camera.subscription.reliability,
            "seconds since the last image": f"{waited:.2f}",
            "published images per second": self._rate(),
            "images looked at": camera.looked_at,
            "images passed over or lost": camera.dropped,
        }
        misfit = self._misfit(camera.subscription)
        if misfit:
            return self._warn(camera.topic, f"{camera.topic}: {misfit}", misfit, values)
        if waited <= self._parameters["input.warn_after"]:
            sentence = "images arrive" if frame else "waiting for the first image"
            return DiagnosticStatus.OK, sentence, values
        reason = self._why_missing()
        told = f"no image since {waited:.0f} s on {camera.topic}: {reason}"
        return self._warn(camera.topic, told, reason, values)

    def depth(self) -> Report:
        """Whether depth images belong to the images, and why the last one had none."""
        depth = self._depth
        values = {
            "topic": depth.depth.topic,
            "images with depth": depth.matched,
            "images without": depth.missed,
        }
        if not depth.depth.reliability:
            return DiagnosticStatus.OK, CLOSED, values
        values["reliability"] = depth.depth.reliability
        if not depth.depth.has_publishers:
            told = f"nobody publishes {depth.depth.topic}: answers have no 3-D part"
            return DiagnosticStatus.OK, told, values
        for one in (depth.depth, depth.info):
            problem = self._misfit(one) or self._wrong_type(one)
            if one is depth.info and not one.has_publishers:
                problem = "nobody publishes it, and without it depth has no scale across"
            if problem:
                return self._warn(one.topic, f"{one.topic}: {problem}", problem, values)
        if depth.reason:
            return DiagnosticStatus.WARN, depth.reason, values
        if depth.note:
            return DiagnosticStatus.WARN, depth.note, values
        return DiagnosticStatus.OK, "depth images fit", values

    def _why_missing(self) -> str:
        """What the graph tells about a missing image, and what to do about it."""
        subscription = self._camera.subscription
        offered = self._offered(subscription)
        if not offered:
            problem = self._wrong_type(subscription) or "nobody publishes it"
            return f"{problem}; {self._advice()}"
        return (
            f"{_listing(subscription, offered)}: these fit, so the camera sends nothing, or its "
            "images are large and get lost on the way (docs/troubleshooting.md)"
        )

    def _misfit(self, subscription: OnDemandSubscription) -> str:
        """A publisher whose messages this subscription cannot get; empty if there is none.

        The middleware reports it as an event too, but once, and only to who waits for events.
        """
        offered = self._offered(subscription)
        if subscription.reliability != RELIABLE or BEST_EFFORT not in offered:
            return ""
        return (
            f"{_listing(subscription, offered)}: these do not fit, set "
            f"{subscription.qos_parameter} to auto or sensor_data"
        )

    def _wrong_type(self, subscription: OnDemandSubscription) -> str:
        """What is published there instead; empty if somebody sends the right type, or nobody."""
        infos = self._node.get_publishers_info_by_topic(subscription.topic)
        found = sorted({info.topic_type for info in infos})
        if not found or subscription.type in found:
            return ""
        return f"its publishers send {', '.join(found)}, not {subscription.type}"

    def _offered(self, subscription: OnDemandSubscription) -> list[str]:
        """Reliability of each publisher of the right type."""
        infos = self._node.get_publishers_info_by_topic(subscription.topic)
        right = [info for info in infos if info.topic_type == subscription.type]
        return [info.qos_profile.reliability.name for info in right]

    def _advice(self) -> str:
        """Which topics the user may have meant as the camera."""
        subscription = self._camera.subscription
        other = "raw" if subscription.kind is CompressedImage else "compressed"
        twin = subscription.topic
        twin = twin.removesuffix("/compressed") if other == "raw" else f"{twin}/compressed"
        if self._node.count_publishers(twin):
            return f"{twin} is published: set input.transport to {other}"
        ours = self._topics_of_perception_nodes()
        cameras = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if subscription.type in types and self._node.count_publishers(name) > ours[name]
        ]
        if cameras:
            return f"remap image to one of these: {', '.join(cameras[:SHOWN])}"
        return (
            f"no topic of type {subscription.type} is published in this ROS domain: "
            "is the camera started?"
        )

    def _topics_of_perception_nodes(self) -> Counter[str]:
        """What this node and others of its kind publish: their masks and overlays are no cameras.

        The publishers of a topic cannot be asked for by its full name: rclpy would remap it.
        """
        found: Counter[str] = Counter()
        for name, namespace in self._node.get_node_names_and_namespaces():
            topics = self._node.get_publisher_names_and_types_by_node(name, namespace)
            if any(OUR_TYPE in types for _, types in topics):
                found.update(topic for topic, _ in topics)
        return found

    def _rate(self) -> str:
        """Images per second by the publisher's own count, where the middleware tells it."""
        count, now = self._camera.published, time.monotonic()
        before, self._seen = self._seen, None if count is None else (count, now)
        if before is None or count is None or count < before[0]:
            return "unknown"
        return f"{(count - before[0]) / max(now - before[1], 1e-3):.1f}"

    def _warn(self, topic: str, sentence: str, reason: str, values: dict[str, Any]) -> Report:
        """Into the log, but not once a second; and as a report."""
        now = time.monotonic()
        warned, at = self._warned.get(topic, ("", 0.0))
        if reason != warned or now - at > REPEAT:
            self._warned[topic] = reason, now
            self._node.get_logger().warning(sentence)
        return DiagnosticStatus.WARN, sentence, values


def _listing(subscription: OnDemandSubscription, offered: list[str]) -> str:
    names = f"{counted(len(offered), 'publisher')} ({', '.join(offered)})"
    return f"{names}, this subscription is {subscription.reliability}"
