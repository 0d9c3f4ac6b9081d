"""Asks about the images of a recording and writes it anew with the answers in it.

Works without a running ROS graph, on recordings of any ROS 2 distribution. What is written opens in
Humble and everything later. One bad message costs itself alone, and is named at the end.
"""

from __future__ import annotations

import math
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from std_msgs.msg import Header, String

from lisa_ros.engine.question import check_instruction
from lisa_ros.errors import LisaError, check_number, counted
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.frame import DepthMatch, Frame
from lisa_ros.node.inputs.image_conversion import LARGEST, to_message
from lisa_ros.node.parameters import BY_NAME
from lisa_ros.node.requests.query import Outcome, Query, sure_enough
from lisa_ros.node.results import messages
from lisa_ros.node.results.objects3d import localize
from lisa_ros.node.results.overlay import draw_overlay
from lisa_ros.node.status import ANSWERED, Status
from lisa_ros.recordings.bag import (
    Bag,
    Moment,
    Recorded,
    RecordingError,
    choose_camera,
    choose_camera_info,
    nearest,
)
from lisa_ros.recordings.storage import Topic, said
from lisa_ros.resources import shared_file
from lisa_ros.writing import writable_folder, written_beside

if TYPE_CHECKING:
    from lisa_ros.engine.engine import Engine

SETTINGS = {name: parameter.default for name, parameter in BY_NAME.items()}
STORAGES = {".mcap": StoragePlugin.MCAP, ".db3": StoragePlugin.SQLITE3}
OUTPUTS = {
    "/lisa/mask": "lisa_ros/msg/Segmentation",
    "/lisa/mask/image": "sensor_msgs/msg/Image",
    "/lisa/mask/labels": "sensor_msgs/msg/Image",
    "/lisa/answer": "std_msgs/msg/String",
    "/lisa/overlay": "sensor_msgs/msg/Image",
}
BAG_VERSION = 8  # of the metadata; from 9 on Humble cannot read the quality of service
NO_TIME_LIMIT = 1e9  # seconds; a recording can wait
# Nanoseconds of recorded time around an image within which its depth was recorded; the longer one
# is looked at where recorder or network let messages wait.
AROUND = (10**9, 8 * 10**9)


@dataclass
class Summary:
    """What has been done to a recording."""

    copied: Counter[str] = field(default_factory=Counter)
    """messages of each topic"""
    answers: Counter[Status] = field(default_factory=Counter)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    """why topics were not copied, and which"""
    notes: list[str] = field(default_factory=list)
    """what people should know"""
    faults: list[str] = field(default_factory=list)
    """what is missing in the copy that was in the recording, or was not answered"""


