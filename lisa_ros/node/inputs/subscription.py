"""Subscriptions whose messages stay with the middleware until somebody asks for them.

The middleware's queue holds the last ones, and a newer one takes the place of the oldest. A message
that nobody asks about costs no Python at all, which is a seventh of what a subscription with an
empty callback costs (docs/reliability.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from lisa_ros.node.parameters import Parameters

RELIABLE = ReliabilityPolicy.RELIABLE.name
BEST_EFFORT = ReliabilityPolicy.BEST_EFFORT.name
# An executor that waits for an event of this subscription finds no sleep while a message lies there
# untaken: both share one condition in the middleware. The watchdog looks at the graph instead.
NO_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)


class OnDemand(CallbackGroup):
    """A callback group that keeps its subscription's messages away from the executor."""

    def can_execute(self, entity: Any) -> bool:
        return False


class OnDemandSubscription:
    """One topic, its last messages waiting to be taken.

    `open`, `close` and `follow_publishers` belong to the executor's thread, because they make and
    destroy entities; `take` and `has_publishers` may be called from any thread.
    """

    def __init__(self, node: Node, parameters: Parameters, qos_parameter: str, kept: int) -> None:
        """
        Args:
            node: subscribes.
            parameters: of the node.
            qos_parameter: the one that names the reliability: auto, sensor_data or reliable.
            kept: messages that the middleware keeps.
        """
        self.qos_parameter = qos_parameter
        self.kind: type = object
        """the message's class"""
        self.topic = ""
        """resolved name, remappings applied"""
        self.since = 0.0
        """when it last subscribed, by `time.monotonic()`"""
        self._node, self._parameters, self._kept = node, parameters, kept
        self._group = OnDemand()
        self._lock = threading.Lock()
        self._subscription: Subscription | None = None

    @property
    def reliability(self) -> str:
        """RELIABLE or BEST_EFFORT while it is open, else nothing."""
        return self._quality()[0]

    @property
    def type(self) -> str:
        """The message's name, as `sensor_msgs/msg/Image`."""
        return "/".join([*self.kind.__module__.split(".")[:2], self.kind.__name__])

    @property
    def has_publishers(self) -> bool:
        """Whether somebody publishes on the topic while it is open."""
        with self._lock:
            is_open = self._subscription is not None
            return is_open and self._node.count_publishers(self.topic) > 0

    def open(self, kind: type, topic: str) -> None:
        """Subscribe to `topic`, remappings applied."""
        self.kind, self.topic = kind, self._node.resolve_topic_name(topic)
        self._subscribe(self._wanted())

    def close(self) -> None:
        """Unsubscribe; what was not taken is gone."""
        with self._lock:
            if self._subscription is not None:
                self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def follow_publishers(self, rescue: Callable[[], object] = lambda: None) -> None:
        """Subscribe anew if the publishers' quality of service has changed.

        `rescue` is called before, to take what would be lost.
        """
        if self._subscription is None or self._overrides() is not None:
            return
        wanted = self._wanted()
        if wanted != self._quality():
            rescue()
            self._node.get_logger().info(f"{self.topic}: subscribing anew, {', '.join(wanted)}")
            self.close()
            self._subscribe(wanted)

    def take(self) -> tuple[Any, dict[str, Any]] | None:
        """The oldest message that waits, with what the middleware tells about it; None: none."""
        with self._lock:
            if self._subscription is None:
                return None
            with self._subscription.handle:
                return self._subscription.handle.take_message(self.kind, False)

    def _wanted(self) -> tuple[str, str]:
        """Reliability and durability that get the most from the present publishers.

        `auto` is reliable if all of them are; without any it is best effort, which hears both
        kinds. The middleware's own BEST_AVAILABLE is no help: it decides once, when the
        subscription is made. Likewise TRANSIENT_LOCAL, by which the last message from before the
        subscription comes (a still image, a camera_info sent once), is asked for only if all
        publishers have it: one without it would not be heard at all.
        """
        infos = self._node.get_publishers_info_by_topic(self.topic)
        offered = [one.qos_profile for one in infos]
        name = self._parameters[self.qos_parameter]
        reliable = name == "reliable" or (
            name == "auto"
            and bool(offered)
            and all(one.reliability == ReliabilityPolicy.RELIABLE for one in offered)
        )
        latched = bool(offered) and all(
            one.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in offered
        )
        durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
        return RELIABLE if reliable else BEST_EFFORT, durability.name

    def _quality(self) -> tuple[str, str]:
        with self._lock:
            if self._subscription is None:
                return "", ""
            profile = self._subscription.qos_profile
            return profile.reliability.name, profile.durability.name

    def _subscribe(self, quality: tuple[str, str]) -> None:
        self.since = time.monotonic()
        reliability, durability = quality
        subscription = self._node.create_subscription(
            self.kind,
            self.topic,
            lambda message: None,
            QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=self._kept,
                reliability=ReliabilityPolicy[reliability],
                durability=DurabilityPolicy[durability],
            ),
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


def arrival(details: Mapping[str, Any]) -> float:
    """When a message reached this machine, by `time.monotonic()`.

    `details` is what the middleware tells about it. Some tell no time of arrival (0); then it is
    now. So it is if the system clock was set back.
    """
    received = details.get("received_timestamp", 0)  # nanoseconds of system time
    age = (time.time_ns() - received) / 1e9 if received else 0.0
    return time.monotonic() - max(0.0, age)


def reliable_qos(depth: int) -> QoSProfile:
    """Reliable, the last `depth` messages."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth)


def latched_qos() -> QoSProfile:
    """Reliable, and the last message is there for whoever comes later."""
    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
