"""The queries that the node has taken up and not yet answered."""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from rclpy.clock import Clock
from rclpy.node import Node

from lisa_ros.engine.question import check_instruction
from lisa_ros.errors import InstructionError
from lisa_ros.model.prompt import MODE_SUFFIXES
from lisa_ros.msg import Segmentation
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.query import CANCELLED, Outcome, Query
from lisa_ros.node.results.publishers import ResultPublishers
from lisa_ros.node.status import Readiness, Status
from lisa_ros.node.worker import ModelWorker

GRACE = 0.5  # seconds that the engine has to stop by itself when it is told to or the time is up
EXPIRY_PERIOD = 0.1  # seconds between two looks for overdue queries while there are any


class Queries:
    """Takes queries up and sees to it that each ends in exactly one result.

    `finish` may be called from any thread, everything else belongs to the executor's.
    """

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        publishers: ResultPublishers,
        worker: ModelWorker,
        readiness: Readiness,
        clock: Clock,
        on_result: Callable[[Query, Outcome, Segmentation], None],
    ) -> None:
        """
        Args:
            node: for its logger, clock and a timer.
            parameters: of the node.
            publishers: where results go.
            worker: has the model.
            readiness: whether it can be asked now.
            clock: steady, because with use_sim_time the node's clock can stand still or jump.
            on_result: called with every query and its result, on the thread that published it.
        """
        self._node, self._parameters, self._publishers = node, parameters, publishers
        self._worker, self._readiness, self._on_result = worker, readiness, on_result
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._outstanding: dict[str, Query] = {}
        self._expiry = node.create_timer(EXPIRY_PERIOD, self._expire, clock=clock)
        self._expiry.cancel()

    def new(self, instruction: str, source: int, **details: Any) -> Query:
        """A query with the node's own limits where `details` gives none."""
        given = {
            "id": str(next(self._numbers)),
            "mode": self._parameters["query.mode"],
            "stamp": self._node.get_clock().now().to_msg(),
            "timeout": self._parameters["query.timeout"],
            "max_new_tokens": self._parameters["query.max_new_tokens"],
        }
        return Query(instruction=instruction, source=source, **(given | details))

    def ask(self, query: Query) -> None:
        """Take a query up: it will end in one `finish`, perhaps at once."""
        refusal = self._refusal(query)
        query.instruction = query.instruction[: self._parameters["query.max_length"]]
        with self._lock:
            self._outstanding[query.id] = query
        if refusal is not None:
            self.finish(query, refusal)
        else:
            self._worker.ask(query, self.finish)
            self._expiry.reset()

    def _refusal(self, query: Query) -> Outcome | None:
        """Why a query cannot even wait for the model; None if it can."""
        if self._readiness.not_ready_reason:
            return Outcome(Status.NOT_READY, self._readiness.not_ready_reason)
        longest, most = self._parameters["query.max_length"], self._parameters["query.queue_size"]
        sentence = query.refusal
        if len(query.instruction) > longest:
            sentence = (
                f"the instruction has {len(query.instruction)} characters, more than the limit of "
                f"{longest} (query.max_length): say it shorter"
            )
        elif query.mode not in MODE_SUFFIXES:
            known = ", ".join(MODE_SUFFIXES)
            sentence = f"the mode {query.mode!r:.40} is unknown: use one of {known}"
        elif self.waiting >= most:
            sentence = f"{most} queries wait already (query.queue_size): ask again later"
        else:
            try:
                check_instruction(query.instruction)
            except InstructionError as error:
                sentence = str(error)
        return Outcome(Status.REJECTED, sentence) if sentence else None

    @property
    def waiting(self) -> int:
        """Queries that the model's thread has not yet taken up."""
        with self._lock:
            return sum(not query.started for query in self._outstanding.values())

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is being answered."""
        return not self._outstanding

    def finish(self, query: Query, outcome: Outcome) -> None:
        """Publish the one result of a query; whoever comes second does nothing."""
        if query.end():
            self._conclude(query, outcome)

    def finish_all(self, status: Status, sentence: str) -> None:
        """End everything that waits or is being answered."""
        with self._lock:
            queries = list(self._outstanding.values())
        # All are ended before the first is published, or the model would begin the next meanwhile.
        for query in [query for query in queries if query.end()]:
            self._conclude(query, Outcome(status, sentence))

    def _conclude(self, query: Query, outcome: Outcome) -> None:
        """Everything that is owed to the world about a query that has just been ended."""
        with self._lock:
            self._outstanding.pop(query.id, None)
        try:
            message, outcome = self._publish(query, outcome)
            self._on_result(query, outcome, message)
            query.on_result(message, outcome)
            self._publishers.publish_rest(query, outcome, message)
            # A standing query would fill the log. The instruction is quoted, so that line breaks in
            # it cannot forge lines of the log.
            logger = self._node.get_logger()
            log = logger.debug if query.source == Segmentation.SOURCE_STANDING else logger.info
            log(
                f"query {query.id} {query.instruction!r:.100}: {Status(message.status).name}, "
                f"masks: {len(message.instances)}, {message.timings.total:.0f} ms"
            )
        except Exception:
            self._node.get_logger().error(f"query {query.id}\n{traceback.format_exc()}")

    def _publish(self, query: Query, outcome: Outcome) -> tuple[Segmentation, Outcome]:
        """Send the result out; an answer that does not fit into a message is a model error."""
        name = self._worker.model_name
        try:
            return self._publishers.publish_result(query, outcome, name), outcome
        except Exception as error:
            self._node.get_logger().error(f"query {query.id}\n{traceback.format_exc()}")
            query.text, query.instances = "", []
            sentence = f"the answer cannot be published ({type(error).__name__}); see the log"
            failed = Outcome(Status.MODEL_ERROR, sentence)
            return self._publishers.publish_result(query, failed, name), failed

    def cancel(self, query: Query) -> None:
        """End a query that its client no longer wants.

        A running one stops at its next token and keeps what it has; a waiting one ends now.
        """
        query.cancelled_at = time.monotonic()
        query.cancel.set()
        if not query.started:
            self.finish(query, Outcome(Status.CANCELLED, CANCELLED))

    def _expire(self) -> None:
        """End what is overdue, also when the model hangs and will not do so by itself."""
        with self._lock:
            queries = list(self._outstanding.values())
        now = time.monotonic()
        for query in queries:
            if query.cancelled_at and now > query.cancelled_at + GRACE:
                self.finish(query, Outcome(Status.CANCELLED, CANCELLED))
            elif now > query.deadline + (GRACE if query.started else 0.0):
                why = "the model did not answer" if query.started else "it waited in the queue"
                sentence = f"no answer within {query.timeout:g} s: {why}"
                self.finish(query, Outcome(Status.TIMEOUT, sentence))
        if not queries:
            self._expiry.cancel()
