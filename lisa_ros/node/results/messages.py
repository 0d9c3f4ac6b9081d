"""From the engine's answer to the messages that go out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from geometry_msgs.msg import Point, Pose, PoseStamped, Quaternion, Vector3
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from lisa_ros.msg import Instance as InstanceMessage
from lisa_ros.msg import Segmentation, Timings
from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.results.localization import Space
from lisa_ros.node.status import Status

if TYPE_CHECKING:
    from lisa_ros.engine.answer import Instance
    from lisa_ros.geometry import Object3D

ENGINE_STAGES = ("clip", "sam", "prefill", "decode", "mask")
COUNTERS = ("sam_encodes", "clip_encodes", "forwards", "tokens", "drafted", "accepted")
UNFINISHED = "objects are placed in space once the answer is complete"


def segmentation(query: Query, outcome: Outcome, model: str) -> Segmentation:
    """The one result of a query, but for `timings.total`, which is set when it goes out."""
    answer, frame = outcome.answer, query.frame
    # What a failing model said before it failed is not worth anything.
    partial = outcome.status in (Status.CANCELLED, Status.TIMEOUT)
    message = Segmentation(
        query_id=query.id,
        query=query.text,
        mode=query.mode,
        source=query.source,
        query_stamp=query.stamp,
        status=int(outcome.status),
        error=outcome.error,
        answer=answer.text if answer else query.said if partial else "",
        truncated=answer is not None and answer.truncated,
        model=model,
        timings=_timings(query, outcome),
    )
    if frame is not None:
        message.header = frame.header
        message.width, message.height = frame.size
    found = answer.instances if answer else query.instances if partial else []
    space = outcome.space or Space.empty(len(found), UNFINISHED)
    message.instances = instance_messages(found, message.header, space)
    for name in COUNTERS:
        setattr(message, name, answer.counters.get(name, 0) if answer else 0)
    return message


def _timings(query: Query, outcome: Outcome) -> Timings:
    """Milliseconds per stage."""
    timings = Timings(convert=query.convert * 1e3)
    if query.started:
        timings.wait = (query.started - query.arrived) * 1e3
    if query.first_mask:
        timings.first_mask = (query.first_mask - query.arrived) * 1e3
    if outcome.answer:
        for stage in ENGINE_STAGES:
            setattr(timings, stage, float(outcome.answer.timings.get(stage, 0.0)))
    if outcome.space:
        timings.geometry = outcome.space.seconds * 1e3
    return timings


def since(query: Query) -> float:
    """Milliseconds since the query arrived."""
    return (time.monotonic() - query.arrived) * 1e3


def instance_messages(
    instances: Sequence[Instance], header: Header, space: Space
) -> list[InstanceMessage]:
    """The masks of an answer, each cut out to its box, numbered from 1 and placed in space."""
    messages = []
    for number, (one, thing) in enumerate(zip(instances, space.things, strict=True), start=1):
        message = _instance(number, one, header)
        _place(message, thing, Header(stamp=header.stamp, frame_id=space.frame_id))
        messages.append(message)
    return messages


def _instance(number: int, instance: Instance, header: Header) -> InstanceMessage:
    x, y, width, height = (int(value) for value in instance.box)
    cut = instance.mask[y : y + height, x : x + width].astype(np.uint8) * 255
    return InstanceMessage(
        id=number,
        label=instance.label,
        score=float(instance.score),
        seg_probability=float(instance.seg_probability),
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
        mask=to_message(cut, "mono8", header),
        area=int(instance.area),
    )


def _place(message: InstanceMessage, thing: Object3D, header: Header) -> None:
    """Fill in the 3-D part, or why there is none."""
    message.pose_reason, message.has_pose = thing.reason, thing.box is not None
    message.points = len(thing.points)
    message.depth_fraction = float(thing.depth_fraction)
    message.views, message.agreement = thing.views, float(thing.agreement)
    if thing.box is not None:
        message.pose = PoseStamped(
            header=header, pose=pose_message(thing.box.center, thing.box.quaternion)
        )
        message.size = Vector3(**dict(zip("xyz", thing.box.size.tolist(), strict=True)))
        message.centroid = point_message(thing.centroid)


def pose_message(position: np.ndarray, quaternion: np.ndarray) -> Pose:
    """A pose of a position (3,) in metres and a quaternion (x, y, z, w)."""
    turn = Quaternion(**dict(zip("xyzw", quaternion.tolist(), strict=True)))
    return Pose(position=point_message(position), orientation=turn)


def point_message(position: np.ndarray) -> Point:
    """A point of a position (3,)."""
    return Point(**dict(zip("xyz", position.tolist(), strict=True)))


def union_image(instances: Sequence[Instance], size: tuple[int, int], header: Header) -> Image:
    """mono8 of `size` (width, height): 255 where any of the masks is."""
    union = np.zeros(size[::-1], np.uint8)
    for instance in instances:
        union |= instance.mask
    return to_message(union * 255, "mono8", header)


def label_image(instances: Sequence[Instance], size: tuple[int, int], header: Header) -> Image:
    """mono8 of `size` (width, height): the number of the mask, 0 beside all of them.

    Where two masks overlap, the smaller one is on top: it is the part, the other one the whole.
    """
    labels = np.zeros(size[::-1], np.uint8)
    order = sorted(range(len(instances)), key=lambda index: -instances[index].area)
    for index in order:
        labels[instances[index].mask] = min(index + 1, 255)
    return to_message(labels, "mono8", header)


def label_names(message: Segmentation) -> str:
    """JSON: what the numbers of the label image stand for, and the image that they belong to."""
    stamp = message.header.stamp
    names: dict[str, Any] = {str(one.id): one.label for one in message.instances}
    return json.dumps(
        {
            "query_id": message.query_id,
            "query": message.query,
            "stamp": {"sec": stamp.sec, "nanosec": stamp.nanosec},
            "labels": {"0": "background", **names},
        }
    )


def label_info(message: Segmentation) -> Any:
    """vision_msgs/LabelInfo: the same for programs that know this type."""
    from vision_msgs.msg import LabelInfo, VisionClass

    found = [VisionClass(class_id=one.id, class_name=one.label) for one in message.instances]
    return LabelInfo(header=message.header, class_map=found)
