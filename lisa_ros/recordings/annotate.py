"""Asks about the images of a recording and writes it anew with the answers in it.

Works without a running ROS graph, on MCAP and sqlite3 bags of any ROS 2 distribution.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader, ReaderError, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from lisa_ros.errors import LisaError
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.loading import Model
from lisa_ros.node.parameters import BY_NAME
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.results import messages
from lisa_ros.node.results.objects3d import localize
from lisa_ros.node.results.overlay import draw_overlay
from lisa_ros.node.status import ANSWERED, Status
from lisa_ros.recordings.recorded_depth import RecordedDepth
from lisa_ros.resources import shared_file

if TYPE_CHECKING:
    from lisa_ros.engine.answer import Answer

CAMERAS = {"sensor_msgs/msg/Image": Image, "sensor_msgs/msg/CompressedImage": CompressedImage}
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
SETTINGS = {name: parameter.default for name, parameter in BY_NAME.items()}
STORAGES = {".mcap": StoragePlugin.MCAP, ".db3": StoragePlugin.SQLITE3}
TOPICS = {
    "/lisa/mask": "lisa_ros/msg/Segmentation",
    "/lisa/mask/image": "sensor_msgs/msg/Image",
    "/lisa/mask/labels": "sensor_msgs/msg/Image",
    "/lisa/answer": "std_msgs/msg/String",
    "/lisa/overlay": "sensor_msgs/msg/Image",
}
BAG_VERSION = 9
NO_TIME_LIMIT = 1e9  # seconds; a recording can wait


class RecordingError(LisaError):
    """A recording cannot be read, or its copy not be written."""


@dataclass
class Summary:
    """What has been done to a recording."""

    copied: int = 0
    answers: dict[Status, int] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    """topics that could not be copied because nothing says what their type looks like"""


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
        max_pixels: int = 2**28,
    ) -> None:
        """
        Args:
            source: a bag's folder, or a bare .mcap or .db3 file.
            target: what to write; .mcap or .db3 makes a bare file, anything else a bag's folder.
            questions: each is asked about each chosen image.
            every: seconds of recorded time from one chosen image to the next; 0: all images.
            topic: the camera; empty: the only topic with images.
            depth: the depth images that are registered to it; empty: none, and so no 3-D part.
            info: their camera_info; empty: the only topic with camera_info.
            mode, max_new_tokens, max_pixels: as the node's parameters.
        """
        if target.exists():
            raise RecordingError(f"{target} exists already; choose another name")
        self._source, self._target = source, target
        self._questions, self._every = questions, every
        self._mode, self._max_new_tokens, self._max_pixels = mode, max_new_tokens, max_pixels
        self._asked = 0
        self._last: int | None = None
        self.summary = Summary()
        try:
            with Reader(source) as reader:
                self._topic = _camera(reader, topic, depth)
                self._depth, self._info = depth, _camera_info(reader, info) if depth else ""
                self.total = reader.message_count
                """messages of the recording"""
        except (ReaderError, OSError) as error:
            raise RecordingError(f"{source}: {error}") from None

    def run(self, model: Model) -> Iterator[str]:
        """Read, ask and write; yields after every message, with a line for each answer.

        Raises:
            RecordingError: with a sentence that says what is wrong.
        """
        try:
            with ExitStack() as stack:
                reader = stack.enter_context(Reader(self._source))
                aside = stack.enter_context(Reader(self._source))
                slop = SETTINGS["depth.slop"]
                self._recorded = RecordedDepth(aside, self._depth, self._info, slop)
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=self._parent())))
                plugin = STORAGES.get(self._target.suffix, StoragePlugin.MCAP)
                bag = folder / self._target.name
                with Writer(bag, version=BAG_VERSION, storage_plugin=plugin) as writer:
                    yield from self._copy(reader, writer, model)
                self._put_in_place(bag)
        except (ReaderError, WriterError, OSError) as error:
            raise RecordingError(f"{self._source}: {error}") from None

    def _parent(self) -> Path:
        """The target's folder: written there, the result is moved and not copied."""
        self._target.absolute().parent.mkdir(parents=True, exist_ok=True)
        return self._target.absolute().parent

    def _put_in_place(self, bag: Path) -> None:
        if self._target.suffix in STORAGES:
            [bag] = bag.glob(f"*{self._target.suffix}")
        shutil.move(bag, self._target)

    def _copy(self, reader: Reader, writer: Writer, model: Model) -> Iterator[str]:
        known = _types()
        copies = {one.id: self._copy_of(one, writer, known) for one in reader.connections}
        outputs = {
            name: writer.add_connection(name, kind, typestore=known)
            for name, kind in TOPICS.items()
        }
        for connection, stamp, data in reader.messages():
            copy = copies[connection.id]
            if copy is not None:
                writer.write(copy, stamp, data)
                self.summary.copied += 1
            said = []
            if connection.topic == self._topic and self._is_due(stamp):
                message = deserialize_message(bytes(data), CAMERAS[connection.msgtype])
                frame = Frame(message, ("recording", stamp))
                frame.match = self._recorded.match_for(message.header, stamp)
                for question in self._questions:
                    said.append(self._annotate(writer, outputs, stamp, frame, question, model))
            yield "\n".join(said)

    def _copy_of(self, connection: Connection, writer: Writer, known: Any) -> Connection | None:
        """The topic in the new bag; None for one that is not copied."""
        if connection.topic in TOPICS:
            return None  # an earlier run's answers
        definition = connection.msgdef.data
        details: dict[str, Any] = {"offered_qos_profiles": connection.ext.offered_qos_profiles}
        if definition and connection.digest:
            details |= {"msgdef": definition, "rihs01": connection.digest}
        elif connection.msgtype in known.fielddefs:
            details["typestore"] = known
        else:
            self.summary.left_out.append(connection.topic)
            return None
        return writer.add_connection(connection.topic, connection.msgtype, **details)

    def _is_due(self, stamp: int) -> bool:
        """Whether an image is to be asked about; times are nanoseconds of the recording."""
        if self._last is not None and 0 <= stamp - self._last < self._every * 1e9:
            return False
        self._last = stamp
        return True

    def _annotate(
        self,
        writer: Writer,
        outputs: dict[str, Connection],
        stamp: int,
        frame: Frame,
        question: str,
        model: Model,
    ) -> str:
        """Ask one question about one image and write everything that the node would publish."""
        query, outcome = self._ask(model, frame, question, stamp)
        message = messages.segmentation(query, outcome, model.name)
        message.timings.total = messages.since(query)
        said = message.answer or message.error
        written: dict[str, Any] = {"/lisa/mask": message, "/lisa/answer": String(data=said)}
        if outcome.answer is not None:
            found, header = outcome.answer.instances, message.header
            written["/lisa/mask/image"] = messages.union_image(found, frame.size, header)
            written["/lisa/mask/labels"] = messages.label_image(found, frame.size, header)
            masks = [one.mask for one in found]
            failed = outcome.status is Status.NOT_FOUND
            picture = draw_overlay(
                frame.pixels(self._max_pixels), masks, question, said, failed=failed
            )
            written["/lisa/overlay"] = to_message(picture, "rgb8", header)
        for name, one in written.items():
            writer.write(outputs[name], stamp, serialize_message(one))
        counts = self.summary.answers
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
        return f"{question}: {outcome.status.name}, {said}"

    def _ask(self, model: Model, frame: Frame, question: str, stamp: int) -> tuple[Query, Outcome]:
        from builtin_interfaces.msg import Time

        self._asked += 1
        query = Query(
            id=str(self._asked),
            instruction=question,
            mode=self._mode,
            source=Segmentation.SOURCE_RECORDING,
            stamp=Time(sec=stamp // 10**9, nanosec=stamp % 10**9),
            timeout=NO_TIME_LIMIT,
            max_new_tokens=self._max_new_tokens,
            frame=frame,
        )
        try:
            answer = _last_answer(model, query, frame.pixels(self._max_pixels))
        except LisaError as error:
            return query, Outcome(Status.REJECTED, str(error))
        masks = [one.mask for one in answer.instances]
        objects = localize(masks, frame.match, frame.header, SETTINGS)
        return query, Outcome(Status[answer.status.name], "", answer, objects)


def _camera(reader: Reader, wanted: str, depth: str) -> str:
    """The topic to ask about; `depth` is another one."""
    found = {one.topic: one.msgcount for one in reader.connections if one.msgtype in CAMERAS}
    if depth and depth not in found:
        raise RecordingError(f"no depth images on {depth}; topics: {', '.join(sorted(found))}")
    cameras = {name: count for name, count in found.items() if name not in {*TOPICS, depth}}
    listing = ", ".join(f"{name} ({count})" for name, count in sorted(cameras.items())) or "none"
    if wanted and wanted not in cameras:
        raise RecordingError(f"no images on {wanted}; topics with images: {listing}")
    if not wanted and len(cameras) != 1:
        raise RecordingError(f"choose the camera with --image; topics with images: {listing}")
    return wanted or next(iter(cameras))


def _camera_info(reader: Reader, wanted: str) -> str:
    """The topic with the intrinsics."""
    found = sorted({one.topic for one in reader.connections if one.msgtype == CAMERA_INFO})
    listing = ", ".join(found) or "none"
    if wanted and wanted not in found:
        raise RecordingError(f"no camera_info on {wanted}; topics with camera_info: {listing}")
    if not wanted and len(found) != 1:
        raise RecordingError(f"choose one with --camera-info; topics with camera_info: {listing}")
    return wanted or found[0]


def _last_answer(model: Model, query: Query, pixels: Any) -> Answer:
    *_, last = model.engine.stream(
        pixels,
        query.instruction,
        mode=query.mode,
        key=query.frame.key,
        max_new_tokens=query.max_new_tokens,
    )
    return last.answer


def _types() -> Any:
    """The types of ROS itself and those of this package."""
    store = get_typestore(Stores.LATEST)
    for name in ("Timings", "Instance", "Segmentation"):
        text = shared_file(f"msg/{name}.msg").read_text(encoding="utf-8")
        store.register(get_types_from_msg(text, f"lisa_ros/msg/{name}"))
    return store


def describe(summary: Summary) -> str:
    """One line about a finished run."""
    counts = ", ".join(f"{count} {status.name}" for status, count in summary.answers.items())
    answered = sum(summary.answers.get(status, 0) for status in ANSWERED)
    line = f"{summary.copied} messages copied, {answered} answers ({counts or 'none'})"
    if summary.left_out:
        line += f"; not copied, of unknown type: {', '.join(summary.left_out)}"
    return line
