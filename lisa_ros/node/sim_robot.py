"""A robot over the simulated tabletop: its camera on ROS 2 topics, its questions to the perception
node, which runs in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header, String

from lisa_ros.errors import LisaError
from lisa_ros.msg import Instance, Segmentation
from lisa_ros.node.image import to_message
from lisa_ros.node.sim_camera import FRAME, camera_info, depth_message
from lisa_ros.node.status import Status
from lisa_ros.sim.camera import View
from lisa_ros.sim.pick.trial import Reply

PERCEPTION = "/lisa/perception"
IMAGE = "/camera/image_raw"
RATE = 5.0  # pictures per second while somebody waits
SETTLE = 0.5  # seconds after which the node's newest image surely shows the new scene
START_LIMIT = 300.0  # seconds until the node has loaded its model, on a busy machine
ANSWER_LIMIT = 60.0  # seconds until an answer; the node itself gives up earlier
LOG_LINES = 12  # of a node that has failed, shown to the user
ATTEMPTS = 3  # at a question whose answer was about an image of an earlier scene


class NoAnswer(LisaError):
    """The perception node cannot be asked, or says nothing."""


class SimRobot(Node):
    """Shows a scene on `/camera/...`, asks on `/lisa/query` and waits for `/lisa/mask`.

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
        self._view: View | None = None
        self._image = self.create_publisher(Image, IMAGE, 1)
        self._depth = self.create_publisher(Image, "/camera/depth/image_raw", 1)
        self._info = self.create_publisher(CameraInfo, "/camera/camera_info", 1)
        self._query = self.create_publisher(String, "/lisa/query", 10)
        self._state = self.create_client(GetState, f"{PERCEPTION}/get_state")
        self.create_subscription(Segmentation, "/lisa/mask", self._results.append, 10)
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
        if not self._until(lambda: self._query.get_subscription_count() > 0, 10.0):
            raise NoAnswer("the perception node does not listen to /lisa/query")

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
                return _reply(message, seconds)
        raise NoAnswer("the perception node keeps answering about an image of an earlier scene")

    def _answer(self, instruction: str) -> tuple[Segmentation, float]:
        self._results.clear()
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


def _reply(message: Segmentation, seconds: float) -> Reply:
    """The first mask of a result: the thing that the answer names first."""
    mask = full_mask(message, message.instances[0]) if message.instances else None
    status = Status(message.status)
    return Reply(mask, message.answer, status.name, message.error, seconds)


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
    """Run the perception node on `IMAGE` in a process of its own; the value is `SimRobot`'s check.

    Args:
        model: shipped model or folder.
        log: takes what the node writes; its end is added to the text of a `NoAnswer`.
    """
    command = [sys.executable, "-m", "lisa_ros.cli", "node", "--image", IMAGE, "--model", model]
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
