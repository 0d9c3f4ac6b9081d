"""The actions `segment` and `follow`: for programs, with progress, dialogue and cancel."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image

from lisa_ros.action import Follow, Segment
from lisa_ros.msg import Segmentation
from lisa_ros.node.follow_loop import FollowLoop
from lisa_ros.node.inputs.frame import DepthMatch, Frame
from lisa_ros.node.parameters import BY_NAME, Parameters
from lisa_ros.node.requests.queries import Queries
from lisa_ros.node.requests.query import Awaited, Query
from lisa_ros.node.results import messages
from lisa_ros.node.results.objects3d import Objects3D
from lisa_ros.node.results.tracks import Following
from lisa_ros.node.status import ANSWERED, Readiness, Status

RESULT_KEPT = 30  # seconds that a result can still be fetched; rclpy's own default is 900
WORDS_PERIOD = 0.05  # seconds between two feedbacks that bring words only; masks go out at once
DIALOGUES = 32  # conversations that are remembered; the one unused for longest is forgotten
TURNS = 8  # questions of a conversation that are remembered
MASKS = ("image", "png", "rle", "none")
LONGEST_TIMEOUT = BY_NAME["query.timeout"].high
LONGEST_LIMIT = BY_NAME["follow.lost_timeout"].high


class GoalServer:
    """An action; each of its goals ends when what it has begun ends."""

    def __init__(self, node: Node, kind: type, name: str, group: CallbackGroup) -> None:
        self._node = node
        self._running: dict[bytes, Callable[[], None]] = {}
        """by the goals' ids, what ends them when their client wants it"""
        self._server = ActionServer(
            node,
            kind,
            name,
            self._execute,
            callback_group=group,
            cancel_callback=self._on_cancel,
            result_timeout=RESULT_KEPT,
        )

    @property
    def idle(self) -> bool:
        """Whether no goal waits for its end."""
        return not self._running

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        """Begin, wait for the end, and give the goal its state; returns the result."""
        raise NotImplementedError

    async def _end_of(
        self, handle: ServerGoalHandle, ended: Awaited, cancel: Callable[[], None]
    ) -> Any:
        """Wait for the end of what has begun, without holding the executor up."""
        key = bytes(handle.goal_id.uuid)
        self._running[key] = cancel
        try:
            if handle.is_cancel_requested:
                cancel()
            return await ended
        finally:
            del self._running[key]

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        cancel = self._running.get(bytes(handle.goal_id.uuid))
        if cancel is not None:
            cancel()
        return CancelResponse.ACCEPT


def unknown_masks(form: str) -> str:
    """Why a goal cannot have its masks in this form; empty if it can."""
    if form in ("", *MASKS):
        return ""
    return f"masks {form!r:.40} are unknown: use one of {', '.join(MASKS)}"


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


class SegmentAction(GoalServer):
    """`segment`: turns goals into queries and hands their progress and result back."""

    def __init__(
        self, node: Node, parameters: Parameters, queries: Queries, group: CallbackGroup
    ) -> None:
        super().__init__(node, Segment, "segment", group)
        self._parameters, self._queries = parameters, queries
        self._dialogues = Dialogues()

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        query = self._query(handle)
        ended = Awaited(self._node)
        query.on_result = lambda message, outcome: ended.set_result((message, outcome))
        query.on_progress = GoalProgress(handle)
        self._queries.ask(query)
        message, outcome = await self._end_of(handle, ended, lambda: self._queries.cancel(query))
        if outcome.status in ANSWERED:
            transcript = outcome.answer.transcript
            self._dialogues.add(handle.request.dialogue, message.query, transcript)
        # Succeeded: the model has answered; canceled: the client wanted it; else aborted.
        if handle.is_cancel_requested:
            handle.canceled()
        elif outcome.status in ANSWERED:
            handle.succeed()
        else:
            handle.abort()
        return Segment.Result(segmentation=messages.with_masks(message, handle.request.masks))

    def _query(self, handle: ServerGoalHandle) -> Query:
        goal = handle.request
        if goal.clear:
            self._dialogues.clear(goal.dialogue)
        details: dict[str, Any] = {"id": bytes(handle.goal_id.uuid).hex()}
        details["mode"], details["refusal"] = goal.mode or "auto", unknown_masks(goal.masks)
        details["history"] = self._dialogues.history(goal.dialogue)
        if goal.timeout > 0:
            details["timeout"] = min(float(goal.timeout), LONGEST_TIMEOUT)
        if goal.max_new_tokens:
            limit = self._parameters["query.max_new_tokens"]
            details["max_new_tokens"] = min(goal.max_new_tokens, limit)
        if _is_sent(goal.image):
            details["frame"] = Frame(goal.image, match=_own_match(goal))
        elif _is_sent(goal.depth) or _is_sent(goal.camera_info):
            details["refusal"] = (
                "the goal brings a depth image or a camera_info but no image that they belong to"
            )
        return self._queries.new(goal.instruction, Segmentation.SOURCE_ACTION, **details)


