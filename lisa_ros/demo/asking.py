"""Asks on /lisa/query, waits for /lisa/mask, compares what comes with the truth."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import rclpy
from lifecycle_msgs.srv import GetState
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from lisa_ros.demo.recording import TRUTH, Question
from lisa_ros.errors import LisaError
from lisa_ros.msg import Segmentation
from lisa_ros.node.status import ANSWERED, Status

NODE = "/lisa/perception"
START_LIMIT = 300.0  # seconds until the node has loaded its model, on a busy machine
ANSWER_LIMIT = 60.0  # seconds until an answer; the node itself gives up earlier
OVERLAY_LIMIT = 10.0  # seconds from the answer to its picture
KEPT = 100  # pictures of the truth: an answer must not come later than so many frames
TOUCHING = 0.1  # overlap below which a mask has missed its object


class DemoError(LisaError):
    """The demonstration did not go through."""


@dataclass(frozen=True)
class Reply:
    """What came back for one question."""

    question: Question
    message: Segmentation
    overlay: np.ndarray
    """uint8 (H,W,3) RGB, as the node has drawn it"""
    overlap: float | None
    """intersection over union of all masks with the meant objects; None where no mask is meant"""

    @property
    def status(self) -> str:
        return Status(self.message.status).name

    @property
    def fault(self) -> str:
        """Why this is not the answer that was expected; empty if it is."""
        if self.status != self.question.status:
            reason = f" ({self.message.error})" if self.message.error else ""
            return f"status {self.status} instead of {self.question.status}{reason}"
        if self.overlap is not None and self.overlap < TOUCHING:
            return "the mask is not on the object that was meant"
        return ""


class Asker(Node):
    """Asks and collects what comes back. `alive` raises if one of the other processes has ended."""

    def __init__(self, alive: Callable[[], None]) -> None:
        super().__init__("demo")
        self._alive = alive
        self._results: list[Segmentation] = []
        self._overlays: dict[int, Image] = {}
        self._truths: OrderedDict[int, CompressedImage] = OrderedDict()
        self._query = self.create_publisher(String, "/lisa/query", 10)
        self._state = self.create_client(GetState, f"{NODE}/get_state")
        self.create_subscription(Segmentation, "/lisa/mask", self._results.append, 10)
        self.create_subscription(Image, "/lisa/overlay", self._keep_overlay, 5)
        self.create_subscription(CompressedImage, TRUTH, self._keep_truth, 20)

    def wait_for_node(self) -> None:
        """Until the node is active and hears us."""
        if not self._until(self._state.service_is_ready, START_LIMIT):
            raise DemoError(f"the perception node did not appear within {START_LIMIT:.0f} s")
        reply = self._state.call_async(GetState.Request())
        if not self._until(reply.done, START_LIMIT):
            raise DemoError(f"the perception node was not ready within {START_LIMIT:.0f} s")
        state = reply.result().current_state.label
        if state != "active":
            raise DemoError(f"the perception node could not be started: it is {state}")
        if not self._until(lambda: self._query.get_subscription_count() > 0, 10.0):
            raise DemoError("the perception node does not listen to /lisa/query")

    def ask(self, question: Question, shown_since: int) -> Reply:
        """Publish an instruction and wait for its answer, which must be about the scene on show.

        Args:
            shown_since: first stamp of the scene, nanoseconds.
        """
        self._results.clear()
        self._query.publish(String(data=question.instruction))
        asked = question.instruction
        if not self._until(lambda: any(r.query == asked for r in self._results), ANSWER_LIMIT):
            raise DemoError(f"no answer to '{asked}' on /lisa/mask within {ANSWER_LIMIT:.0f} s")
        message = next(result for result in self._results if result.query == asked)
        stamp = nanoseconds(message.header.stamp)
        if message.status in ANSWERED:
            if stamp < shown_since:
                raise DemoError(f"the answer to '{asked}' is about an image of an earlier scene")
            if not self._until(lambda: stamp in self._overlays, OVERLAY_LIMIT):
                raise DemoError(f"no picture of the answer to '{asked}' on /lisa/overlay")
        overlay = self._overlays.pop(stamp, None)
        self._overlays.clear()
        picture = rgb(overlay) if overlay else np.zeros((1, 1, 3), np.uint8)
        return Reply(question, message, picture, self._overlap(question, message))

    def _overlap(self, question: Question, message: Segmentation) -> float | None:
        if not question.objects or not message.instances:
            return 0.0 if question.objects else None
        recorded = self._truths.get(nanoseconds(message.header.stamp))
        if recorded is None:
            raise DemoError("an answer is about an image that the camera did not send")
        truth = cv2.imdecode(np.frombuffer(recorded.data, np.uint8), cv2.IMREAD_UNCHANGED)
        meant, given = np.isin(truth, question.objects), union(message)
        return float((meant & given).sum() / (meant | given).sum())

    def _keep_overlay(self, message: Image) -> None:
        self._overlays[nanoseconds(message.header.stamp)] = message

    def _keep_truth(self, message: CompressedImage) -> None:
        self._truths[nanoseconds(message.header.stamp)] = message
        if len(self._truths) > KEPT:
            self._truths.popitem(last=False)

    def spin(self, seconds: float) -> None:
        """Handle what arrives for a while."""
        self._until(lambda: False, seconds)

    def _until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Handle what arrives until the condition holds; False if it does not within the time."""
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                return False
            self._alive()
            rclpy.spin_once(self, timeout_sec=0.05)
        return True


def nanoseconds(stamp: Any) -> int:
    """A message's stamp as one number."""
    return stamp.sec * 10**9 + stamp.nanosec


def rgb(message: Image) -> np.ndarray:
    """Pixels (H,W,3) of an rgb8 message."""
    return np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)


def union(message: Segmentation) -> np.ndarray:
    """All masks of a result in one, bool (H,W) in pixels of the image."""
    whole = np.zeros((message.height, message.width), dtype=bool)
    for instance in message.instances:
        roi, mask = instance.roi, instance.mask
        part = np.frombuffer(mask.data, np.uint8).reshape(mask.height, mask.step)[:, : mask.width]
        rows = slice(roi.y_offset, roi.y_offset + roi.height)
        whole[rows, roi.x_offset : roi.x_offset + roi.width] |= part > 0
    return whole
