"""Images encoded ahead: what a query would wait for is done while nobody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.clock import Clock

if TYPE_CHECKING:
    from lisa_ros.node.perception_node import PerceptionNode

LOOK_PERIOD = 0.1  # seconds between two looks for a newer image


class Preparing:
    """Has the model's thread encode the newest image whenever it would be idle."""

    def __init__(self, node: PerceptionNode, clock: Clock) -> None:
        self._node = node
        self._timer = node.create_timer(LOOK_PERIOD, self._look, clock=clock)

    @property
    def _wanted(self) -> bool:
        return self._node.parameters["model.prepare_frames"] and self._node.worker.can_prepare

    def wake(self) -> None:
        """Look anew whether it is wanted; called once a second."""
        if self._wanted:
            self._timer.reset()
        else:
            self._timer.cancel()  # so that an idle node sleeps

    def _look(self) -> None:
        node = self._node
        if self._wanted and node.state == "active" and node.queries.idle:
            node.worker.prepare_newest()
