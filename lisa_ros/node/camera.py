"""The newest image of the camera.

Messages are left with the middleware until somebody asks: its queue holds one image, and a newer
one takes the place of the older. An image that nobody asks about costs no Python at all, which is
a seventh of what a subscription with an empty callback costs (docs/reliability.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from lisa_ros.node import image
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.qos import choose_reliability, image_profile
from lisa_ros.node.query import NotAnswered
from lisa_ros.node.status import Status

# An executor that waits for an event of this subscription finds no sleep while an image lies there
# untaken: both share one condition in the middleware. The watchdog looks at the graph instead.
NO_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)
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


class OnDemand(CallbackGroup):
    """A callback group that keeps its subscription's messages away from the executor."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class Camera:
    """The subscription to the camera and the newest image that it brought.

    `open`, `close` and `follow_publishers` belong to the executor's thread, because they make and
    destroy entities; `newest` and `fresh` may be called from any thread.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._node = node
        self._parameters = parameters
        self._group = OnDemand()
        self._lock = threading.Lock()
        self._subscription: Subscription | None = None
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
        with self._lock:
            subscription = self._subscription
            return subscription.qos_profile.reliability.name if subscription else ""

    @property
    def last(self) -> Frame | None:
        """The last image that was taken, without looking for a newer one."""
        return self._frame

    def open(self) -> None:
        """Subscribe."""
        self.opened = time.monotonic()
        self._subscribe(choose_reliability(self._node, self.topic, self._parameters["input.qos"]))

    def close(self) -> None:
        """Unsubscribe and forget the last image."""
        with self._lock:
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
            self._subscription = None
            self._frame = None

    def follow_publishers(self) -> None:
        """Subscribe anew if `input.qos` is `auto` and the publishers' reliability has changed."""
        if self._subscription is None or self._overrides() is not None:
            return
        wanted = choose_reliability(self._node, self.topic, self._parameters["input.qos"])
        if wanted != self.reliability:
            self._node.get_logger().info(f"{self.topic}: subscribing anew, {wanted}")
            frame = self._frame
            self.close()
            self._frame = frame
            self._subscribe(wanted)

    def _subscribe(self, reliability: str) -> None:
        subscription = self._node.create_subscription(
            self.type,
            self.topic,
            lambda message: None,
            image_profile(reliability),
            callback_group=self._group,
            event_callbacks=NO_EVENTS,
            qos_overriding_options=self._overrides(),
        )
        with self._lock:
            self._subscription = subscription

    def _overrides(self) -> QoSOverridingOptions | None:
        """What is needed to honour `qos_overrides.<topic>.subscription.*`, if the user gave any."""
        start = f"qos_overrides.{self.topic}.subscription."
        # rclpy offers no public view of the values from the command line and the parameter files
        given = getattr(self._node, "_parameter_overrides", {})
        if any(name.startswith(start) for name in given):
            return QoSOverridingOptions.with_default_policies()
        return None

    def newest(self) -> Frame | None:
        """The newest image, however old; None if there was none since `open`."""
        with self._lock:
            while self._subscription is not None:
                with self._subscription.handle:
                    taken = self._subscription.handle.take_message(self.type, False)
                if taken is None:
                    break
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
