"""Why no image arrives: the most frequent question about a perception node, answered by it."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from lisa_ros.node.inputs.camera import Camera
from lisa_ros.node.inputs.qos import BEST_EFFORT, RELIABLE
from lisa_ros.node.interfaces import INTERFACES
from lisa_ros.node.parameters import Parameters

REPEAT = 30.0  # seconds between two equal warnings in the log
SHOWN = 6  # topics that are named as possible cameras


class Watchdog:
    """Looks at the camera once a second; warns in the log, reports for the diagnostics."""

    def __init__(self, node: Node, camera: Camera, parameters: Parameters) -> None:
        self._node = node
        self._camera = camera
        self._parameters = parameters
        self._warned, self._warned_at = "", 0.0
        self._seen: tuple[int, float] | None = None

    def report(self) -> tuple[bytes, str, dict[str, Any]]:
        """Level, sentence and values for the diagnostics."""
        camera = self._camera
        if not camera.reliability:
            return DiagnosticStatus.OK, "closed while the node is not active", {}
        frame = camera.last
        waited = frame.age if frame else time.monotonic() - camera.opened
        values = {
            "topic": camera.topic,
            "reliability": camera.reliability,
            "seconds since the last image": f"{waited:.2f}",
            "published images per second": self._rate(),
            "images looked at": camera.looked_at,
            "images passed over or lost": camera.passed_over,
        }
        misfit = self._misfit()
        if misfit:
            self._warn(f"{camera.topic}: {misfit}", misfit)
            return DiagnosticStatus.WARN, misfit, values
        if waited <= self._parameters["input.warn_after"]:
            sentence = "images arrive" if frame else "waiting for the first image"
            return DiagnosticStatus.OK, sentence, values
        reason = self.reason()
        self._warn(f"no image since {waited:.0f} s on {camera.topic}: {reason}", reason)
        return DiagnosticStatus.WARN, f"no image since {waited:.0f} s: {reason}", values

    def reason(self) -> str:
        """What the graph tells about a missing image, and what to do about it."""
        publishers = self._node.get_publishers_info_by_topic(self._camera.topic)
        wanted, offered = self._wanted, self._offered()
        if not offered:
            found = ", ".join(sorted({info.topic_type for info in publishers}))
            problem = (
                f"its publishers send {found}, not {wanted}" if found else "nobody publishes it"
            )
            return f"{problem}; {self._advice(wanted)}"
        return (
            f"{self._listing(offered)}: these fit, so the camera sends nothing, or its images are "
            "large and get lost on the way (docs/troubleshooting.md)"
        )

    def _misfit(self) -> str:
        """A publisher whose images this subscription cannot get; empty if there is none.

        The middleware reports it as an event too, but once, and only to who waits for events.
        """
        offered = self._offered()
        if self._camera.reliability != RELIABLE or BEST_EFFORT not in offered:
            return ""
        return f"{self._listing(offered)}: these do not fit, set input.qos to auto or sensor_data"

    @property
    def _wanted(self) -> str:
        return f"sensor_msgs/msg/{self._camera.type.__name__}"

    def _offered(self) -> list[str]:
        """Reliability of each publisher of the right type."""
        publishers = self._node.get_publishers_info_by_topic(self._camera.topic)
        right = [info for info in publishers if info.topic_type == self._wanted]
        return [info.qos_profile.reliability.name for info in right]

    def _listing(self, offered: list[str]) -> str:
        names = f"{len(offered)} publishers ({', '.join(offered)})"
        return f"{names}, this subscription is {self._camera.reliability}"

    def _advice(self, wanted: str) -> str:
        """Which topics the user may have meant."""
        other = "raw" if self._camera.type is CompressedImage else "compressed"
        twin = self._camera.topic
        twin = twin.removesuffix("/compressed") if other == "raw" else f"{twin}/compressed"
        if self._node.count_publishers(twin):
            return f"{twin} is published: set input.transport to {other}"
        names = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if wanted in types and self._node.count_publishers(name)
        ]
        own = {self._node.resolve_topic_name(one.name) for one in INTERFACES if one.kind == "pub"}
        cameras = [name for name in names if name not in own][:SHOWN]
        if cameras:
            return f"remap image to one of these: {', '.join(cameras)}"
        return f"no topic of type {wanted} is published in this ROS domain: is the camera started?"

    def _rate(self) -> str:
        """Images per second by the publisher's own count, where the middleware tells it."""
        count, now = self._camera.published, time.monotonic()
        before, self._seen = self._seen, None if count is None else (count, now)
        if before is None or count is None or count < before[0]:
            return "unknown"
        return f"{(count - before[0]) / max(now - before[1], 1e-3):.1f}"

    def _warn(self, sentence: str, reason: str) -> None:
        now = time.monotonic()
        if reason != self._warned or now - self._warned_at > REPEAT:
            self._warned, self._warned_at = reason, now
            self._node.get_logger().warning(sentence)
