"""A question on its way through the node, and what becomes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from rclpy.node import Node
from rclpy.task import Future

from lisa_ros.engine.answer import Answer, Instance
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.results.objects3d import Objects3D
from lisa_ros.node.status import Status

CANCELLED = "the query was taken back"
ENDED_BY_ENGINE = {
    Status.CANCELLED: CANCELLED,
    Status.TIMEOUT: "the time limit passed before the answer was complete",
}


@dataclass
class Outcome:
    """How a query ended."""

    status: Status
    error: str = ""
    answer: Answer | None = None
    """the engine's answer; None where it gave none, and then the query's own progress counts"""
    objects: Objects3D | None = None
    """the objects of the answer in space; None where the answer is not complete"""


def sure_enough(answer: Answer, least: float) -> Outcome:
    """What an answer comes to without the instances whose score is lower than `least`, which is the
    parameter `score.min`: NOT_FOUND if none is left."""
    status = Status[answer.status.name]
    sentence = ENDED_BY_ENGINE.get(status, "")
    kept = [one for one in answer.instances if one.score >= least]
    if answer.instances and not kept:
        best = max(one.score for one in answer.instances)
        sentence = sentence or (
            f"nothing was found surely enough: the best mask has a score of {best:.2f}, and the "
            f"least that is shown (score.min) is {least:g}"
        )
        status = Status.NOT_FOUND if status == Status.OK else status
    return Outcome(status, sentence, replace(answer, instances=kept))


@dataclass(eq=False)
class EndsOnce:
    """What several threads may end, and one of them does."""

    cancel: threading.Event = field(init=False, default_factory=threading.Event)
    """set it and the engine stops at the next token"""
    ended: bool = field(init=False, default=False)
    """whether somebody has taken it on to tell of the end"""
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def end(self) -> bool:
        """True for the first caller alone, who then owes the world the one end."""
        with self._lock:
            first, self.ended = not self.ended, True
        self.cancel.set()
        return first


class Awaited(Future):
    """What a coroutine of the node awaits; awaiting alone does not wake the executor."""

    def __init__(self, node: Node) -> None:
        super().__init__(executor=node.executor)
        self._node = node

    def set_result(self, result: Any) -> None:
        """Let the coroutine go on."""
        super().set_result(result)
        self._node.executor.wake()


@dataclass(eq=False)
class Query(EndsOnce):
    """One instruction, from its arrival to its one result."""

    id: str
    instruction: str
    mode: str
    source: int
    """SOURCE_TOPIC, SOURCE_ACTION, ... of Segmentation"""
    stamp: Any
    """builtin_interfaces/Time of its arrival by the node's clock"""
    timeout: float
    """seconds from the arrival to the answer"""
    max_new_tokens: int
    frame: Frame | None = None
    """the image it brought along; else the worker sets the one that it took from the camera"""
    history: tuple[tuple[str, str], ...] = ()
    refusal: str = ""
    """why it cannot be asked, where that is known already"""
    on_progress: Callable[[Query], None] = lambda query: None
    """called by the model's thread whenever `text` or `instances` has grown"""
    on_result: Callable[[Any, Outcome], None] = lambda segmentation, outcome: None
    """called with the Segmentation and the outcome, on whichever thread ended the query"""
    arrived: float = field(default_factory=time.monotonic)
    started: float = 0.0
    """when the model's thread took it up (monotonic seconds); 0 while it waits"""
    cancelled_at: float = 0.0
    """when the client cancelled it; 0 while it is wanted"""
    first_mask: float = 0.0
    """when the first mask was there; 0 without one"""
    convert: float = 0.0
    """seconds that the conversion of the image took"""
    text: str = ""
    """the answer so far"""
    instances: list[Instance] = field(default_factory=list)
    """the masks so far"""

    @property
    def deadline(self) -> float:
        """When the answer is due, by `time.monotonic()`."""
        return self.arrived + self.timeout
