"""Views of a recording: its images, depth images and camera_info, placed by its transforms."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rosbags.rosbag2 import Reader, ReaderError
from rosbags.typesys import Stores, get_typestore

from lisa_ros.geometry import Intrinsics
from lisa_ros.node.inputs.image_conversion import to_depth, to_rgb
from lisa_ros.recordings.ask_views import Shot
from lisa_ros.recordings.tf import RecordedTransforms, seconds
from lisa_ros.recordings.view_folder import ViewsError

LARGEST = 2**28  # pixels
SLOP = 0.1  # seconds by which the stamps of image and depth image may differ
STATIC = {"/tf": False, "/tf_static": True}


def read_recording(
    path: Path, image: str, depth: str, info: str, frame: str, every: float
) -> list[Shot]:
    """Views `every` so many seconds of the recording, in the frame `frame`.

    Args:
        path: a bag's folder, or a bare .mcap or .db3 file.
        image, depth, info: topics.
        frame: one in which the object does not move, such as map or base_link.
        every: seconds by the stamps of the images.

    Raises:
        LisaError: a topic, a transform or a depth image is missing, or an image cannot be read.
    """
    topics = (image, depth, info)
    try:
        with Reader(path) as reader:
            known = {one.topic for one in reader.connections}
            missing = ", ".join(topic for topic in topics if topic not in known)
            if missing:
                raise ViewsError(f"{path} has no {missing}; it has {', '.join(sorted(known))}")
            return _shots(_Messages(reader), topics, frame, every)
    except (ReaderError, OSError) as error:
        raise ViewsError(f"{path}: {error}") from None


class _Messages:
    """The messages of a recording by topic, again and again from the beginning."""

    def __init__(self, reader: Reader) -> None:
        self._reader, self._store = reader, get_typestore(Stores.LATEST)

    def of(self, *topics: str) -> Iterator[tuple[str, Any]]:
        """Topic and message, in the order of recording."""
        chosen = [one for one in self._reader.connections if one.topic in topics]
        for one, _, data in self._reader.messages(chosen) if chosen else ():
            yield one.topic, self._store.deserialize_cdr(data, one.msgtype)


def _shots(
    messages: _Messages, topics: tuple[str, str, str], frame: str, every: float
) -> list[Shot]:
    image, depth, info = topics
    transforms = RecordedTransforms()
    for topic, message in messages.of(*STATIC):
        transforms.add(message.transforms, STATIC[topic])
    camera = next((Intrinsics.from_camera_info(message) for _, message in messages.of(info)), None)
    if camera is None:
        raise ViewsError(f"the recording has no message on {info}")
    stamps = [seconds(message.header.stamp) for _, message in messages.of(depth)]
    chosen = _chosen([message.header for _, message in messages.of(image)], stamps, every)
    readings = {
        stamp: to_depth(message, LARGEST)
        for stamp, (_, message) in zip(stamps, messages.of(depth), strict=True)
        if stamp in chosen.values()
    }
    shots = []
    for _, message in messages.of(image):
        when = seconds(message.header.stamp)
        if when in chosen:
            pose = transforms.pose(message.header.frame_id, frame, when)
            pixels = to_rgb(message, LARGEST)
            shots.append(Shot(f"{when:.3f} s", pixels, readings[chosen[when]], camera, pose))
    return shots


def _chosen(headers: Sequence[Any], stamps: Sequence[float], every: float) -> dict[float, float]:
    """The times of the images to take, each with that of its depth image."""
    chosen: dict[float, float] = {}
    last = -math.inf
    for header in headers:
        when = seconds(header.stamp)
        nearest = min(stamps, key=lambda stamp: abs(stamp - when), default=math.inf)
        if when - last >= every and abs(nearest - when) <= SLOP:
            chosen[when], last = nearest, when
    if not chosen:
        raise ViewsError(f"no image of the recording has a depth image within {SLOP:g} s")
    return chosen
