"""The leaves in a real tree of py_trees, beside a node."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import py_trees
import pytest
from lisa_ros.action import Follow as FollowAction
from lisa_ros.msg import Segmentation
from node_rig import WAIT, Rig, drawn_image, rig, wait_for
from py_trees.common import Status
from rclpy.action import ActionServer
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

from lisa_ros.agents.tree import Find, Follow, TreeError
from lisa_ros.errors import InstructionError
from lisa_ros.node.client import PerceptionClient
from lisa_ros.web.node_client import NodeClient


@pytest.fixture(scope="module")
def robot() -> Iterator[Rig]:
    with rig() as made:
        made.start()
        made.film(10.0, drawn_image(160, 120))
        yield made


@pytest.fixture(autouse=True)
def _clean_blackboard() -> Iterator[None]:
    yield
    py_trees.blackboard.Blackboard.clear()


def planted(robot: Rig, *leaves: py_trees.behaviour.Behaviour) -> py_trees.trees.BehaviourTree:
    """A sequence of the leaves, which know the robot's node and have found the action."""
    root = py_trees.composites.Sequence("root", memory=True, children=list(leaves))
    tree = py_trees.trees.BehaviourTree(root)
    robot.do(lambda: tree.setup(node=robot.node))
    for leaf in leaves:
        wait_for(leaf._client.server_is_ready, f"the action of {leaf.name}")
    return tree


def ticked(robot: Rig, tree: py_trees.trees.BehaviourTree) -> Status:
    """The tree's end, ticked on the executor as py_trees_ros does it."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        robot.do(tree.tick)
        if tree.root.status is not Status.RUNNING:
            return tree.root.status
        time.sleep(0.05)
    raise AssertionError("the tree runs for ever")


def seen(key: str) -> Segmentation:
    return py_trees.blackboard.Blackboard.get(key)


def test_find_succeeds_with_the_mask_on_the_blackboard(robot: Rig) -> None:
    tree = planted(robot, Find("the red mug", key="mug"), Find("the book", key="book"))
    assert ticked(robot, tree) is Status.SUCCESS
    assert seen("mug").query == "the red mug" and seen("mug").instances
    assert seen("book").query == "the book"


def test_find_fails_where_the_thing_is_not_there(robot: Rig) -> None:
    leaf = Find("nothing here")
    assert ticked(robot, planted(robot, leaf)) is Status.FAILURE
    assert seen("segmentation").status == Segmentation.NOT_FOUND
    assert leaf.feedback_message


def test_a_tree_that_leaves_a_leaf_takes_its_question_back(robot: Rig) -> None:
    tree = planted(robot, Find("endless"))
    before = len(robot.results)
    robot.do(tree.tick)
    assert tree.root.status is Status.RUNNING
    robot.do(lambda: tree.root.stop(Status.INVALID))
    wait_for(lambda: len(robot.results) > before, "the result of the question")
    assert robot.results[before].status == Segmentation.CANCELLED


def test_a_leaf_without_a_node_says_what_is_missing(robot: Rig) -> None:
    lonely = Find("the red mug", namespace="nobody")
    tree = py_trees.trees.BehaviourTree(lonely)
    with pytest.raises(TreeError, match=r"tree\.setup\(node=node\)"):
        tree.setup()
    robot.do(lambda: tree.setup(node=robot.node))
    robot.do(tree.tick)
    assert tree.root.status is Status.FAILURE
    assert lonely.feedback_message == "no perception node at /nobody/segment"


def test_follow_runs_until_the_thing_is_lost(robot: Rig) -> None:
    lost = threading.Event()

    async def follow(handle: ServerGoalHandle) -> FollowAction.Result:
        message = Segmentation(status=Segmentation.OK, query=handle.request.instruction)
        while not lost.is_set() and not handle.is_cancel_requested:
            handle.publish_feedback(FollowAction.Feedback(segmentation=message))
            pause = Future(executor=robot.executor)
            timer = robot.node.create_timer(0.05, lambda done=pause: done.set_result(None))
            await pause
            robot.node.destroy_timer(timer)
        handle.canceled() if handle.is_cancel_requested else handle.abort()
        return FollowAction.Result(segmentation=message, reason="it was gone for 2 s")

    server = robot.do(lambda: ActionServer(robot.node, FollowAction, "/other/follow", follow))
    leaf = Follow("the red mug", key="track", namespace="other")
    tree = planted(robot, leaf)

    def shown() -> bool:
        robot.do(tree.tick)
        assert tree.root.status is Status.RUNNING, leaf.feedback_message
        return py_trees.blackboard.Blackboard.exists("track")

    wait_for(shown, "the track on the blackboard")
    assert seen("track").query == "the red mug"
    lost.set()
    assert ticked(robot, tree) is Status.FAILURE
    assert leaf.feedback_message == "it was gone for 2 s"
    robot.do(server.destroy)


def test_clients_refuse_what_ros_cannot_carry() -> None:
    """Before anything is sent: rclpy would raise on some other thread."""
    words = {"instruction": "half a letter: \ud800"}
    for ask in (
        lambda: Find(**words),
        lambda: PerceptionClient.ask(None, **words),
        lambda: NodeClient.ask(None, "page", 1, words),
        lambda: NodeClient.follow(None, "page", 1, words),
    ):
        with pytest.raises(InstructionError, match="no text"):
            ask()
