"""The service `self_test`: is the model able to answer at all?"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.task import Future
from std_msgs.msg import Header
from std_srvs.srv import Trigger

from lisa_ros.node.inputs.camera import Frame
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.requests.sample import INSTRUCTION, sample_image
from lisa_ros.node.status import ANSWERED

if TYPE_CHECKING:
    from lisa_ros.node.perception_node import PerceptionNode

OVERDUE = 1.0  # seconds beyond the time limit after which a hanging model is given up


class SelfTest:
    """Asks the model about the built-in image; nothing of it goes out on the result topics."""

    def __init__(self, node: PerceptionNode) -> None:
        self._node = node
        self._pending: list[tuple[float, Future]] = []
        # A service that waits would hold up everything else in the node's own callback group.
        group = ReentrantCallbackGroup()
        node.create_service(Trigger, "self_test", self._test, callback_group=group)

    async def _test(self, request: Any, response: Any) -> Any:
        node = self._node
        if node.worker.model is None:
            response.message = f"the model is not loaded: {node.queries.unready}"
            return response
        query = node.queries.new(INSTRUCTION, 0, frame=Frame(_message(), None))
        ended = Future(executor=node.executor)
        self._pending.append((query.deadline + OVERDUE, ended))
        node.worker.try_out(query, lambda outcome: self._end(ended, (query, outcome)))
        response.success, response.message = self._verdict(await ended)
        return response

    def give_up_if_overdue(self) -> None:
        """End the tests whose model hangs; called once a second."""
        now = time.monotonic()
        for deadline, ended in self._pending:
            if now > deadline and not ended.done():
                self._end(ended, None)
        self._pending = [(due, ended) for due, ended in self._pending if not ended.done()]

    def _end(self, ended: Future, result: tuple[Query, Outcome] | None) -> None:
        if not ended.done():
            ended.set_result(result)
            # a coroutine that awaits does not wake the executor by itself
            self._node.executor.wake()

    def _verdict(self, result: tuple[Query, Outcome] | None) -> tuple[bool, str]:
        if result is None:
            return False, "the model does not answer: it is busy or hangs"
        query, outcome = result
        took = (time.monotonic() - query.started) * 1e3
        if outcome.status not in ANSWERED:
            return False, f"{outcome.status.name}: {outcome.error}"
        model, answer = self._node.worker.model, outcome.answer
        where = f"{model.name} on {model.device}" if model else "the model"
        return True, (
            f"{where} answered {INSTRUCTION!r} in {took:.0f} ms: {outcome.status.name}, "
            f"{len(answer.instances)} masks, {answer.text[:200]!r}"
        )


def _message() -> SimpleNamespace:
    pixels = sample_image()
    height, width, channels = pixels.shape
    return SimpleNamespace(
        header=Header(frame_id="self_test"),
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=width * channels,
        data=pixels.tobytes(),
    )
