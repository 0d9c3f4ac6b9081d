"""A perception node in a process of its own, and a robot's side of it in the test's process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from lisa_ros.action import Segment
from lisa_ros.msg import Segmentation
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String

from lisa_ros.node.client import NodeProcess, claimed_domain

ROOT = Path(__file__).resolve().parent.parent
FAKE = [sys.executable, str(ROOT / "test" / "fake_engine.py")]
WAIT = 120.0  # seconds after which something has not happened; on a slow and busy machine, too
START = 180.0  # seconds in which a process starts, on a busy machine too
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
RELIABLE = QoSProfile(depth=1)


def drawn_image(width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """A colourful image, uint8 (H, W, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def image_message(pixels: np.ndarray, stamp: tuple[int, int] = (1, 2)) -> Image:
    """An rgb8 message."""
    height, width = pixels.shape[:2]
    message = Image(height=height, width=width, encoding="rgb8", step=width * 3)
    message.header.frame_id = "camera_optical"
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    message.data = array("B", pixels.tobytes())
    return message


def wait_for(condition: Callable[[], Any], what: str, seconds: float = WAIT) -> Any:
    """The condition's value once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds:g} s in vain for {what}")


class Process(NodeProcess):
    """The node's process with what it wrote, in a ROS domain."""

    def __init__(self, command: list[str], domain: int) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="lisa_ros_test_")
        # What a ROS installation or the user has put there stays reachable.
        paths = [str(ROOT), str(ROOT / "test"), os.environ.get("PYTHONPATH", "")]
        variables = {
            "ROS_DOMAIN_ID": str(domain),
            "ROS_LOG_DIR": self.folder.name,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        super().__init__(command, Path(self.folder.name) / "output.txt", environment=variables)

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal; the exit code."""
        if self.alive:
            self.process.send_signal(number)
        try:
            return self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the node does not stop; its log:\n{self.log}") from None


class Rig:
    """One domain with a robot's node in it: a camera, a voice, and ears for the results."""

    def __init__(self, domain: int, namespace: str = "lisa") -> None:
        self.domain = domain
        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node("robot", context=self.context, namespace=namespace)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.results: list[Segmentation] = []
        self.answers: list[str] = []
        self.processes: list[Process] = []
        self.filmed = 0
        """the second of the last stamp of `film`"""
        self._camera_stop = threading.Event()
        self._camera: threading.Thread | None = None
        self._clients: dict[str, Client] = {}
        deep = QoSProfile(depth=5000)
        self.voice = self.node.create_publisher(String, "query", deep)
        self.mask = self.node.create_subscription(Segmentation, "mask", self.results.append, deep)
        self.node.create_subscription(
            String, "answer", lambda message: self.answers.append(message.data), deep
        )
        self.images = self.node.create_publisher(Image, "image", RELIABLE)
        self.thread = threading.Thread(target=self._spin, daemon=True)
        self.thread.start()

    def _spin(self) -> None:
        with suppress(ExternalShutdownException):
            self.executor.spin()

    def start(
        self,
        *ros: str,
        command: list[str] | None = None,
        ready: bool = True,
        seconds: float = START,
    ) -> Process:
        """Start a perception node; wait until it hears and speaks and, with `ready`, is active."""
        arguments = ["--ros-args", *ros] if command is None else list(ros)
        process = Process([*(command or FAKE), *arguments], self.domain)
        self.processes.append(process)

        def reached(condition: Callable[[], Any], what: str) -> None:
            def checked() -> Any:
                value = condition()
                assert value or process.alive, f"the node has died before {what}"
                return value

            try:
                wait_for(checked, what, seconds)
            except AssertionError as error:
                raise AssertionError(f"{error}; its log:\n{process.log}") from None

        reached(self.voice.get_subscription_count, "the node's subscription")
        reached(self.mask.get_publisher_count, "the node's publisher")
        if ready:
            reached(lambda: "activate: done" in process.log, "the node to be active")
        return process

    def show(self, pixels: np.ndarray | None = None, stamp: tuple[int, int] = (1, 2)) -> Image:
        """Publish one image; returns it."""
        message = image_message(drawn_image() if pixels is None else pixels, stamp)
        wait_for(lambda: self.images.get_subscription_count(), "the camera's subscriber")
        self.images.publish(message)
        return message

    def film(
        self, rate: float = 30.0, pixels: np.ndarray | None = None, *, anew: bool = True
    ) -> None:
        """Publish images in the background until the end of the rig or the next `cut`.

        `anew`: stamps begin with second 1 again.
        """
        self.cut()
        self._camera_stop = stop = threading.Event()
        self.filmed = 0 if anew else self.filmed
        message = image_message(drawn_image() if pixels is None else pixels)

        def run() -> None:
            while not stop.wait(1 / rate):
                self.filmed += 1
                message.header.stamp.sec = self.filmed
                self.images.publish(message)

        self._camera = threading.Thread(target=run, daemon=True)
        self._camera.start()

    def cut(self) -> None:
        """Stop filming."""
        self._camera_stop.set()
        if self._camera is not None:
            self._camera.join()

    def do(self, call: Callable[[], Any]) -> Any:
        """The call's result, made on the executor's thread.

        rclpy's action client registers a request after it has sent it: from another thread the
        response can come too early, and is then ignored.
        """
        task = self.executor.create_task(call)
        wait_for(task.done, "the executor of the test")
        return task.result()

    def call(self, kind: type, name: str, request: Any) -> Any:
        """The response of a service."""
        if name not in self._clients:
            self._clients[name] = self.do(lambda: self.node.create_client(kind, name))
            assert self._clients[name].wait_for_service(WAIT)
        response = self.do(lambda: self._clients[name].call_async(request))
        return wait_for(response.result, f"the response of {name}")

    def set(self, **values: Any) -> SetParametersResult:
        """Set parameters of the node, `__` for the dot; how the first refused one ended, or all."""
        parameters = [
            Parameter(name.replace("__", "."), value=value).to_parameter_msg()
            for name, value in values.items()
        ]
        request = SetParameters.Request(parameters=parameters)
        results = self.call(SetParameters, "perception/set_parameters", request).results
        return next((one for one in results if not one.successful), results[0])

    def use_camera(self, profile: QoSProfile) -> None:
        """Another publisher of images instead of the one there was."""
        self.cut()
        self.do(lambda: self.node.destroy_publisher(self.images))
        self.images = self.do(lambda: self.node.create_publisher(Image, "image", profile))

    @contextmanager
    def hearing(
        self, kind: type, topic: str, profile: QoSProfile | int = 10
    ) -> Iterator[list[Any]]:
        """The messages of a topic, in the order of their coming, once it has a publisher.

        Made and unmade on the executor's thread, as rclpy wants it.
        """
        heard: list[Any] = []
        node = self.node
        made = self.do(lambda: node.create_subscription(kind, topic, heard.append, profile))
        try:
            wait_for(made.get_publisher_count, f"a publisher of {topic}")
            time.sleep(0.3)  # the publisher's side of the discovery
            yield heard
        finally:
            self.do(lambda: node.destroy_subscription(made))

    def say(self, text: str) -> None:
        """Publish an instruction and do not wait."""
        self.voice.publish(String(data=text))

    def ask(self, text: str, seconds: float = WAIT) -> Segmentation:
        """Publish an instruction and wait for its result."""
        before = len(self.results)
        self.say(text)
        try:
            wait_for(lambda: len(self.results) > before, f"the result of {text[:50]!r}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.condition()}") from None
        return self.results[before]

    def condition(self) -> str:
        """Who is alive, and what the nodes wrote last."""
        logs = "\n".join(process.log[-3000:] for process in self.processes)
        alive = [process.alive for process in self.processes]
        return f"test's executor alive: {self.thread.is_alive()}, nodes: {alive}; logs:\n{logs}"

    def close(self) -> None:
        """Stop everything that was started."""
        self.cut()
        for process in self.processes:
            process.end(signal.SIGINT, 3.0)
            process.folder.cleanup()
        rclpy.shutdown(context=self.context)
        self.thread.join()
        self.node.destroy_node()
        self.executor.shutdown()


class Manager:
    """What a lifecycle manager does, over the node's services."""

    def __init__(self, robot: Rig) -> None:
        self._robot = robot

    def change(self, name: str) -> bool:
        number = getattr(Transition, f"TRANSITION_{name.upper()}")
        request = ChangeState.Request(transition=Transition(id=number))
        return self._robot.call(ChangeState, "perception/change_state", request).success

    @property
    def state(self) -> str:
        request = GetState.Request()
        return self._robot.call(GetState, "perception/get_state", request).current_state.label

    def set_path(self, path: str) -> SetParametersResult:
        return self._robot.set(model__path=path)


class SegmentClient:
    """A program that sends goals and collects what comes back."""

    def __init__(self, robot: Rig) -> None:
        self._do = robot.do
        self._client = ActionClient(robot.node, Segment, "segment")
        assert self._client.wait_for_server(WAIT)
        self.feedback: list[Segment.Feedback] = []

    def send(self, instruction: str, **fields):
        goal = Segment.Goal(instruction=instruction, **fields)
        heard = self.feedback

        def send():
            return self._client.send_goal_async(
                goal, lambda message: heard.append(message.feedback)
            )

        future = self._do(send)
        handle = wait_for(future.result, "the goal to be accepted")
        assert handle.accepted
        return handle

    def end(self, handle, seconds: float = 20):
        """Status of the goal and the Segmentation in its result."""
        response = wait_for(self._do(handle.get_result_async).result, "the result", seconds)
        return response.status, response.result.segmentation

    def cancel(self, handle) -> bool:
        response = wait_for(self._do(handle.cancel_goal_async).result, "the cancel response")
        return bool(response.goals_canceling)

    def ask(self, instruction: str, **fields):
        return self.end(self.send(instruction, **fields))


@contextmanager
def rig() -> Iterator[Rig]:
    """A rig in a domain of its own."""
    with claimed_domain() as domain:
        robot = Rig(domain)
        try:
            yield robot
        finally:
            robot.close()
