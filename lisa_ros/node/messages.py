"""From the engine's answer to the messages that go out."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from lisa_ros.msg import Instance as InstanceMessage
from lisa_ros.msg import Segmentation, Timings
from lisa_ros.node.image import to_message
from lisa_ros.node.query import Outcome, Query
from lisa_ros.node.status import Status

if TYPE_CHECKING:
    from lisa_ros.engine.answer import Instance

ENGINE_STAGES = ("clip", "sam", "prefill", "decode", "mask")
COUNTERS = ("sam_encodes", "clip_encodes", "forwards", "tokens")


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
        truncated=answer is not None and answer.stopped_by not in ("end", "cancel", "deadline"),
        model=model,
        timings=_timings(query, outcome),
    )
    if frame is not None:
        message.header = frame.header
        message.width, message.height = frame.size
    found = answer.instances if answer else query.instances if partial else []
    message.instances = instance_messages(found, message.header)
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
    return timings


def since(query: Query) -> float:
    """Milliseconds since the query arrived."""
    return (time.monotonic() - query.arrived) * 1e3


def instance_messages(instances: Sequence[Instance], header: Header) -> list[InstanceMessage]:
    """The masks of an answer, each cut out to its box and numbered from 1."""
    return [_instance(number, one, header) for number, one in enumerate(instances, start=1)]


def _instance(number: int, instance: Instance, header: Header) -> InstanceMessage:
    x, y, width, height = (int(value) for value in instance.box)
    cut = instance.mask[y : y + height, x : x + width].astype(np.uint8) * 255
    return InstanceMessage(
        id=number,
        label=instance.label,
        score=float(instance.score),
        roi=RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height),
        mask=to_message(cut, "mono8", header),
        area=int(instance.area),
        pose_reason="the node was not given a depth image",
        views=1,
        agreement=1.0,
    )


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
