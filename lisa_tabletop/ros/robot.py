"""A robot over the simulated tabletop: its camera on ROS 2 topics, its questions to the perception
node, which runs in a process of its own, and what the node says to them: mask, size, grasps."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import Pose, PoseArray
from lifecycle_msgs.srv import GetState
from lisa_ros.msg import Instance, Segmentation
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Float32MultiArray, Header, String

from lisa_ros.errors import LisaError
from lisa_ros.geometry import Grasp, rigid
from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.results.space_messages import SCORES
from lisa_ros.node.status import Status
from lisa_tabletop.pick.grasping import Target, in_table_frame
from lisa_tabletop.pick.hand import GRIPPER
from lisa_tabletop.pick.trial import Reply
from lisa_tabletop.ros.camera_node import FRAME, camera_info, depth_message
from lisa_tabletop.world.camera import View

PERCEPTION = "/lisa/perception"
IMAGE, DEPTH, INFO = "/camera/image_raw", "/camera/depth/image_raw", "/camera/camera_info"
HAND = (
    *("-p", f"grasp.opening:={GRIPPER.opening}"),
    *("-p", f"grasp.finger_length:={GRIPPER.finger_length}"),
)
"""The gripper's measures as ROS arguments of the node."""
RATE = 5.0  # pictures per second while somebody waits
SETTLE = 0.5  # seconds after which the node's newest image surely shows the new scene
START_LIMIT = 300.0  # seconds until the node has loaded its model, on a busy machine
ANSWER_LIMIT = 60.0  # seconds until an answer; the node itself gives up earlier
GRASPS_LIMIT = 15.0  # seconds between a mask and its grasps, on a busy machine
LOG_LINES = 12  # of a node that has failed, shown to the user
ATTEMPTS = 3  # at a question whose answer was about an image of an earlier scene


class NoAnswer(LisaError):
    """The perception node cannot be asked, or says nothing."""


