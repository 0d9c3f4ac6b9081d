"""The service `self_test`: is the model able to answer at all?"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from lisa_ros.errors import counted
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.requests.queries import Queries
from lisa_ros.node.requests.query import Awaited, Outcome, Query
from lisa_ros.node.status import ANSWERED, Readiness, Status
from lisa_ros.node.worker import ModelWorker

INSTRUCTION = "the red ball"
OVERDUE = 1.0  # seconds beyond the time limit after which a hanging model is given up
HANGS = "the model does not answer: it is busy or hangs"


class SelfTest:
    """Asks the model about the built-in image; nothing of it goes out on the result topics."""

    def __init__(
        self, node: Node, queries: Queries, worker: ModelWorker, readiness: Readiness
    ) -> None:
        self._node, self._queries, self._worker = node, queries, worker
        self._readiness = readiness
        self._pending: dict[Query, Awaited] = {}
        # A service that waits would hold up everything else in the node's own callback group.
        group = ReentrantCallbackGroup()
        node.create_service(Trigger, "self_test", self._test, callback_group=group)

    async def _test(self, request: Any, response: Any) -> Any:
        if self._worker.engine is None:
            response.message = f"the model is not loaded: {self._readiness.not_ready_reason}"
            return response
        query = self._queries.new(INSTRUCTION, 0, frame=Frame(SAMPLE))
        self._pending[query] = ended = Awaited(self._node)
        self._worker.ask(query, self._end)
        response.success, response.message = self._verdict(query, await ended)
        return response

    def give_up_if_overdue(self) -> None:
        """End the tests whose model hangs; called once a second."""
        for query in list(self._pending):
            if time.monotonic() > query.deadline + OVERDUE:
                self._end(query, Outcome(Status.TIMEOUT, HANGS))

    def _end(self, query: Query, outcome: Outcome) -> None:
        if query.end():
            self._pending.pop(query).set_result(outcome)

    def _verdict(self, query: Query, outcome: Outcome) -> tuple[bool, str]:
        took = (time.monotonic() - query.started) * 1e3
        if outcome.status not in ANSWERED:
            return False, f"{outcome.status.name}: {outcome.error}"
        engine, answer = self._worker.engine, outcome.answer
        where = f"{engine.name} on {engine.device}" if engine else "the model"
        return True, (
            f"{where} answered {INSTRUCTION!r} in {took:.0f} ms: {outcome.status.name}, "
            f"{counted(len(answer.instances), 'mask')}, {answer.text[:200]!r}"
        )


def sample_image() -> np.ndarray:
    """A red ball on a grey table, uint8 (240, 320, 3) RGB, drawn with simple shading."""
    rows, columns = np.mgrid[:240, :320]
    table = 150 + 20 * (rows / 240)[..., None] * np.array([1.0, 0.95, 0.9])
    x, y = (columns - 170) / 48, (rows - 130) / 48
    inside = x**2 + y**2 < 1
    light = 0.35 + 0.65 * np.clip(1 - (x + 0.4) ** 2 - (y + 0.4) ** 2, 0, 1)
    ball = light[..., None] * np.array([215.0, 35.0, 30.0])
    return np.where(inside[..., None], ball, table).astype(np.uint8)


SAMPLE = to_message(sample_image(), "rgb8", Header(frame_id="self_test"))
