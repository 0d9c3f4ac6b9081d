"""The action `follow`: find a thing once and keep it until the client ends it, or it is lost."""

from __future__ import annotations

from typing import Any

from rclpy.action import ActionServer, CancelResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from lisa_ros.action import Follow
from lisa_ros.msg import Segmentation
from lisa_ros.node.follow_loop import FollowLoop
from lisa_ros.node.parameters import BY_NAME, Parameters
from lisa_ros.node.requests.following import Following
from lisa_ros.node.requests.queries import MASKS, Queries
from lisa_ros.node.requests.query import Awaited, Query
from lisa_ros.node.requests.segment_action import RESULT_KEPT
from lisa_ros.node.results.messages import with_masks
from lisa_ros.node.status import Readiness, Status

ENDED = "the client ended it"
LONGEST_LIMIT = BY_NAME["follow.lost_timeout"].high


class FollowAction:
    """Turns goals into followings and hands their messages and their end back."""

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        queries: Queries,
        loop: FollowLoop,
        readiness: Readiness,
        group: CallbackGroup,
    ) -> None:
        self._node, self._parameters, self._readiness = node, parameters, readiness
        self._queries, self._loop = queries, loop
        self._running: dict[bytes, tuple[Following, Query | None]] = {}
        self._server = ActionServer(
            node,
            Follow,
            "follow",
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
        """Begin, wait for the end without holding the executor up, and give the goal its state."""
        goal, key = handle.request, bytes(handle.goal_id.uuid)
        ended = Awaited(self._node)

        def on_message(message: Segmentation) -> None:
            feedback = Follow.Feedback(segmentation=with_masks(message, goal.masks))
            handle.publish_feedback(feedback)

        limit = min(goal.lost_timeout, LONGEST_LIMIT) if goal.lost_timeout > 0 else 0.0
        one = Following(
            query_id=key.hex(),
            instruction=goal.instruction[: self._parameters["query.max_length"]],
            source=Segmentation.SOURCE_FOLLOW,
            stamp=self._node.get_clock().now().to_msg(),
            limit=limit or self._parameters["follow.lost_timeout"],
            on_message=on_message,
            on_end=lambda: ended.set_result(None),
        )
        self._running[key] = one, None
        self._loop.take_up(one)
        self._begin(one, key, goal)
        if handle.is_cancel_requested:
            self._cancel(*self._running[key])
        await ended
        del self._running[key]
        return self._conclude(handle, one)

    def _begin(self, one: Following, key: bytes, goal: Follow.Goal) -> None:
        """By whichever of its four ways the goal says what to follow."""
        ways = {
            "instruction": bool(goal.instruction.strip()),
            "query_id and instance_id": bool(goal.query_id or goal.instance_id),
            "box": len(goal.box) > 0,
            "point": len(goal.point) > 0,
        }
        given = [name for name, is_given in ways.items() if is_given]
        if self._readiness.not_ready_reason:
            self._loop.end(one, Status.NOT_READY, self._readiness.not_ready_reason)
        elif goal.masks not in ("", *MASKS):
            sentence = f"masks {goal.masks!r:.40} are unknown: use one of {', '.join(MASKS)}"
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
            query.on_result = lambda message, outcome: self._loop.begin_with_answer(
                one, query, outcome, message
            )
            self._running[key] = one, query
            self._queries.ask(query)
        elif goal.query_id or goal.instance_id:
            self._loop.begin_with_instance(one, goal.query_id, goal.instance_id)
        else:
            place = {"box": list(goal.box), "point": list(goal.point)}
            self._loop.begin_with_place(one, **place)

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
            segmentation=with_masks(message, handle.request.masks),
            reason=one.reason,
            frames=one.frames,
            seconds=one.seconds,
        )

    def _on_cancel(self, handle: ServerGoalHandle) -> CancelResponse:
        running = self._running.get(bytes(handle.goal_id.uuid))
        if running is not None:
            self._cancel(*running)
        return CancelResponse.ACCEPT

    def _cancel(self, one: Following, query: Query | None) -> None:
        """A query that is still being answered ends by itself, with its one result."""
        if query is not None and not query.ended:
            self._queries.cancel(query)
        else:
            self._loop.end(one, Status.CANCELLED, ENDED)
