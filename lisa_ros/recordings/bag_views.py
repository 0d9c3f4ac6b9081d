"""Views of a recording: images, depth images and camera_info, placed by the recorded tf."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lisa_ros.errors import LisaError
from lisa_ros.geometry import Intrinsics, rigid
from lisa_ros.geometry.depth import check_registered
from lisa_ros.node.inputs.image_conversion import LARGEST, to_depth, to_rgb
from lisa_ros.recordings.bag import Bag, Moment, choose_camera, nearest
from lisa_ros.recordings.views import Shot, ViewsError

SLOP = 0.1  # seconds by which the stamps of image and depth image may differ
STATIC = {"/tf": False, "/tf_static": True}
FAR = 0.5  # seconds from the nearest known transform beyond which a pose is not known
DEEPEST = 100  # links between a frame and its root; more are a circle
STOOD_IN = "the time of recording stands in"


def read_bag(
    path: Path, image: str, depth: str, info: str, frame: str, every: float
) -> tuple[list[Shot], list[str]]:
    """Views `every` so many seconds of the recording, in the frame `frame`.

    Args:
        path: a bag's folder, or a bare .mcap or .db3 file.
        image: topic of the images; empty: the only camera in colour.
        depth, info: topics of the depth images registered to it and of their camera_info.
        frame: one in which the object does not move, such as map or base_link.
        every: seconds by the stamps of the images.

    Returns:
        The views, and what could not be read or used, each as a sentence.

    Raises:
        LisaError: a topic, a transform or a depth image is missing, or no image can be read.
    """
    with Bag(path) as bag:
        image = image or choose_camera(bag, "", [depth])
        known = {topic.name for topic in bag.topics}
        missing = ", ".join(topic for topic in (image, depth, info) if topic not in known)
        if missing:
            raise ViewsError(f"{path} has no {missing}; it has {', '.join(sorted(known))}")
        # 1. What was taken when; the images themselves are too many to keep.
        transforms = RecordedTransforms()
        moments: dict[str, list[Moment]] = {image: [], depth: [], info: []}
        infos = []
        for recorded in bag.messages({*STATIC, *moments}):
            message, topic = bag.decode(recorded), recorded.topic.name
            if message is not None and topic in STATIC:
                transforms.add(message.transforms, STATIC[topic], recorded.time)
            elif message is not None:
                moments[topic].append(Moment.of(message, recorded.time))
                infos += [message] if topic == info else []
        if not infos:
            raise ViewsError(f"the recording has no message on {info}")
        notes = [
            f"{topic} has no stamps of use; {STOOD_IN}"
            for topic in moments
            if _unstamped(moments, topic)
        ]
        if transforms.without_stamp:
            notes.append(f"{transforms.without_stamp} transforms have no stamp; {STOOD_IN}")
        # 2. The images to take as views, each with its depth image.
        pairs = _pairs(moments[image], moments[depth], every)
        wanted = {(image, one) for one in pairs} | {(depth, one) for one in pairs.values()}
        read: dict[tuple[str, int], Any] = {}
        numbers: Counter[str] = Counter()
        for recorded in bag.messages({image, depth}):
            message, topic = bag.decode(recorded), recorded.topic.name
            if message is None:
                continue
            if (topic, numbers[topic]) in wanted:
                read[topic, numbers[topic]] = message
            numbers[topic] += 1
        # 3. The views; one that cannot be used costs only itself.
        shots = []
        for one, other in sorted(pairs.items(), key=lambda pair: moments[image][pair[0]].time):
            message, reading, moment = read[image, one], read[depth, other], moments[image][one]
            when = moment.time / 1e9
            try:
                check_registered(message.header.frame_id, reading.header.frame_id)
                beside = nearest(moments[info], moment, math.inf)
                camera = Intrinsics.from_camera_info(infos[beside])
                pose = transforms.pose(message.header.frame_id, frame, when)
                pixels, metres = to_rgb(message), to_depth(reading, LARGEST)
                shots.append(Shot(f"{when:.3f} s", pixels, metres, camera, pose))
            except LisaError as error:
                notes.append(f"no view at {when:.3f} s: {error}")
        if not shots:
            raise ViewsError(notes[-1])
        return shots, [*bag.faults, *notes]


def _unstamped(moments: dict[str, list[Moment]], topic: str) -> bool:
    """Whether a topic's stamps are missing or all the same; then they are taken away."""
    stamps = [one.stamp for one in moments[topic]]
    frozen = len(stamps) > 1 and len(set(stamps)) == 1
    if frozen:
        moments[topic] = [Moment(0, one.recorded) for one in moments[topic]]
    return frozen or 0 in stamps


