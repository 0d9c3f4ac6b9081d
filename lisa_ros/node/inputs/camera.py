"""The newest image of the camera."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from lisa_ros.node.inputs import image_conversion as image
from lisa_ros.node.inputs.depth import Partner
from lisa_ros.node.inputs.subscription import OnDemandSubscription
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.query import NotAnswered
from lisa_ros.node.status import Status

POLL = 0.002  # seconds between two looks for an image while a query waits for one


class Frame:
    """One image message; it is decoded when the pixels are first needed."""

    def __init__(self, message: Any, key: Hashable | None, arrived: float | None = None) -> None:
        """`key` names the frame for the engine's cache, None: do not keep it there."""
        self.message = message
        self.key = key
        self.arrived = time.monotonic() if arrived is None else arrived
        self.decoded: np.ndarray | None = None
        """the pixels, once somebody has needed them"""
        self.partner = Partner()
        """its depth image and camera_info, as far as somebody has looked for them"""

    @property
    def header(self) -> Any:
        """The header of the message itself, never a changed copy."""
        return self.message.header

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; zeros for a compressed image that is not decoded."""
        if self.decoded is not None:
            return self.decoded.shape[1], self.decoded.shape[0]
        return getattr(self.message, "width", 0), getattr(self.message, "height", 0)

    @property
    def age(self) -> float:
        """Seconds since it reached this machine."""
        return time.monotonic() - self.arrived

    def pixels(self, max_pixels: int) -> np.ndarray:
        """uint8 (H, W, 3) RGB. Raises `ImageError` for an image that cannot be used."""
        if self.decoded is None:
            self.decoded = image.to_rgb(self.message, max_pixels)
        return self.decoded


class Camera:
    """The subscription to the camera and the newest image that it brought.

    `open`, `close` and `follow_publishers` belong to the executor's thread, because they make and
    destroy entities; `newest` and `fresh` may be called from any thread.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._node = node
        self._parameters = parameters
        self._lock = threading.Lock()
        self._subscription = OnDemandSubscription(node, parameters, kept=1, latched=False)
        self._frame: Frame | None = None
        self._count = 0
        self.opened = 0.0
        self.published: int | None = None
        """the publisher's own count of its images, where the middleware tells it"""
        self.passed_over = 0
        """images that nobody asked about, or that were lost, by the same count"""

    @property
    def type(self) -> type:
        return CompressedImage if self._parameters["input.transport"] == "compressed" else Image

    @property
    def topic(self) -> str:
        """The resolved name, remappings applied."""
        return self._node.resolve_topic_name(
            "image/compressed" if self.type is CompressedImage else "image"
        )

    @property
    def reliability(self) -> str:
        """RELIABLE or BEST_EFFORT while it is open, else nothing."""
        return self._subscription.reliability

    @property
    def last(self) -> Frame | None:
        """The last image that was taken, without looking for a newer one."""
        return self._frame

    def open(self) -> None:
        """Subscribe."""
        self.opened = time.monotonic()
        self._subscription.open(self.type, self.topic)

    def close(self) -> None:
        """Unsubscribe and forget the last image."""
        with self._lock:
            self._subscription.close()
            self._frame = None

    def follow_publishers(self) -> None:
        """Subscribe anew if `input.qos` is `auto` and the publishers' reliability has changed."""
        self._subscription.follow_publishers()

    def newest(self) -> Frame | None:
        """The newest image, however old; None if there was none since `open`."""
        with self._lock:
            while (taken := self._subscription.take()) is not None:
                self._count += 1
                message, details = taken
                self._take_count(details.get("publication_sequence_number"))
                arrived = _monotonic(details.get("received_timestamp", 0))
                # Stamps repeat (bag loops, cameras without a clock); our own count never does.
                self._frame = Frame(message, ("camera", self._count), arrived)
            return self._frame

    @property
    def looked_at(self) -> int:
        """Images that were taken from the middleware."""
        return self._count

    def _take_count(self, number: int | None) -> None:
        if number is not None and self.published is not None and number > self.published:
            self.passed_over += number - self.published - 1
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
            f"(input.max_age) is {limit:g} s: is the camera still running?",
        )


def _monotonic(received: int) -> float:
    """The moment of a message's arrival (nanoseconds of system time) by the monotonic clock.

    Some middleware does not tell it (0); then it is now. So it is if the system clock was set back.
    """
    age = (time.time_ns() - received) / 1e9 if received else 0.0
    return time.monotonic() - max(0.0, age)
