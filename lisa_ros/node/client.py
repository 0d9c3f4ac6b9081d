"""A robot's side of the perception node: start it as a process, ask it, wait for what it says.

The demonstration, the web page, agents, the simulated gripper and the benchmarks use this; so can a
program of yours.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient
from rclpy.node import Node
from std_msgs.msg import String

from lisa_ros.errors import LisaError
from lisa_ros.model.prompt import check_text
from lisa_ros.msg import Segmentation
from lisa_ros.node.status import ANSWERED

START_LIMIT = 300.0  # seconds until the node has loaded its model, on a busy machine
ANSWER_LIMIT = 60.0  # seconds until an answer; the node itself gives up earlier
STOP_LIMIT = 10.0  # seconds from a signal until a process is killed
CLAIMS = 31900  # this UDP port and the hundred above it stand for the ROS domains
ATTEMPTS = 3  # at a question whose answer was about an image from before `newer_than`
LOG_LINES = 15  # of a failed process, shown to the user


class NoAnswer(LisaError):
    """The perception node cannot be asked, or says nothing."""


class NodeProcess:
    """A ROS node in a process of its own, from here until the end of a `with` block.

    Args:
        command: its words, such as `[sys.executable, "-m", "lisa_ros.cli", "node"]`.
        log: file that takes what it writes.
        name: how sentences to the user call it.
        environment: variables beside those of this process.
        talks: its standard input and output are pipes (`process.stdin`, `process.stdout`), and
            the log has its errors alone.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        name: str = "perception node",
        environment: Mapping[str, str] | None = None,
        talks: bool = False,
    ) -> None:
        self.name, self._log = name, log
        variables = os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment or {})
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                env=variables,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else output,
                stderr=output,
                text=True,
            )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def log(self) -> str:
        """Everything that it has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def tell(self, line: str) -> None:
        """Write a line to its standard input. One that has ended hears nothing: see `check`."""
        with suppress(OSError):
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()

    def tail(self) -> str:
        """The last lines of its log."""
        return "\n".join(self.log.splitlines()[-LOG_LINES:])

    def check(self) -> None:
        """Raise `NoAnswer` with the end of the log if it runs no more."""
        if not self.alive:
            code = self.process.returncode
            raise NoAnswer(f"the {self.name} has ended with code {code}:\n{self.tail()}")

    @contextmanager
    def telling_why(self) -> Iterator[None]:
        """A `NoAnswer` from inside gets the end of the log, unless it has it."""
        try:
            yield
        except NoAnswer as error:
            log = "" if self.tail() in str(error) else f"\n{self.tail()}"
            raise NoAnswer(f"{error}{log}") from None

    def end(self, number: int = signal.SIGTERM, patience: float = STOP_LIMIT) -> int:
        """Stop it by a signal, so that it takes its shared memory along; kill what hangs.

        Returns:
            The exit code; negative for the signal that ended it.
        """
        if self.alive:
            self.process.send_signal(number)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return self.process.wait()


class PerceptionClient(Node):
    """Publishes on `query`, collects `mask`.

    Args:
        check: called while waiting; raises if there is nothing to wait for any more.
        name: of this node; namespace: that of the perception node.
    """

    def __init__(
        self,
        check: Callable[[], None] = lambda: None,
        name: str = "client",
        namespace: str = "lisa",
    ) -> None:
        super().__init__(name, namespace=namespace)
        self._check = check
        self._results: list[Segmentation] = []
        self._query = self.create_publisher(String, "query", 10)
        self._state = self.create_client(GetState, "perception/get_state")
        self.create_subscription(Segmentation, "mask", self._results.append, 10)

    def wait_for_node(self) -> None:
        """Until the perception node is active, hears us, and is heard.

        Raises:
            NoAnswer: it is not there, or could not be started.
        """
        if not self.wait(self._state.service_is_ready, START_LIMIT):
            raise NoAnswer(f"the perception node did not appear within {START_LIMIT:.0f} s")
        reply = self._state.call_async(GetState.Request())
        if not self.wait(reply.done, START_LIMIT):
            raise NoAnswer(f"the perception node was not ready within {START_LIMIT:.0f} s")
        state = reply.result().current_state.label
        if state != "active":
            raise NoAnswer(f"the perception node could not be started: it is {state}")
        # A query that is sent before the other side has been found is lost, and so is its answer.
        if not self.wait(lambda: self._query.get_subscription_count() > 0, 10.0):
            raise NoAnswer(f"the perception node does not listen to {self._query.topic_name}")
        if not self.wait(lambda: self.count_publishers("mask") > 0, 10.0):
            raise NoAnswer("the perception node does not publish its masks")

    def ask(
        self, instruction: str, *, newer_than: int = 0, seconds: float = ANSWER_LIMIT
    ) -> Segmentation:
        """Publish an instruction and wait for its result.

        Args:
            newer_than: least stamp, in nanoseconds, of the image that a mask must be about; an
                answer about an older one is asked for again.

        Raises:
            NoAnswer: none came, or none about an image so new.
            InstructionError: the instruction is no text that ROS could carry.
        """
        check_text(instruction)
        for _ in range(ATTEMPTS):
            self._results.clear()
            self._query.publish(String(data=instruction))
            if not self.wait(lambda: self._result_of(instruction) is not None, seconds):
                raise NoAnswer(
                    f"no answer to '{instruction}' on {self.resolve_topic_name('mask')} within "
                    f"{seconds:g} s: is the perception node still running?"
                )
            message = self._result_of(instruction)
            if message.status not in ANSWERED or nanoseconds(message.header.stamp) >= newer_than:
                return message
        raise NoAnswer("the perception node keeps answering about an image of an earlier scene")

    def _result_of(self, instruction: str) -> Segmentation | None:
        return next((result for result in self._results if result.query == instruction), None)

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Handle what arrives until the condition holds; False if it does not within the time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self._check()
            rclpy.spin_once(self, timeout_sec=0.05)
        return True


class SentGoal:
    """A goal on its way to the node, taken back even where it has not been accepted yet.

    Args:
        on_feedback: called with each message of feedback.
        on_end: called when the goal was refused or has its result.
    """

    def __init__(
        self,
        client: ActionClient,
        goal: Any,
        on_feedback: Callable[[Any], None] | None = None,
        on_end: Callable[[], Any] = lambda: None,
    ) -> None:
        self.result: Any = None
        self.refused = self._unwanted = False
        self._handle: Any = None
        self._on_end = on_end
        client.send_goal_async(goal, on_feedback).add_done_callback(self._on_answer)

    def _on_answer(self, future: Any) -> None:
        self._handle = future.result()
        self.refused = not self._handle.accepted
        if self.refused:
            self._on_end()
            return
        self._handle.get_result_async().add_done_callback(self._on_result)
        if self._unwanted:
            self.cancel()

    def _on_result(self, future: Any) -> None:
        self.result = future.result().result
        self._on_end()

    @property
    def ended(self) -> bool:
        return self.refused or self.result is not None

    def cancel(self) -> None:
        """Take it back."""
        self._unwanted = True
        if self._handle is not None and not self.refused:
            self._handle.cancel_goal_async()


@contextmanager
def claimed_domain() -> Iterator[int]:
    """A ROS domain from 1 to 100 that nobody else who claims one uses on this machine meanwhile.

    Raises:
        NoAnswer: all are taken.
    """
    for domain in random.SystemRandom().sample(range(1, 101), 100):
        # however the process ends, its port is free again
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as claim:
            try:
                claim.bind(("127.0.0.1", CLAIMS + domain))
            except OSError:
                continue
            if str(domain) == os.environ.get("ROS_DOMAIN_ID"):
                continue  # the user's own, where a robot may be
            yield domain
            return
    raise NoAnswer("all ROS domains from 1 to 100 are in use on this machine")


@contextmanager
def own_domain() -> Iterator[int]:
    """rclpy initialised for this process and its children in a domain of their own, on this
    machine alone; yields its number.

    It takes the place of an exported `ROS_DOMAIN_ID`: in that domain a robot's perception node
    would answer our questions, and ours the robot's.
    """
    from lisa_ros.resources import use_large_image_transport

    use_large_image_transport()
    with claimed_domain() as domain:
        ours = {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
        before = {name: os.environ[name] for name in ours if name in os.environ}
        os.environ |= ours
        try:
            rclpy.init()
            yield domain
        finally:
            rclpy.try_shutdown()
            for name in ours:
                del os.environ[name]
            os.environ |= before


def nanoseconds(stamp: Any) -> int:
    """A message's stamp as one number."""
    return stamp.sec * 10**9 + stamp.nanosec