class SimRobot(Node):
    """Shows a scene on `/camera/...`, asks on `/lisa/query`, waits for `/lisa/mask` and its grasps.

    Args:
        check: raises if the perception node's process has ended.
        answer_limit: seconds to wait for an answer.
    """

    def __init__(
        self, check: Callable[[], None] = lambda: None, answer_limit: float = ANSWER_LIMIT
    ) -> None:
        super().__init__("sim_robot")
        self._check, self._answer_limit = check, answer_limit
        self._results: list[Segmentation] = []
        self._grasps: list[PoseArray] = []
        self._scores: list[Float32MultiArray] = []
        self._view: View | None = None
        self._image = self.create_publisher(Image, IMAGE, 1)
        self._depth = self.create_publisher(Image, DEPTH, 1)
        self._info = self.create_publisher(CameraInfo, INFO, 1)
        self._query = self.create_publisher(String, "/lisa/query", 10)
        self._state = self.create_client(GetState, f"{PERCEPTION}/get_state")
        self.create_subscription(Segmentation, "/lisa/mask", self._results.append, 10)
        self.create_subscription(PoseArray, "/lisa/grasps", self._grasps.append, 10)
        self.create_subscription(Float32MultiArray, "/lisa/grasps/scores", self._scores.append, 10)
        self.create_timer(1 / RATE, self._publish)

    def wait_for_node(self) -> None:
        """Until the perception node is active and hears us.

        Raises:
            NoAnswer: it is not there, or could not be started.
        """
        if not self._until(self._state.service_is_ready, START_LIMIT):
            raise NoAnswer(f"the perception node did not appear within {START_LIMIT:.0f} s")
        reply = self._state.call_async(GetState.Request())
        if not self._until(reply.done, START_LIMIT):
            raise NoAnswer(f"the perception node was not ready within {START_LIMIT:.0f} s")
        state = reply.result().current_state.label
        if state != "active":
            raise NoAnswer(f"the perception node could not be started: it is {state}")
        for one in (self._query, self._image, self._depth, self._info):
            if not self._until(lambda one=one: one.get_subscription_count() > 0, 10.0):
                raise NoAnswer(f"the perception node does not listen to {one.topic_name}")

    def ask(self, view: View, question: dict) -> Reply:
        """Show a scene, publish the instruction, wait for the answer about this scene.

        Raises:
            NoAnswer: none came.
        """
        self._view = view
        shown = self.get_clock().now().nanoseconds
        self._until(lambda: False, SETTLE)
        for _ in range(ATTEMPTS):
            message, seconds = self._answer(question["instruction"])
            stamp = message.header.stamp
            is_old = stamp.sec * 10**9 + stamp.nanosec < shown
            if message.status != Status.OK or not is_old:
                return self._reply(view, message, seconds)
        raise NoAnswer("the perception node keeps answering about an image of an earlier scene")

    def _answer(self, instruction: str) -> tuple[Segmentation, float]:
        for received in (self._results, self._grasps, self._scores):
            received.clear()
        asked = time.monotonic()
        self._query.publish(String(data=instruction))

        def answered() -> bool:
            return any(result.query == instruction for result in self._results)

        if not self._until(answered, self._answer_limit):
            raise NoAnswer(
                f"no answer to '{instruction}' on /lisa/mask within {self._answer_limit:g} s: "
                "is the perception node still running?"
            )
        message = next(result for result in self._results if result.query == instruction)
        return message, time.monotonic() - asked

    def _reply(self, view: View, message: Segmentation, seconds: float) -> Reply:
        """The first mask of a result: the thing that the answer names first."""
        mask, target = None, Target()
        if message.instances:
            first = message.instances[0]
            mask = full_mask(message, first)
            target = Target(reason=first.pose_reason)
            if first.has_pose:
                found = self._grasps_of(message, first.id)
                grasps = [in_table_frame(grasp, view.camera_pose) for grasp in found]
                target = Target(grasps, np.array([first.size.x, first.size.y, first.size.z]))
        status = Status(message.status).name
        return Reply(mask, message.answer, status, message.error, seconds, target)

    def _grasps_of(self, message: Segmentation, number: int) -> list[Grasp]:
        """The grasps that the node publishes with a result for one of its instances.

        Raises:
            NoAnswer: they do not come.
        """

        def arrived() -> bool:
            return bool(poses_with(message, self._grasps) and scores_with(message, self._scores))

        if not self._until(arrived, GRASPS_LIMIT):
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

    def _publish(self) -> None:
        if self._view is None:
            return
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=FRAME)
        self._info.publish(camera_info(self._view, header))
        self._depth.publish(depth_message(self._view.depth, header))
        self._image.publish(to_message(self._view.rgb, "rgb8", header))

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Handle what arrives until the condition holds; False if it does not within the time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self._check()
            rclpy.spin_once(self, timeout_sec=0.05)
        return True


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


def full_mask(message: Segmentation, instance: Instance) -> np.ndarray:
    """The mask of one instance in pixels of the image, bool (H,W)."""
    roi, cut = instance.roi, instance.mask
    pixels = np.frombuffer(cut.data, np.uint8).reshape(cut.height, cut.step)[:, : cut.width]
    whole = np.zeros((message.height, message.width), bool)
    rows = slice(roi.y_offset, roi.y_offset + roi.height)
    whole[rows, roi.x_offset : roi.x_offset + roi.width] = pixels > 0
    return whole


@contextmanager
def perception_process(model: str, log: Path) -> Iterator[Callable[[], None]]:
    """Run the perception node on the robot's camera, for its hand, in a process of its own.

    The value is `SimRobot`'s check.

    Args:
        model: shipped model or folder.
        log: takes what the node writes; its end is added to the text of a `NoAnswer`.
    """
    command = [
        *(sys.executable, "-m", "lisa_ros.cli", "node", "--model", model),
        *("--image", IMAGE, "--depth", DEPTH, "--camera-info", INFO, "--ros-args", *HAND),
    ]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def check() -> None:
        if process.poll() is not None:
            raise NoAnswer(f"the perception node has ended with code {process.returncode}")

    try:
        yield check
    except NoAnswer as error:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        raise NoAnswer("\n".join([str(error), *lines])) from None
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
