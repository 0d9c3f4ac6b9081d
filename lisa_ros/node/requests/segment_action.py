"""The action `segment`: the same question for programs, with progress, dialogue and cancel."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from lisa_ros.action import Segment
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.frame import DepthMatch, Frame
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.queries import Queries
from lisa_ros.node.requests.query import Awaited, Outcome, Query
from lisa_ros.node.results import messages
from lisa_ros.node.results.objects3d import Objects3D
from lisa_ros.node.status import ANSWERED

RESULT_KEPT = 30  # seconds that a result can still be fetched; rclpy's own default is 900
WORDS_PERIOD = 0.05  # seconds between two feedbacks that bring words only; masks go out at once
DIALOGUES = 32  # conversations that are remembered; the one unused for longest is forgotten
TURNS = 8  # questions of a conversation that are remembered


class Dialogues:
    """What was said in each named conversation."""

    def __init__(self) -> None:
        self._turns: OrderedDict[str, list[tuple[str, str]]] = OrderedDict()

    def history(self, name: str) -> tuple[tuple[str, str], ...]:
        """Earlier questions with their answers' transcripts, the oldest first; a nameless one has
        none."""
        return tuple(self._turns.get(name, ()))

    def clear(self, name: str) -> None:
        """Forget one conversation."""
        self._turns.pop(name, None)

    def add(self, name: str, question: str, transcript: str) -> None:
        """Remember one more turn, `[SEG]` included; without a name nothing is remembered."""
        if not name:
            return
        turns = self._turns.setdefault(name, [])
        turns.append((question, transcript))
        del turns[:-TURNS]
        self._turns.move_to_end(name)
        if len(self._turns) > DIALOGUES:
            self._turns.popitem(last=False)


class SegmentAction:
    """Turns goals into queries and hands their progress and result back."""

    def __init__(
        self, node: Node, parameters: Parameters, queries: Queries, group: CallbackGroup
    ) -> None:
        self._node, self._parameters = node, parameters
        self._queries = queries
        self._dialogues = Dialogues()
        self._running: dict[bytes, Query] = {}
        self._server = ActionServer(
            node,
            Segment,
            "segment",
            self._execute,
            callback_group=group,
            cancel_callback=self._on_cancel,
            result_timeout=RESULT_KEPT,
        )

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        """Ask, wait for the end without holding the executor up, and give the goal its state."""
        query = self._query(handle)
        ended = Awaited(self._node)
        query.on_result = lambda message, outcome: ended.set_result((message, outcome))
        query.on_progress = GoalProgress(handle)
        key = bytes(handle.goal_id.uuid)
        self._running[key] = query
        self._queries.ask(query)
        if handle.is_cancel_requested:
            self._queries.cancel(query)
        message, outcome = await ended
        del self._running[key]
        return self._conclude(handle, message, outcome)

    @property
    def idle(self) -> bool:
        """Whether no goal waits for its end."""
        return not self._running

    def _query(self, handle: ServerGoalHandle) -> Query:
        goal = handle.request
        if goal.clear:
            self._dialogues.clear(goal.dialogue)
        details: dict[str, Any] = {"id": bytes(handle.goal_id.uuid).hex()}
        details["mode"], details["masks"] = goal.mode or "auto", goal.masks or "image"
        details["history"] = self._dialogues.history(goal.dialogue)
        if goal.timeout > 0:
            details["timeout"] = float(goal.timeout)
        if goal.max_new_tokens:
            limit = self._parameters["query.max_new_tokens"]
            details["max_new_tokens"] = min(goal.max_new_tokens, limit)
        if goal.image.data or goal.image.width:
            details["frame"] = Frame(goal.image, None, match=_own_match(goal))
        elif goal.depth.data or goal.depth.width or goal.camera_info.width:
            details["refusal"] = (
                "the goal brings a depth image or a camera_info but no image that they belong to"
            )
        return self._queries.new(goal.instruction, Segmentation.SOURCE_ACTION, **details)

    def _conclude(self, handle: ServerGoalHandle, message: Segmentation, outcome: Outcome) -> Any:
        """Succeeded: the model has answered; canceled: the client wanted it; else aborted."""
        if outcome.answer is not None and message.status in ANSWERED:
            transcript = outcome.answer.transcript
            self._dialogues.add(handle.request.dialogue, message.query, transcript)
        if handle.is_cancel_requested:
            handle.canceled()
        elif message.status in ANSWERED:
            handle.succeed()
        else:
            handle.abort()
        return Segment.Result(segmentation=messages.with_masks(message, handle.request.masks))

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        query = self._running.get(bytes(handle.goal_id.uuid))
        if query is not None:
            self._queries.cancel(query)
        return CancelResponse.ACCEPT


def _own_match(goal: Segment.Goal) -> DepthMatch:
    """The depth image and the camera_info that a goal brings along with its own image."""
    if not (goal.depth.data or goal.depth.width):
        return DepthMatch(reason="the image came with the question, and no depth image with it")
    # A camera_info that is not filled in is one that has not been sent.
    info = goal.camera_info if goal.camera_info.width or any(goal.camera_info.k) else None
    return DepthMatch(goal.depth, info)


class GoalProgress:
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
        objects = Objects3D.none(len(found), messages.UNFINISHED)
        feedback = Segment.Feedback(
            header=header,
            width=width,
            height=height,
            text=query.text,
            instances=messages.instance_messages(found, header, objects),
            elapsed=now - query.arrived,
        )
        self._handle.publish_feedback(messages.with_masks(feedback, query.masks))
