"""Leaves of a behaviour tree of py_trees: `Find` and `Follow`.

    root = py_trees.composites.Sequence("fetch", memory=True)
    root.add_children([Find("the red mug"), ...])
    tree = py_trees.trees.BehaviourTree(root)
    tree.setup(node=node)      # as py_trees_ros does it; the node is spun by whoever made it

Leaves never wait: they send a goal when they are first ticked, look at it at each tick, and take it
back when the tree leaves them.
"""

from __future__ import annotations

from typing import Any

import py_trees
from py_trees.common import Access
from py_trees.common import Status as TreeStatus
from rclpy.action import ActionClient

from lisa_ros.action import Follow as FollowAction
from lisa_ros.action import Segment
from lisa_ros.errors import LisaError
from lisa_ros.model.prompt import check_text
from lisa_ros.node.client import SentGoal
from lisa_ros.node.status import Status

RESULT = "segmentation"  # key on the blackboard


class TreeError(LisaError):
    """A leaf is set up wrongly."""


class GoalLeaf(py_trees.behaviour.Behaviour):
    """One goal to the perception node.

    Args:
        instruction: what is meant, in plain words.
        name: of the leaf; the instruction unless given.
        key: on the blackboard, where the newest `Segmentation` goes.
        namespace: of the perception node.

    Raises:
        InstructionError: the instruction is no text that ROS could carry.
    """

    action: Any
    topic: str

    def __init__(
        self, instruction: str, name: str = "", *, key: str = RESULT, namespace: str = "lisa"
    ) -> None:
        check_text(instruction)
        super().__init__(name or instruction)
        self.instruction, self._key = instruction, key
        self._topic = f"/{namespace.strip('/')}/{self.topic}"
        self._board = self.attach_blackboard_client(name=self.name)
        self._board.register_key(key=key, access=Access.WRITE)
        self._client: ActionClient | None = None
        self._goal: SentGoal | None = None

    def setup(self, **kwargs: Any) -> None:
        """Find the node: `tree.setup(node=node)`.

        Raises:
            TreeError: there is none among the arguments.
        """
        node = kwargs.get("node")
        if node is None:
            raise TreeError("tree.setup needs the ROS node: tree.setup(node=node)")
        self._client = ActionClient(node, self.action, self._topic)

    def initialise(self) -> None:
        """Send the goal; called by py_trees at the first tick."""
        self._goal = None
        if self._client is None or not self._client.server_is_ready():
            self.feedback_message = f"no perception node at {self._topic}"
            return
        self._goal = SentGoal(self._client, self.goal(), self._show)
        self.feedback_message = f"asked: {self.instruction}"

    def goal(self) -> Any:
        """The goal to send."""
        return self.action.Goal(instruction=self.instruction)

    def update(self) -> TreeStatus:
        """RUNNING until the goal has ended; called by py_trees at each tick."""
        if self._goal is None:
            return TreeStatus.FAILURE
        if self._goal.refused:
            self.feedback_message = "the perception node does not take the goal"
            return TreeStatus.FAILURE
        if self._goal.result is None:
            return TreeStatus.RUNNING
        return self.conclude(self._goal.result)

    def conclude(self, result: Any) -> TreeStatus:
        """What a result means to the tree."""
        message = result.segmentation
        self._board.set(self._key, message)
        name = Status(message.status).name if message.status else "no answer"
        self.feedback_message = message.error or message.answer or name
        return TreeStatus.SUCCESS if message.status == Status.OK else TreeStatus.FAILURE

    def _show(self, wrapped: Any) -> None:
        """Feedback of the goal."""

    def terminate(self, new_status: TreeStatus) -> None:
        """Take the goal back where the tree has left the leaf before its end."""
        if self._goal is not None and self._goal.result is None:
            self._goal.cancel()
        self._goal = None


class Find(GoalLeaf):
    """SUCCESS where the thing has a mask, FAILURE otherwise; `feedback_message` says why."""

    action, topic = Segment, "segment"

    def goal(self) -> Segment.Goal:
        return Segment.Goal(instruction=self.instruction, mode=Segment.Goal.MODE_MASK)


class Follow(GoalLeaf):
    """RUNNING as long as the thing is in view, with its newest masks on the blackboard.

    FAILURE when it is lost, or nothing was found. It belongs beside what moves, below a Parallel.
    """

    action, topic = FollowAction, "follow"

    def _show(self, wrapped: Any) -> None:
        self._board.set(self._key, wrapped.feedback.segmentation)

    def conclude(self, result: Any) -> TreeStatus:
        super().conclude(result)
        self.feedback_message = result.reason or self.feedback_message
        return TreeStatus.FAILURE
