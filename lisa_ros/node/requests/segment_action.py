"""The action `segment`: the same question for programs, with progress, dialogue and cancel."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

from lisa_ros.action import Segment
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.camera import Frame
from lisa_ros.node.requests.query import Query
from lisa_ros.node.results import messages
from lisa_ros.node.results.localization import Space
from lisa_ros.node.status import ANSWERED

if TYPE_CHECKING:
    from lisa_ros.node.perception_node import PerceptionNode

RESULT_KEPT = 30  # seconds that a result can still be fetched; rclpy's own default is 900
WORDS_PERIOD = 0.05  # seconds between two feedbacks that bring words only; masks go out at once
DIALOGUES = 32  # conversations that are remembered; the one unused for longest is forgotten
TURNS = 8  # questions of a conversation that are remembered


class Dialogues:
    """What was said in each named conversation."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, list[tuple[str, str]]] = OrderedDict()

    def history(self, name: str) -> tuple[tuple[str, str], ...]:
        """Earlier questions and answers, the oldest first; a nameless one has none."""
        return tuple(self._turns.get(name, ()))

    def clear(self, name: str) -> None:
        """Forget one conversation."""
        self._turns.pop(name, None)

    def add(self, name: str, question: str, answer: str) -> None:
        """Remember one more turn; without a name nothing is remembered."""
        if not name:
            return
        turns = self._turns.setdefault(name, [])
        turns.append((question, answer))
        del turns[:-TURNS]
        self._turns.move_to_end(name)
        if len(self._turns) > DIALOGUES:
            self._turns.popitem(last=False)


class SegmentAction:
    """Turns goals into queries and hands their progress and result back."""

    def __init__(self, node: PerceptionNode) -> None:
        self._node = node
        self._dialogues = Dialogues()
        self._queries: dict[bytes, Query] = {}
        self._server = ActionServer(
            node,
            Segment,
            "segment",
            self._execute,
            cancel_callback=self._on_cancel,
            result_timeout=RESULT_KEPT,
        )

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        """Ask, wait for the end without holding the executor up, and give the goal its state."""
        query = self._query(handle)
        ended = Future(executor=self._node.executor)

        def on_result(message: Segmentation) -> None:
            ended.set_result(message)
            # a coroutine that awaits does not wake the executor by itself
            self._node.executor.wake()

        query.on_result = on_result
        query.on_progress = Progress(handle)
        key = bytes(handle.goal_id.uuid)
        self._queries[key] = query
        self._node.queries.ask(query)
        if handle.is_cancel_requested:
            self._node.queries.take_back(query)
        message = await ended
        del self._queries[key]
        return self._conclude(handle, message)

    @property
    def idle(self) -> bool:
        """Whether no goal waits for its end."""
        return not self._queries

    def _query(self, handle: ServerGoalHandle) -> Query:
        goal = handle.request
        if goal.clear:
            self._dialogues.clear(goal.dialogue)
        details: dict[str, Any] = {"id": bytes(handle.goal_id.uuid).hex()}
        details["mode"] = goal.mode or "auto"
        details["history"] = self._dialogues.history(goal.dialogue)
        if goal.timeout > 0:
            details["timeout"] = float(goal.timeout)
        if goal.max_new_tokens:
            limit = self._node.parameters["query.max_new_tokens"]
            details["max_new_tokens"] = min(goal.max_new_tokens, limit)
        if goal.image.data or goal.image.width:
            details["frame"] = Frame(goal.image, None)
        return self._node.queries.new(goal.instruction, Segmentation.SOURCE_ACTION, **details)

    def _conclude(self, handle: ServerGoalHandle, message: Segmentation) -> Any:
        """Succeeded: the model has answered; canceled: the client wanted it; else aborted."""
        if message.status in ANSWERED:
            goal = handle.request
            self._dialogues.add(goal.dialogue, message.query, message.answer)
        if handle.is_cancel_requested:
            handle.canceled()
        elif message.status in ANSWERED:
            handle.succeed()
        else:
            handle.abort()
        return Segment.Result(segmentation=message)

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        query = self._queries.get(bytes(handle.goal_id.uuid))
        if query is not None:
            self._node.queries.take_back(query)
        return CancelResponse.ACCEPT


class Progress:
    """Sends a goal's feedback; called on the model's thread."""

    def __init__(self, handle: ServerGoalHandle) -> None:
        self._handle = handle
        self._sent, self._masks = 0.0, 0

    def __call__(self, query: Query) -> None:
        now = time.monotonic()
        new_mask = len(query.instances) > self._masks
        if query.ended or (not new_mask and now - self._sent < WORDS_PERIOD):
            return
        self._sent, self._masks = now, len(query.instances)
        width, height = query.frame.size
        header, found = query.frame.header, query.instances
        space = Space.empty(len(found), messages.UNFINISHED)
        self._handle.publish_feedback(
            Segment.Feedback(
                header=header,
                width=width,
                height=height,
                text=query.said,
                instances=messages.instance_messages(found, header, space),
                elapsed=now - query.arrived,
            )
        )