class Annotator:
    """One run over one recording; iterate over `run` to drive it and to show its progress."""

    def __init__(
        self,
        source: Path,
        target: Path,
        questions: Sequence[str],
        *,
        every: float,
        topic: str = "",
        depth: str = "",
        info: str = "",
        mode: str = "auto",
        max_new_tokens: int = 256,
        least_score: float = SETTINGS["score.min"],
    ) -> None:
        """
        Args:
            source: a bag's folder, or a bare .mcap or .db3 file.
            target: what to write; .mcap or .db3 makes a bare file, anything else a bag's folder.
            questions: each is asked about each chosen image.
            every: seconds of recorded time from one chosen image to the next; 0: all images.
            topic: the camera; empty: the only topic with images in colour.
            depth: the depth images that are registered to it; empty: none, and so no 3-D part.
            info: their camera_info; empty: the one beside them, or the only one.
            mode, max_new_tokens, least_score: as the node's parameters.

        Raises:
            LisaError: the recording cannot be read, or nothing be written there.
        """
        check_number("--every", every, 0)
        check_number("--score-min", least_score, 0, 1)
        for question in questions:
            check_instruction(question)
        self._source, self._target = source, target
        self._questions, self._every = questions, every
        self._mode, self._max_new_tokens = mode, max_new_tokens
        self._least_score = least_score
        self._asked, self._images = 0, 0
        self._last: int | None = None
        self.summary = Summary()
        with Bag(source) as bag:
            if target.exists():
                raise RecordingError(f"{target} exists already; choose another name")
            if depth and not any(one.name == depth for one in bag.topics):
                names = ", ".join(sorted(one.name for one in bag.topics))
                raise RecordingError(f"no depth images on {depth}; topics: {names}")
            self._topic = choose_camera(bag, topic, {*OUTPUTS, depth})
            self._depth = depth
            self._info = choose_camera_info(bag, info, depth) if depth else ""
            self.total = sum(bag.counts.values())
            """messages of the recording, as it says"""
        writable_folder(target.parent)

    def run(self, engine: Engine) -> Iterator[str]:
        """Read, ask and write; yields after every message, with a line for each answer.

        Raises:
            LisaError: with a sentence that says what is wrong.
        """
        bare = self._target.suffix in STORAGES
        plugin = STORAGES.get(self._target.suffix, StoragePlugin.MCAP)
        with (
            Bag(self._source) as bag,
            written_beside(self._target) as beside,
            TemporaryDirectory(dir=beside.parent, prefix=".lisa_ros.") as scratch,
        ):
            folder = Path(scratch) / self._target.name  # after which the file in it is called
            try:
                with _Writer(folder, version=BAG_VERSION, storage_plugin=plugin) as writer:
                    yield from self._copy(bag, writer, engine)
            except sqlite3.Error as error:  # its way to say that the disk is full
                raise RecordingError(f"cannot write {self._target}: {error}") from error
            os.rename(writer.file if bare else folder, beside)
            self._count(bag)

    def _copy(self, bag: Bag, writer: _Writer, engine: Engine) -> Iterator[str]:
        outputs = {name: writer.add(name, kind, _types()) for name, kind in OUTPUTS.items()}
        copies = {one: self._add(bag, one, writer) for one in bag.topics}
        self._first_info = None
        if self._info:
            self._first_info = next(filter(None, map(bag.decode, bag.messages([self._info]))), None)
        for recorded in bag.messages():
            copy = copies[recorded.topic]
            if copy is not None:
                writer.write(copy, recorded.time, recorded.data)
                self.summary.copied[recorded.topic.name] += 1
            lines = []
            if recorded.topic.name == self._topic and self._is_due(recorded.time):
                frame = self._frame(bag, recorded)
                for question in self._questions if frame is not None else ():
                    lines.append(self._annotate(writer, outputs, recorded, frame, question, engine))
            yield "\n".join(lines)

    def _add(self, bag: Bag, topic: Topic, writer: _Writer) -> Connection | None:
        """The topic in the new bag, with the recording's own definition; None if left out."""
        if topic.name in OUTPUTS:
            return None  # an earlier run's answers
        try:
            return writer.add(topic.name, topic.type, bag.types_of(topic), topic)
        except RecordingError as reason:
            self.summary.left_out.setdefault(str(reason), []).append(topic.name)
            return None

    def _count(self, bag: Bag) -> None:
        """Hold the copy against what the recording says that it has."""
        self.summary.faults += bag.faults
        left_out = {name for names in self.summary.left_out.values() for name in names}
        for name in sorted(set(bag.counts) - left_out - set(OUTPUTS)):
            copied, there = self.summary.copied[name], bag.counts[name]
            if copied < there:
                lacking = f"only {copied} of {counted(there, 'message')} on {name} are there"
                self.summary.faults.append(lacking)

    def _is_due(self, time: int) -> bool:
        """Whether an image is to be asked about; nanoseconds of the recording."""
        if self._last is not None and 0 <= time - self._last < self._every * 1e9:
            return False
        self._last = time
        return True

    def _frame(self, bag: Bag, recorded: Recorded) -> Frame | None:
        """An image with the depth image that belongs to it; None if it is damaged."""
        message = bag.decode(recorded)
        if message is None:
            return None
        moment = Moment.of(message, recorded.time)
        note = f"images on {self._topic} have no stamp; the time of recording stands in"
        if not moment.stamp and note not in self.summary.notes:
            self.summary.notes.append(note)
        stamp = message.header.stamp
        message.header = Header(
            stamp=Time(sec=stamp.sec, nanosec=stamp.nanosec), frame_id=message.header.frame_id
        )
        self._images += 1  # stamps repeat, a number never does
        return Frame(message, key=("recording", self._images), match=self._match_for(bag, moment))

    def _match_for(self, bag: Bag, moment: Moment) -> DepthMatch:
        if not self._depth:
            return DepthMatch(reason="no depth image: its topic was not named")
        slop = SETTINGS["depth.slop"]
        depth = self._nearest(bag, self._depth, moment, slop)
        info = self._nearest(bag, self._info, moment, math.inf) or self._first_info
        if depth is None:
            return DepthMatch(info=info, reason=f"no depth image within {slop:g} s of the image")
        return DepthMatch(depth, info)

    def _nearest(self, bag: Bag, topic: str, moment: Moment, slop: float) -> Any:
        """The message on a topic that is nearest to an image; None without one within `slop`."""
        for around in AROUND:
            window = moment.recorded - around, moment.recorded + around
            read = [(bag.decode(one), one.time) for one in bag.messages([topic], *window)]
            read = [(message, time) for message, time in read if message is not None]
            found = nearest([Moment.of(*one) for one in read], moment, slop)
            if found is not None:
                return read[found][0]
        return None

    def _annotate(
        self,
        writer: _Writer,
        outputs: dict[str, Connection],
        recorded: Recorded,
        frame: Frame,
        question: str,
        engine: Engine,
    ) -> str:
        """Ask one question about one image and write everything that the node would publish."""
        query, outcome = self._ask(engine, frame, question, recorded.time)
        message = messages.segmentation(query, outcome, engine.name)
        message.timings.total = messages.since(query)
        words = messages.words(message)
        written: dict[str, Any] = {"/lisa/mask": message, "/lisa/answer": String(data=words)}
        if outcome.answer is not None:
            header = message.header
            written["/lisa/mask/image"] = messages.union_image(message)
            labels = messages.label_image(message.instances, frame.size, header)
            written["/lisa/mask/labels"] = labels
            masks = [one.mask for one in outcome.answer.instances]
            failed = outcome.status is Status.NOT_FOUND
            drawn = draw_overlay(frame.pixels(LARGEST), masks, question, words, failed=failed)
            written["/lisa/overlay"] = to_message(drawn, "rgb8", header)
        for name, one in written.items():
            writer.write(outputs[name], recorded.time, serialize_message(one))
        self.summary.answers[outcome.status] += 1
        return f"{question}: {outcome.status.name}, {words}"

    def _ask(self, engine: Engine, frame: Frame, question: str, time: int) -> tuple[Query, Outcome]:
        self._asked += 1
        query = Query(
            id=str(self._asked),
            instruction=question,
            mode=self._mode,
            source=Segmentation.SOURCE_RECORDING,
            stamp=Time(sec=min(time // 10**9, 2**31 - 1), nanosec=time % 10**9),
            timeout=NO_TIME_LIMIT,
            max_new_tokens=self._max_new_tokens,
            frame=frame,
        )
        try:
            answer = engine.segment(
                frame.pixels(LARGEST),
                question,
                mode=self._mode,
                key=frame.key,
                max_new_tokens=self._max_new_tokens,
            )
        except LisaError as error:
            return query, Outcome(Status.REJECTED, str(error))
        except Exception as error:  # the other answers are not worse for it
            sentence = f"the model failed with {type(error).__name__}: {said(error)}"
            self.summary.faults.append(f"question {self._asked} has no answer: {sentence}")
            return query, Outcome(Status.MODEL_ERROR, sentence)
        outcome = sure_enough(answer, self._least_score)
        masks = [one.mask for one in outcome.answer.instances]
        outcome.objects = localize(masks, frame.match, frame.header, SETTINGS)
        return query, outcome


class _Writer(Writer):
    """rosbags' writer, for any path, and with one definition for each type."""

    class _Sqlite3(Sqlite3Writer):
        def __init__(self, path: Path, _: Any) -> None:
            self.path = path / f"{path.name}.db3"
            self.conn = sqlite3.connect(self.path)  # rosbags takes the path for a URI: # ? %
            self.conn.executescript(self.SQLITE_SCHEMA)
            self.cursor = self.conn.cursor()

    STORAGE_PLUGINS = Writer.STORAGE_PLUGINS | {StoragePlugin.SQLITE3: _Sqlite3}

    def open(self) -> None:
        super().open()
        self.file: Path = self.storage.path
        self._hashes: dict[str, str] = {}
        self._added: dict[tuple[str, str], Connection] = {}

    def add(self, name: str, kind: str, types: Any, source: Topic | None = None) -> Connection:
        """A topic whose type is defined in rosbags' store `types`; the same one for equal names.

        Raises:
            RecordingError: the type has been written with another definition.
        """
        digest = types.hash_rihs01(kind)
        if self._hashes.setdefault(kind, digest) != digest:
            raise RecordingError("with another definition of its type than other topics")
        if (name, kind) not in self._added:
            text = source.definition if source is not None else ""
            self._added[name, kind] = self.add_connection(
                name,
                kind,
                msgdef=text or types.generate_msgdef(kind, ros_version=2)[0],
                rihs01=digest,
                offered_qos_profiles=source.qos if source is not None else (),
            )
        return self._added[name, kind]


def _types() -> Any:
    """The types of ROS itself and those of this package."""
    store = get_typestore(Stores.LATEST)
    for name in ("Timings", "Instance", "Segmentation"):
        text = shared_file(f"msg/{name}.msg").read_text(encoding="utf-8")
        store.register(get_types_from_msg(text, f"lisa_ros/msg/{name}"))
    return store


def describe(summary: Summary) -> str:
    """A line about a finished run, and one for everything that is missing in it."""
    counts = ", ".join(f"{count} {status.name}" for status, count in summary.answers.items())
    answered = sum(summary.answers[status] for status in ANSWERED)
    line = f"{counted(summary.copied.total(), 'message')} copied, "
    line += f"{counted(answered, 'answer')} ({counts or 'none'})"
    for reason, names in summary.left_out.items():
        line += f"; not copied, {reason}: {', '.join(names)}"
    notes = [f"note: {note}" for note in summary.notes]
    return "\n".join([line, *notes, *(f"missing: {fault}" for fault in summary.faults)])
