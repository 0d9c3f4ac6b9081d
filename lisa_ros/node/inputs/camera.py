"""The newest image of the camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.inputs.subscription import OnDemandSubscription, arrival
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.status import NotAnswered, Status

TRANSPORTS = {"raw": (Image, "image"), "compressed": (CompressedImage, "image/compressed")}
POLL = 0.002  # seconds between two looks for an image while a query waits for one


class CameraInput:
    """The subscription to the camera and the newest image that it brought.

    `open` and `close` belong to the executor's thread, because they make and destroy entities;
    `newest` and `fresh` may be called from any thread.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._parameters = parameters
        self._lock = threading.Lock()
        self.subscription = OnDemandSubscription(node, parameters, "input.qos", kept=1)
        self.last: Frame | None = None
        """the last image that was taken, without looking for a newer one"""
        self.looked_at = 0
        """images that were taken from the middleware"""
        self.opened = 0.0
        self.published: int | None = None
        """the publisher's own count of its images, where the middleware tells it"""
        self.dropped = 0
        """images that nobody asked about while the node was active, or that were lost"""

    @property
    def topic(self) -> str:
        """The resolved name, once it has been open."""
        return self.subscription.topic

    def open(self) -> None:
        """Subscribe."""
        self.opened = time.monotonic()
        self.subscription.open(*TRANSPORTS[self._parameters["input.transport"]])

    def close(self) -> None:
        """Unsubscribe and forget the last image."""
        with self._lock:
            self.subscription.close()
            # What is published while nobody subscribes is not dropped.
            self.last = self.published = None

    def newest(self) -> Frame | None:
        """The newest image, however old; None if there was none since `open`."""
        with self._lock:
            while (taken := self.subscription.take()) is not None:
                self.looked_at += 1
                message, details = taken
                self._count(details.get("publication_sequence_number"))
                # Stamps repeat (bag loops, cameras without a clock); our own count never does.
                self.last = Frame(message, arrival(details), ("camera", self.looked_at))
            return self.last

    def _count(self, number: int | None) -> None:
        """Note what lies between two images by the publisher's own count."""
        if number is not None and self.published is not None and number > self.published:
            self.dropped += number - self.published - 1
        self.published = number

    def fresh(self, ended: Callable[[], bool]) -> Frame:
        """The newest image that is young enough; waits for it at most `input.wait` seconds.

        Raises:
            NotAnswered: NO_IMAGE or STALE_IMAGE; or `ended` became true meanwhile.
        """
        give_up = time.monotonic() + self._parameters["input.wait"]
        while True:
            frame = self.newest()
            limit = self._parameters["input.max_age"]
            if frame is not None and frame.age <= limit:
                return frame
            if time.monotonic() >= give_up or ended():
                break
            time.sleep(POLL)
        if frame is None:
            raise NotAnswered(Status.NO_IMAGE, f"no image has arrived on {self.topic} yet")
        raise NotAnswered(
            Status.STALE_IMAGE,
            f"the newest image on {self.topic} arrived {frame.age:.1f} s ago and the limit "
            f"(input.max_age) is {limit:g} s: is the camera still running? For a still image that "
            "is published once, raise the limit",
        )
