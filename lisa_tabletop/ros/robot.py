"""A robot over the simulated tabletop: its camera on ROS 2 topics, its questions to the perception
node, and what the node says to them: mask, size, grasps."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from geometry_msgs.msg import Pose, PoseArray
from lisa_ros.action import Follow
from lisa_ros.msg import Segmentation
from rclpy.action import ActionClient
from rclpy.duration import Duration
from rclpy.task import Future
from rclpy.time import Time
from std_msgs.msg import Float32MultiArray

from lisa_ros.geometry import Grasp, rigid, transform_points
from lisa_ros.node.client import ANSWER_LIMIT, NoAnswer, PerceptionClient
from lisa_ros.node.results.messages import SCORES, full_mask
from lisa_ros.node.status import Status
from lisa_tabletop.pick.disturb import Moved
from lisa_tabletop.pick.trial import Reply, Target
from lisa_tabletop.ros.camera_node import DEPTH, IMAGE, INFO, ViewPublisher
from lisa_tabletop.world.camera import SceneView
from lisa_tabletop.world.hand import GRIPPER

HAND = (
    *("-p", f"grasp.opening:={GRIPPER.opening}"),
    *("-p", f"grasp.finger_length:={GRIPPER.finger_length}"),
)
"""The gripper's measures as ROS arguments of the node."""
RATE = 5.0  # images per second while somebody waits
SETTLE = 0.5  # seconds after which the node's newest image surely shows the new scene
FIRST_IMAGE = 0.1  # seconds of stamps from the image of an answer to the next one
TRACK_LIMIT = 15.0  # seconds from an image until the node says where the thing is in it
GRASPS_LIMIT = 15.0  # seconds between a mask and its grasps, on a busy machine


def perception_command(model: str) -> list[str]:
    """The perception node on the robot's camera, for its hand, as a process."""
    node = [sys.executable, "-m", "lisa_ros.cli", "node", "--model", model]
    topics = ["--image", IMAGE, "--depth", DEPTH, "--camera-info", INFO]
    return [*node, *topics, "--ros-args", *HAND]


