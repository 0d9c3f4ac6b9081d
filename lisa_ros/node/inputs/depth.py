"""The depth image and the camera_info that belong to an image of the camera."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lisa_ros.node.inputs.frame import DepthMatch, Received
from lisa_ros.node.inputs.subscription import OnDemandSubscription, arrival
from lisa_ros.node.parameters import Parameters

TRANSPORTS = {"raw": (Image, "depth"), "compressed": (CompressedImage, "depth/compressedDepth")}
# Between an image and the question about it lie one or two periods of the camera, and drivers hand
# colour out later than depth: a quarter of a second at 30 Hz. The middleware holds them meanwhile.
KEPT = 8
DISCOVERY = 2.0  # seconds that a publisher and a new subscription may take to find each other
POLL = 0.002  # seconds between two looks for a depth image that is still on its way


class DepthInput:
    """The subscriptions to `depth` and `camera_info`.

    Like images, their messages stay with the middleware until there is a question. `open`, `close`
    and `follow_publishers` belong to the executor's thread; `match_for` to the model's.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._node, self._parameters = node, parameters
        self._lock = threading.Lock()
        self.depth = OnDemandSubscription(node, parameters, "depth.qos", KEPT)
        self.info = OnDemandSubscription(node, parameters, "depth.qos", KEPT)
        # what was taken from either, in the order of coming
        self._depths: deque[Received] = deque(maxlen=KEPT)
        self._infos: deque[Received] = deque(maxlen=KEPT)
        self.matched, self.missed = 0, 0
        """images for which a depth image was looked for, and was there or not"""
        self.reason = ""
        """why the last one had none"""
        self.note = ""
        """what is to be known about the last match that there was"""

    def open(self) -> None:
        """Subscribe."""
        self.depth.open(*TRANSPORTS[self._parameters["depth.transport"]])
        self.info.open(CameraInfo, "camera_info")

    def close(self) -> None:
        """Unsubscribe and forget what came."""
        with self._lock:
            self.depth.close()
            self.info.close()
            self._depths.clear()
            self._infos.clear()

    def follow_publishers(self) -> None:
        """Subscribe anew where the publishers' quality of service has changed."""
        for subscription in (self.depth, self.info):
            # what has come holds on: a depth image may be of the newest image, and the publisher
            # of camera_info may have sent it once and for all
            subscription.follow_publishers(self._collect)

    def match_for(self, image: Received, ended: Callable[[], bool]) -> DepthMatch:
        """What belongs to an image, which is the nearest by stamp; without stamps, by arrival.

        If it may still be on its way it is waited for, until `depth.slop` after the image arrived;
        the very first one longer, for the subscription may only just have been made. `ended`: true
        once nobody waits for the answer any more.
        """
        self._collect()
        while not (self._settled(image) or time.monotonic() >= self._latest(image) or ended()):
            time.sleep(POLL)
            self._collect()
        with self._lock:
            depth, info = (_nearest(kept, image) for kept in (self._depths, self._infos))
        self.reason = self._why_not(depth, image)
        if self.reason:
            self.missed += 1
        else:
            self.matched += 1
            self._notice_stamps(image, depth)
        return DepthMatch(
            None if self.reason else depth.message,
            None if info is None else info.message,
            self.reason,
        )

    def _notice_stamps(self, image: Received, depth: Received) -> None:
        """Say in the log, once, and in the diagnostics that stamps are missing."""
        both = {"image": image, "depth": depth}
        missing = " and ".join(name for name, one in both.items() if not one.has_stamp)
        note = (
            f"the stamps on {missing} are zero, so depth images are matched by the time at which "
            "they arrive: have the driver set header.stamp"
        )
        note = note if missing else ""
        if note and note != self.note:
            self._node.get_logger().warning(note)
        self.note = note

    def _collect(self) -> None:
        """Take what has come; what is from before a jump of time backwards is dropped."""
        with self._lock:
            for source, kept in ((self.depth, self._depths), (self.info, self._infos)):
                while (taken := source.take()) is not None:
                    message, details = taken
                    new = Received(message, arrival(details))
                    if kept and new.later_than(kept[-1]) < -self._parameters["depth.slop"]:
                        kept.clear()
                    kept.append(new)

    def _settled(self, image: Received) -> bool:
        """Whether nothing that could still arrive would be nearer."""
        if not self.depth.has_publishers:
            return True
        slop = self._parameters["depth.slop"]
        with self._lock:
            later = any(0 <= one.later_than(image) <= slop for one in self._depths)
            has_info = bool(self._infos)
        return later and (has_info or not self.info.has_publishers)

    def _latest(self, image: Received) -> float:
        """Until when a depth image is waited for; longer if none has come so far."""
        usual = image.arrived + self._parameters["depth.slop"]
        return usual if self._depths else max(usual, self.depth.since + DISCOVERY)

    def _why_not(self, depth: Received | None, image: Received) -> str:
        topic, slop = self.depth.topic, self._parameters["depth.slop"]
        if depth is None and not self.depth.has_publishers:
            return f"no depth image: nobody publishes {topic}"
        if depth is None:
            return f"no depth image has arrived on {topic} yet"
        seconds = depth.later_than(image)
        stamped = image.has_stamp and depth.has_stamp
        clock = "its stamp" if stamped else "its arrival (there is no stamp)"
        if abs(seconds) <= slop:
            return ""
        return (
            f"no depth image within {slop:g} s of the image (depth.slop): by {clock} the "
            f"nearest one is {abs(seconds):.3g} s {'younger' if seconds > 0 else 'older'}"
        )


def _nearest(received: Sequence[Received], image: Received) -> Received | None:
    """What is nearest to an image in time, of equally near ones the last."""
    return min(reversed(received), key=lambda one: abs(one.later_than(image)), default=None)
