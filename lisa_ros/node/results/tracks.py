"""Things that are followed: what the node knows of them, and what it publishes about them."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import Image

from lisa_ros.engine.answer import Instance
from lisa_ros.geometry import Object3D
from lisa_ros.msg import Instance as InstanceMessage
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.inputs.subscription import reliable_qos
from lisa_ros.node.requests.query import EndsOnce
from lisa_ros.node.results import messages
from lisa_ros.node.results.objects3d import NOWHERE, Localizer, Objects3D
from lisa_ros.node.results.publishers import DetectionPublishers
from lisa_ros.node.status import Status
from lisa_ros.tracking.follow import Follower
from lisa_ros.tracking.tracker import Track, TrackState

KEPT = 5  # messages; who is slower than that gets the newest
VELOCITY_TIME = 0.5  # seconds of a thing's way that its velocity is fitted to
NOT_VISIBLE = "it is not visible in this image"


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


class Places:
    """The things of one image in space; each mask is placed once."""

    def __init__(self, localizer: Localizer, frame: Frame) -> None:
        self._localizer, self._frame = localizer, frame
        self._found: dict[int, tuple[np.ndarray, Objects3D]] = {}
        self.frame_id = frame.header.frame_id
        self.seconds = 0.0
        """that this took and that no message has told of"""

    def of(self, mask: np.ndarray) -> Object3D:
        """The object behind a mask, or its `reason`."""
        if id(mask) not in self._found:
            found = self._localizer.objects(self._frame, [mask])
            self._found[id(mask)] = mask, found  # the mask is kept, so that its id stays its own
            self.frame_id, self.seconds = found.frame_id, self.seconds + found.seconds
        return self._found[id(mask)][1].objects[0]


def track_message(
    one: Following, tracks: Sequence[Track], places: Places, model: str
) -> Segmentation:
    """Where the things of a following are in its last image; of the timings, `geometry` alone."""
    frame, follower = one.frame, one.follower
    visible = [track.state == TrackState.VISIBLE for track in tracks]
    message = Segmentation(
        header=frame.header,
        query_id=one.query_id,
        query=one.instruction,
        mode="mask",
        source=one.source,
        query_stamp=one.stamp,
        status=int(Status.OK if any(visible) else Status.NOT_FOUND),
        tracked=True,
        model=model,
        error="" if any(visible) else follower.fault,
    )
    message.width, message.height = frame.size
    objects = [
        places.of(track.mask) if seen else replace(NOWHERE, reason=NOT_VISIBLE)
        for track, seen in zip(tracks, visible, strict=True)
    ]
    found = [Instance(track.mask, track.score, 0.0, track.label) for track in tracks]
    space = Objects3D(tuple(objects), places.frame_id)
    message.instances = messages.instance_messages(found, frame.header, space)
    for instance, track in zip(message.instances, tracks, strict=True):
        _set_track(instance, track, one.things[track.id], frame.arrived, one.limit)
    message.timings.geometry, places.seconds = places.seconds * 1e3, 0.0
    counters = follower.tracker.counters
    taken = counters["sam_encodes"] + counters["image_encodes"]  # the latter are SAM 2's
    message.sam_encodes, one.sam_encodes = taken - one.sam_encodes, taken
    if follower.asked > one.asked:
        one.asked, answer = follower.asked, follower.answer
        for name in ("clip_encodes", "forwards", "tokens", "drafted", "accepted"):
            setattr(message, name, answer.counters.get(name, 0))
        message.answer = answer.text
    return message


def _set_track(
    message: InstanceMessage, track: Track, thing: FollowedThing, now: float, limit: float
) -> None:
    """The fields of a thing through time; `now`: the arrival of the image."""
    message.id, message.track_id = thing.number, thing.track_id
    message.track_age = max(0.0, now - thing.began)
    message.unseen = max(0.0, now - thing.seen)
    if track.state == TrackState.VISIBLE:
        message.track_state = InstanceMessage.VISIBLE
        velocity = thing.velocity
        if velocity is not None and message.has_pose:
            message.has_velocity = True
            message.velocity = messages.vector_message(velocity)
    elif message.unseen > limit:
        message.track_state = InstanceMessage.LOST
    else:
        message.track_state = InstanceMessage.OCCLUDED


class TrackPublishers:
    """The topics `tracks` and below. Publishing is safe from any thread."""

    def __init__(self, node: Node) -> None:
        qos = reliable_qos(KEPT)
        self._tracks = node.create_publisher(Segmentation, "tracks", qos)
        self._labels = node.create_publisher(Image, "tracks/labels", qos)
        self._pose = node.create_publisher(PoseStamped, "tracks/pose", qos)
        self._detections = DetectionPublishers(node, "tracks")

    def publish(self, message: Segmentation) -> None:
        """One image's message about the things of one following."""
        self._tracks.publish(message)
        placed = [one for one in message.instances if one.has_pose]
        if placed:
            self._pose.publish(placed[0].pose)
        self._detections.publish(message)

    def publish_labels(self, found: Sequence[Segmentation], frame: Frame) -> None:
        """The numbers of all things in an image; the messages about it are given."""
        if found and self._labels.get_subscription_count():
            instances = [one for message in found for one in message.instances]
            self._labels.publish(messages.label_image(instances, frame.size, frame.header))
