"""What is followed on its way through the images, and what the node knows of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lisa_ros.geometry import Object3D
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.requests.query import EndsOnce
from lisa_ros.node.status import Status
from lisa_ros.tracking.follow import Follower

VELOCITY_TIME = 0.5  # seconds of a thing's way that its velocity is fitted to


@dataclass(eq=False)
class FollowedThing:
    """What the node knows of one track beside what the tracker knows."""

    number: int
    """`Instance.id`: free again when it is no longer followed"""
    track_id: int
    """never given to another one"""
    began: float
    seen: float
    """when the last image came in which it was visible"""
    frame_id: str = ""
    """of the places"""
    places: deque[tuple[float, np.ndarray]] = field(default_factory=lambda: deque(maxlen=64))
    """seconds and centroid (3,), metres"""

    def note_place(self, seconds: float, found: Object3D, frame_id: str) -> None:
        """Remember where it is; a clock that jumped or another frame begins anew."""
        if found.centroid is None:
            return
        jumped = self.places and not 0 < seconds - self.places[-1][0] < VELOCITY_TIME
        if jumped or frame_id != self.frame_id:
            self.places.clear()
        self.frame_id = frame_id
        self.places.append((seconds, found.centroid))

    @property
    def velocity(self) -> np.ndarray | None:
        """(3,), metres per second, in the frame of the places; None where it is not known."""
        last = self.places[-1][0] if self.places else 0.0
        recent = [(t - last, place) for t, place in self.places if last - t < VELOCITY_TIME]
        if len(recent) < 2:
            return None
        seconds, places = (np.array(part, float) for part in zip(*recent, strict=True))
        return np.polyfit(seconds, places, 1)[0]


@dataclass(eq=False)
class Following(EndsOnce):
    """What one goal, or the standing query, follows."""

    query_id: str
    instruction: str
    """asked again when a thing is lost; empty: nothing is asked"""
    source: int
    """SOURCE_FOLLOW or SOURCE_STANDING of Segmentation"""
    stamp: Any
    """builtin_interfaces/Time of its arrival by the node's clock"""
    limit: float
    """seconds that all of its things, or the camera, may be gone"""
    on_message: Callable[[Segmentation], None] = lambda message: None
    """called with each message about its things, on the model's thread"""
    on_end: Callable[[], None] = lambda: None
    """called once, on whichever thread ended it"""
    arrived: float = field(default_factory=time.monotonic)
    began: float = 0.0
    """when its first image was taken up; 0 before"""
    follower: Follower | None = None
    frame: Frame | None = None
    """the last image in which it was looked for"""
    looked: float = 0.0
    """when that was, by `time.monotonic()`"""
    fault: str = ""
    """why newer images could not be used"""
    frames: int = 0
    asked: int = 0
    """questions of the follower that a message has told of"""
    sam_encodes: int = 0
    """likewise"""
    things: dict[int, FollowedThing] = field(default_factory=dict)
    """by the tracker's ids"""
    last: Segmentation | None = None
    """the last message about it"""
    status: Status = Status.OK
    reason: str = ""
    """why it ended"""

    @property
    def seconds(self) -> float:
        """That it has been followed."""
        return time.monotonic() - self.began if self.began else 0.0