class SimRobot(PerceptionClient):
    """Shows a scene on `/camera/...`, asks the perception node, waits for mask and grasps.

    Args:
        check: raises if the perception node's process has ended.
        answer_limit: seconds to wait for an answer.
    """

    def __init__(
        self, check: Callable[[], None] = lambda: None, answer_limit: float = ANSWER_LIMIT
    ) -> None:
        super().__init__(check, "sim_robot")
        self._answer_limit = answer_limit
        self._grasps: list[PoseArray] = []
        self._scores: list[Float32MultiArray] = []
        self._view: SceneView | None = None
        self._answered, self._answered_at = ("", 0), Time()
        self._tracks: list[Segmentation] = []
        self._follow = ActionClient(self, Follow, "follow")
        self.create_subscription(Segmentation, "tracks", self._tracks.append, 10)
        self._camera = ViewPublisher(self)
        self.create_subscription(PoseArray, "grasps", self._grasps.append, 10)
        self.create_subscription(Float32MultiArray, "grasps/scores", self._scores.append, 10)
        self.create_timer(1 / RATE, lambda: self._view and self._camera.publish(self._view))

    def wait_for_node(self) -> None:
        """Until the perception node is active and hears us and our camera.

        Raises:
            NoAnswer: it is not there, or could not be started.
        """
        super().wait_for_node()
        for topic in (IMAGE, DEPTH, INFO):
            if not self.wait(lambda topic=topic: self.count_subscribers(topic) > 0, 10.0):
                raise NoAnswer(f"the perception node does not listen to {topic}")

    def reply_to(self, view: SceneView, question: dict) -> Reply:
        """Show a scene, publish the instruction, wait for the answer about this scene.

        Raises:
            NoAnswer: none came.
        """
        self._view = view
        shown = self.get_clock().now().nanoseconds
        self.wait(lambda: False, SETTLE)
        self._grasps.clear()
        self._scores.clear()
        asked = time.monotonic()
        message = self.ask(question["instruction"], newer_than=shown, seconds=self._answer_limit)
        seconds = time.monotonic() - asked
        # the first mask of a result is the thing that the answer names first
        mask, target = None, Target()
        if message.instances:
            first = message.instances[0]
            self._answered = message.query_id, first.id
            self._answered_at = Time.from_msg(message.header.stamp)
            mask, target = full_mask(message, first), Target(reason=first.pose_reason)
            if first.has_pose:
                grasps = [
                    replace(grasp, pose=view.camera_pose @ grasp.pose)
                    for grasp in self._grasps_of(message, first.id)
                ]
                target = Target(grasps, np.array([first.size.x, first.size.y, first.size.z]))
        status = Status(message.status).name
        return Reply(mask, message.answer, status, message.error, seconds, target)

    @contextmanager
    def following(self, view: SceneView) -> Iterator[Moved]:
        """Have the node follow the thing of the last reply; the camera shows what is passed.

        Where the node does not see it at first, it is not known to move; the log says why.

        Raises:
            NoAnswer: the node takes no goal.
        """
        query_id, instance_id = self._answered
        goal = Follow.Goal(
            query_id=query_id, instance_id=instance_id, lost_timeout=ANSWER_LIMIT, masks="none"
        )
        # the next image of the simulation after that of the answer, whatever the clock says
        self._view, began = None, self._answered_at + Duration(seconds=FIRST_IMAGE)
        sent = self._follow.send_goal_async(goal)
        if not self.wait(sent.done, ANSWER_LIMIT) or not sent.result().accepted:
            raise NoAnswer("the perception node takes no goal of the action follow")
        handle = sent.result()
        ended = handle.get_result_async()
        start = self._place_in(view, began, ended)
        if start is None:
            reason = ended.result().result.reason if ended.done() else "it is not visible"
            self.get_logger().warning(f"the thing that was answered is not followed: {reason}")
        moved = np.zeros(3)

        def tell(view: SceneView, seconds: float) -> np.ndarray:
            nonlocal moved
            # by the simulation's own time, or a slow machine would make gaps of seconds
            place = self._place_in(view, began + Duration(seconds=seconds), ended)
            if place is not None and start is not None:
                moved = place - start
            return moved

        try:
            yield tell
        finally:
            handle.cancel_goal_async()
            self.wait(ended.done, ANSWER_LIMIT)

    def _place_in(self, view: SceneView, stamp: Time, ended: Future) -> np.ndarray | None:
        """Where the node says that the followed thing is in a view: (3,), metres, table's frame.

        None where it is not seen, or has no pose, or is no longer followed.
        """
        header = self._camera.publish(view, stamp)

        def told() -> list[Segmentation]:
            return [one for one in self._tracks if one.header == header]

        self.wait(lambda: bool(told()) or ended.done(), TRACK_LIMIT)
        placed = [one.instances[0] for one in told() if one.instances[0].has_pose]
        self._tracks.clear()
        if not placed:
            return None
        place = placed[-1].pose.pose.position
        return transform_points(np.array([[place.x, place.y, place.z]]), view.camera_pose)[0]

    def _grasps_of(self, message: Segmentation, number: int) -> list[Grasp]:
        """The grasps that the node publishes with a result for one of its instances.

        Raises:
            NoAnswer: they do not come.
        """

        def arrived() -> bool:
            return bool(poses_with(message, self._grasps) and scores_with(message, self._scores))

        if not self.wait(arrived, GRASPS_LIMIT):
            raise NoAnswer(
                f"the perception node gave a mask and no grasps within {GRASPS_LIMIT:g} s on "
                "/lisa/grasps and /lisa/grasps/scores"
            )
        poses = poses_with(message, self._grasps)[0]
        rows = np.array(scores_with(message, self._scores)[0].data).reshape(-1, len(SCORES))
        return [
            to_grasp(pose, score, width)
            for pose, (score, width, instance) in zip(poses.poses, rows, strict=True)
            if instance == number
        ]


def poses_with(result: Segmentation, received: list[PoseArray]) -> list[PoseArray]:
    """Those about the image of a result."""
    return [one for one in received if one.header.stamp == result.header.stamp]


def scores_with(result: Segmentation, received: list[Float32MultiArray]) -> list[Float32MultiArray]:
    """Those of a result: the label of their first dimension is its query's."""
    return [one for one in received if one.layout.dim[0].label == result.query_id]


def to_grasp(pose: Pose, score: float, width: float) -> Grasp:
    """A grasp in the frame of the message."""
    place, turn = pose.position, pose.orientation
    matrix = rigid((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))
    return Grasp(matrix, float(width), float(score), kind="front")  # the message knows no up