def _pairs(images: list[Moment], depths: list[Moment], every: float) -> dict[int, int]:
    """The numbers of the images to take, each with that of its depth image."""
    chosen: dict[int, int] = {}
    last = -math.inf
    for number in sorted(range(len(images)), key=lambda number: images[number].time):
        time = images[number].time
        if time - last >= every * 1e9:
            depth = nearest(depths, images[number], SLOP)
            if depth is not None:
                chosen[number], last = depth, time
    if not chosen:
        raise ViewsError(f"no image of the recording has a depth image within {SLOP:g} s")
    return chosen


class _Link(NamedTuple):
    """A frame in its parent at one time: position x, y, z and quaternion x, y, z, w."""

    time: float
    parent: str
    values: np.ndarray


class RecordedTransforms:
    """All transforms of a recording, dynamic and static."""

    def __init__(self) -> None:
        self._links: dict[str, list[_Link]] = {}  # of each child, sorted by time
        self._static: dict[str, _Link] = {}
        self.without_stamp = 0
        """transforms without a stamp, for which the time of recording stood in"""

    def add(self, transforms: Iterable[Any], static: bool, recorded: int = 0) -> None:
        """Take the transforms of one TFMessage, in any order of time.

        As in tf2, the last static transform of a frame counts, and of several dynamic ones with
        the same stamp the first.

        Args:
            transforms: of the message.
            static: whether it came on /tf_static.
            recorded: time of recording, nanoseconds; stands in for a stamp of zero.
        """
        for one in transforms:
            child, stamp = one.child_frame_id.lstrip("/"), one.header.stamp
            time = stamp.sec + stamp.nanosec * 1e-9
            if not time and not static:
                time, self.without_stamp = recorded / 1e9, self.without_stamp + 1
            shift, turn = one.transform.translation, one.transform.rotation
            values = np.array([shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w])
            if not np.isfinite(values).all() or not values[3:].any():
                continue  # tf2 refuses these too
            link = _Link(time, one.header.frame_id.lstrip("/"), values)
            if static:
                self._static[child] = link
                continue
            links = self._links.setdefault(child, [])
            at = bisect_left(links, time, key=lambda known: known.time)
            if at == len(links) or links[at].time != time:
                links.insert(at, link)

    def pose(self, frame: str, target: str, when: float) -> np.ndarray:
        """The pose (4,4) of a frame in the frame `target` at a time, seconds.

        Raises:
            LisaError: the two do not hang together, or not at that time.
        """
        one, other = self._chain(frame, when), self._chain(target, when)
        shared = next((name for name in one if name in other), None)
        if shared is None:
            links = [*self._static.values(), *(one for all in self._links.values() for one in all)]
            names = {*self._static, *self._links, *(link.parent for link in links)}
            known = ", ".join(sorted(names)) or "none"
            raise LisaError(f"no transform leads from {frame} to {target}; known frames: {known}")
        up, down = one[: one.index(shared)], other[: other.index(shared)]
        return np.linalg.inv(self._along(down, when)) @ self._along(up, when)

    def _chain(self, frame: str, when: float) -> list[str]:
        """A frame, its parent, and so on up to the root."""
        chain = [frame.lstrip("/")]
        while around := self._around(chain[-1], when):
            nearest = min(around, key=lambda link: abs(link.time - when))
            chain.append(nearest.parent)
            if len(chain) > DEEPEST:
                raise LisaError(f"the transforms run in a circle through {chain[-1]}")
        return chain

    def _along(self, frames: list[str], when: float) -> np.ndarray:
        """The pose (4,4) of the first frame in the parent of the last."""
        pose = np.eye(4)
        for frame in frames:
            pose = self._pose_in_parent(frame, when) @ pose
        return pose

    def _around(self, frame: str, when: float) -> list[_Link]:
        """The last link up to a time and the first from it on; only one of them at the ends."""
        if frame in self._static:
            return [self._static[frame]]
        links = self._links.get(frame, [])
        after = bisect_left(links, when, key=lambda link: link.time)
        return links[max(0, after - 1) : after + 1]

    def _pose_in_parent(self, frame: str, when: float) -> np.ndarray:
        """Between two known transforms in proportion to the time."""
        first, *_, last = self._around(frame, when) * 2
        if frame not in self._static:
            gap = min(abs(first.time - when), abs(last.time - when))
            if gap > FAR:
                raise LisaError(
                    f"the nearest transform of {frame} is {gap:.1f} s away from the image"
                )
        if first.parent != last.parent:  # it was taken from one to another: nothing in between
            first = last = min((first, last), key=lambda link: abs(link.time - when))
        span = last.time - first.time
        share = float(np.clip((when - first.time) / span, 0, 1)) if span > 0 else 0.0
        # The two quaternions of one rotation differ in sign; between near ones a straight line
        # bent back to the sphere is as good as an arc.
        sign = 1.0 if first.values[3:] @ last.values[3:] >= 0 else -1.0
        end = np.concatenate([last.values[:3], sign * last.values[3:]])
        values = (1 - share) * first.values + share * end
        return rigid(values[:3], values[3:])
