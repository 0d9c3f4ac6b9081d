"""The depth image and the camera_info that belong to an image of the camera."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lisa_ros.node.inputs.subscription import OnDemandSubscription
from lisa_ros.node.parameters import Parameters

# Between an image and the question about it lie one or two periods of the camera, and drivers hand
# colour out later than depth: a quarter of a second at 30 Hz. The middleware holds them meanwhile.
KEPT = 8
DISCOVERY = 2.0  # seconds that a publisher and a new subscription may take to find each other
POLL = 0.002  # seconds between two looks for a depth image that is still on its way


@dataclass(frozen=True)
class Partner:
    """What belongs to an image."""

    depth: Any = None
    """Image or CompressedImage; None if there is none"""
    info: Any = None
    """CameraInfo; None if there is none"""
    reason: str = ""
    """why there is no depth image, as a sentence without full stop"""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.depth is not None and self.info is not None


class DepthInput:
    """The subscriptions to `depth` and `camera_info`.

    Like images, their messages stay with the middleware until there is a question. `open`, `close`
    and `follow_publishers` belong to the executor's thread; `partner_of` to the model's.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._node, self._parameters = node, parameters
        self._lock = threading.Lock()
        self._depth = _Stream(OnDemandSubscription(node, parameters, KEPT, latched=False))
        self._info = _Stream(OnDemandSubscription(node, parameters, KEPT, latched=True))
        self.found, self.missed = 0, 0
        """images for which a depth image was looked for, and was there or not"""
        self.reason = ""
        """why the last one had none"""

    @property
    def type(self) -> type:
        return CompressedImage if self._parameters["depth.transport"] == "compressed" else Image

    @property
    def topic(self) -> str:
        """The resolved name of the depth topic."""
        name = "depth/compressedDepth" if self.type is CompressedImage else "depth"
        return self._node.resolve_topic_name(name)

    @property
    def heard(self) -> bool:
        """Whether anybody publishes depth images."""
        return self._depth.subscription.heard

    def open(self) -> None:
        """Subscribe."""
        self._depth.subscription.open(self.type, self.topic)
        self._info.subscription.open(CameraInfo, self._node.resolve_topic_name("camera_info"))

    def close(self) -> None:
        """Unsubscribe and forget what came."""
        with self._lock:
            for stream in (self._depth, self._info):
                stream.subscription.close()
                stream.messages.clear()

    def follow_publishers(self) -> None:
        """Subscribe anew where the publishers' quality of service has changed."""
        for stream in (self._depth, self._info):
            # what has come holds on: a depth image may be of the newest image, and the publisher
            # of camera_info may have sent it once and for all
            stream.subscription.follow_publishers(self._collect)

    def partner_of(self, header: Any, arrived: float, ended: Callable[[], bool]) -> Partner:
        """What belongs to an image, which is the nearest by stamp.

        If it may still be on its way it is waited for, until `depth.slop` after the image arrived;
        the very first one longer, for the subscription may only just have been made.

        Args:
            header: of the image.
            arrived: when the image came, by `time.monotonic()`.
            ended: true once nobody waits for the answer any more.
        """
        slop = self._parameters["depth.slop"]
        while True:
            self._collect()
            if self._settled(header) or time.monotonic() >= self._latest(arrived + slop) or ended():
                break
            time.sleep(POLL)
        with self._lock:
            depth, info = (nearest(one.messages, header) for one in (self._depth, self._info))
        reason = self._why_not(depth, header, slop)
        self.reason = reason
        self.found, self.missed = self.found + (not reason), self.missed + bool(reason)
        return Partner(None if reason else depth, info, reason)

    def _collect(self) -> None:
        with self._lock:
            for stream in (self._depth, self._info):
                stream.collect(self._parameters["depth.slop"])

    def _settled(self, header: Any) -> bool:
        """Whether nothing that could still arrive would be nearer."""
        if not self.heard:
            return True
        slop = self._parameters["depth.slop"]
        with self._lock:
            later = any(0 <= away(one, header) <= slop for one in self._depth.messages)
            has_info = bool(self._info.messages)
        return later and (has_info or not self._info.subscription.heard)

    def _latest(self, usual: float) -> float:
        """Until when a depth image is waited for; `usual` if any has come so far."""
        with self._lock:
            if self._depth.messages:
                return usual
        return max(usual, self._depth.subscription.since + DISCOVERY)

    def _why_not(self, depth: Any, header: Any, slop: float) -> str:
        topic = self._depth.subscription.topic
        if depth is None and not self.heard:
            return f"no depth image: nobody publishes {topic}"
        if depth is None:
            return f"no depth image has arrived on {topic} yet"
        seconds = away(depth, header)
        if abs(seconds) <= slop:
            return ""
        return (
            f"no depth image within {slop:g} s of the image (depth.slop): by its stamp the nearest "
            f"one is {abs(seconds):.3g} s {'younger' if seconds > 0 else 'older'}"
        )


class _Stream:
    """A subscription and the last messages that were taken from it, in the order of coming."""

    def __init__(self, subscription: OnDemandSubscription) -> None:
        self.subscription = subscription
        self.messages: deque[Any] = deque(maxlen=KEPT)

    def collect(self, slop: float) -> None:
        """Take what has come; what is from before a jump of time backwards is dropped."""
        while (taken := self.subscription.take()) is not None:
            message = taken[0]
            if self.messages and away(message, self.messages[-1].header) < -slop:
                self.messages.clear()
            self.messages.append(message)


def nearest(messages: Sequence[Any], header: Any) -> Any:
    """The message whose stamp is nearest to a header's, of equally near ones the last; or None."""
    return min(reversed(messages), key=lambda one: abs(away(one, header)), default=None)


def away(message: Any, header: Any) -> float:
    """Seconds by which a message is younger than a header says."""
    one, other = message.header.stamp, header.stamp
    return (one.sec - other.sec) + (one.nanosec - other.nanosec) * 1e-9
