"""Why no image arrives: the most frequent question about a perception node, answered by it."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from lisa_ros.node.camera import Camera
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.qos import BEST_EFFORT, RELIABLE

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
        }
        if waited <= self._parameters["input.warn_after"]:
            sentence = "images arrive" if frame else "waiting for the first image"
            return DiagnosticStatus.OK, sentence, values
        reason = self.reason()
        self._warn(f"no image since {waited:.0f} s on {camera.topic}: {reason}", reason)
        return DiagnosticStatus.WARN, f"no image since {waited:.0f} s: {reason}", values

    def reason(self) -> str:
        """What the graph tells about a missing image, and what to do about it."""
        node, camera = self._node, self._camera
        publishers = node.get_publishers_info_by_topic(camera.topic)
        wanted = f"sensor_msgs/msg/{camera.type.__name__}"
        typed = [info for info in publishers if info.topic_type == wanted]
        if not typed:
            found = ", ".join(sorted({info.topic_type for info in publishers}))
            problem = (
                f"its publishers send {found}, not {wanted}" if found else "nobody publishes it"
            )
            return f"{problem}; {self._advice(wanted)}"
        offered = [info.qos_profile.reliability.name for info in typed]
        listing = f"{len(typed)} publishers ({', '.join(offered)}), this subscription is "
        listing += camera.reliability
        if camera.reliability == RELIABLE and BEST_EFFORT in offered:
            return f"{listing}: these do not fit, set input.qos to auto or sensor_data"
        return (
            f"{listing}: these fit, so the camera sends nothing, or its images get lost on the way "
            "because they are large (docs/troubleshooting.md)"
        )

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
        own = {self._node.resolve_topic_name(n) for n in ("mask/image", "mask/labels", "overlay")}
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
