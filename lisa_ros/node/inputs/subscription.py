"""Subscriptions whose messages stay with the middleware until somebody asks for them.

The middleware's queue holds the last ones, and a newer one takes the place of the oldest. A message
that nobody asks about costs no Python at all, which is a seventh of what a subscription with an
empty callback costs (docs/reliability.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

from lisa_ros.node.inputs.qos import choose_durability, choose_reliability, last_ones
from lisa_ros.node.parameters import Parameters

# An executor that waits for an event of this subscription finds no sleep while a message lies there
# untaken: both share one condition in the middleware. The watchdog looks at the graph instead.
NO_EVENTS = SubscriptionEventCallbacks(use_default_callbacks=False)


class OnDemand(CallbackGroup):
    """A callback group that keeps its subscription's messages away from the executor."""

    def can_execute(self, entity: Any) -> bool:
        return False

    def beginning_execution(self, entity: Any) -> bool:
        return False

    def ending_execution(self, entity: Any) -> None:
        pass


class OnDemandSubscription:
    """One topic, its last messages waiting to be taken.

    `open`, `close` and `follow_publishers` belong to the executor's thread, because they make and
    destroy entities; `take` and `heard` may be called from any thread.
    """

    def __init__(self, node: Node, parameters: Parameters, kept: int, latched: bool) -> None:
        """
        Args:
            node: subscribes.
            parameters: for `input.qos`.
            kept: messages that the middleware keeps.
            latched: ask for the last message from before the subscription, if all publishers have
                it; a subscription that asks a publisher without it hears nothing at all.
        """
        self._node, self._parameters = node, parameters
        self._kept, self._may_latch = kept, latched
        self._group = OnDemand()
        self._lock = threading.Lock()
        self._subscription: Subscription | None = None
        self._kind: type = object
        self.topic = ""
        """resolved name, remappings applied"""
        self.since = 0.0
        """when it last subscribed, by `time.monotonic()`"""

    @property
    def reliability(self) -> str:
        """RELIABLE or BEST_EFFORT while it is open, else nothing."""
        return self._quality()[0]

    @property
    def heard(self) -> bool:
        """Whether somebody publishes what this subscription gets."""
        with self._lock:
            found = self._subscription
            return found is not None and self._node.count_publishers(self.topic) > 0

    def open(self, kind: type, topic: str) -> None:
        """Subscribe to `topic`, a resolved name."""
        self._kind, self.topic = kind, topic
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
                return self._subscription.handle.take_message(self._kind, False)

    def _wanted(self) -> tuple[str, str]:
        reliability = choose_reliability(self._node, self.topic, self._parameters["input.qos"])
        return reliability, choose_durability(self._node, self.topic, self._may_latch)

    def _quality(self) -> tuple[str, str]:
        with self._lock:
            if self._subscription is None:
                return "", ""
            profile = self._subscription.qos_profile
            return profile.reliability.name, profile.durability.name

    def _subscribe(self, quality: tuple[str, str]) -> None:
        self.since = time.monotonic()
        subscription = self._node.create_subscription(
            self._kind,
            self.topic,
            lambda message: None,
            last_ones(self._kept, *quality),
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