def _is_sent(part: Image | CameraInfo) -> bool:
    """Whether a client has filled in an image, a depth image or a camera_info of a goal."""
    content = part.data if isinstance(part, Image) else any(part.k)
    return bool(content or part.width or part.height)


def _own_match(goal: Segment.Goal) -> DepthMatch:
    """The depth image and the camera_info that a goal brings along with its own image."""
    if not _is_sent(goal.depth):
        return DepthMatch(reason="the image came with the question, and no depth image with it")
    if not _is_sent(goal.camera_info):
        return DepthMatch(
            goal.depth,
            reason="no camera_info came with the question, so its depth image has no scale across: "
            "fill the goal's camera_info with that of the depth image",
        )
    return DepthMatch(goal.depth, goal.camera_info)


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
        self._handle.publish_feedback(messages.with_masks(feedback, self._handle.request.masks))


class FollowAction(GoalServer):
    """`follow`: finds a thing once and keeps it until the client ends that, or it is lost."""

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        queries: Queries,
        loop: FollowLoop,
        readiness: Readiness,
        group: CallbackGroup,
    ) -> None:
        super().__init__(node, Follow, "follow", group)
        self._parameters, self._readiness = parameters, readiness
        self._queries, self._loop = queries, loop

    async def _execute(self, handle: ServerGoalHandle) -> Any:
        goal, ended = handle.request, Awaited(self._node)

        def on_message(message: Segmentation) -> None:
            feedback = Follow.Feedback(segmentation=messages.with_masks(message, goal.masks))
            handle.publish_feedback(feedback)

        limit = min(goal.lost_timeout, LONGEST_LIMIT) if goal.lost_timeout > 0 else 0.0
        one = Following(
            query_id=bytes(handle.goal_id.uuid).hex(),
            instruction=goal.instruction[: self._parameters["query.max_length"]],
            source=Segmentation.SOURCE_FOLLOW,
            stamp=self._node.get_clock().now().to_msg(),
            limit=limit or self._parameters["follow.lost_timeout"],
            on_message=on_message,
            on_end=lambda: ended.set_result(None),
        )
        self._loop.take_up(one)
        query = self._begin(one, goal)

        def cancel() -> None:
            # a query that is still being answered ends by itself, with its one result
            if query is not None and not query.ended:
                self._queries.cancel(query)
            else:
                self._loop.end(one, Status.CANCELLED, "the client ended it")

        await self._end_of(handle, ended, cancel)
        return self._conclude(handle, one)

    def _begin(self, one: Following, goal: Follow.Goal) -> Query | None:
        """By whichever of its four ways the goal says what to follow; the query, if it is one."""
        ways = {
            "instruction": bool(goal.instruction.strip()),
            "query_id and instance_id": bool(goal.query_id or goal.instance_id),
            "box": len(goal.box) > 0,
            "point": len(goal.point) > 0,
        }
        given = [name for name, is_given in ways.items() if is_given]
        if self._readiness.not_ready_reason:
            self._loop.end(one, Status.NOT_READY, self._readiness.not_ready_reason)
        elif sentence := unknown_masks(goal.masks):
            self._loop.end(one, Status.REJECTED, sentence)
        elif len(given) != 1:
            sentence = (
                f"the goal gives {' and '.join(given) or 'nothing to follow'}: give exactly one of "
                "instruction, query_id with instance_id, box or point"
            )
            self._loop.end(one, Status.REJECTED, sentence)
        elif given == ["instruction"]:
            query = self._queries.new(
                goal.instruction, Segmentation.SOURCE_FOLLOW, id=one.query_id, mode="mask"
            )
            query.on_result = partial(self._loop.begin_with_answer, one, query)
            self._queries.ask(query)
            return query
        elif goal.query_id or goal.instance_id:
            self._loop.begin_with_instance(one, goal.query_id, goal.instance_id)
        else:
            place = {"box": list(goal.box), "point": list(goal.point)}
            self._loop.begin_with_place(one, **place)
        return None

    def _conclude(self, handle: ServerGoalHandle, one: Following) -> Any:
        """Canceled: the client wanted it. Everything else is an end that he did not want."""
        if handle.is_cancel_requested:
            handle.canceled()
        else:
            handle.abort()
        message = one.last or Segmentation(
            query_id=one.query_id,
            query=one.instruction,
            mode="mask",
            source=one.source,
            query_stamp=one.stamp,
            status=int(one.status),
            error=one.reason,
        )
        return Follow.Result(
            segmentation=messages.with_masks(message, handle.request.masks),
            reason=one.reason,
            frames=one.frames,
            seconds=one.seconds,
        )
