"""Recordings of ROS 2, read as far as they can be: a bag's folder, a bare .mcap or .db3 file.

Recorders are killed, disks have bad places, people edit metadata. What can be read is read, and
what could not is said in `Bag.faults`, one sentence each; nothing is passed over silently. Needs
no ROS.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path, PurePath, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import yaml
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore

from lisa_ros.errors import LisaError
from lisa_ros.recordings.storage import (
    EVER,
    MAGIC,
    McapFile,
    SqliteFile,
    Topic,
    profiles,
    said,
    zstd,
)

NEWEST_METADATA = 9
IDL = "=" * 80 + "\n"  # between the types of an IDL definition
IMAGES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
CAMERA_INFO = "sensor_msgs/msg/CameraInfo"
DEPTH_ENCODINGS = ("16UC1", "32FC1")


class RecordingError(LisaError):
    """A recording cannot be read, or its copy not be written."""


class Recorded(NamedTuple):
    """One message: its topic, the time of its recording in nanoseconds, and its bytes."""

    topic: Topic
    time: int
    data: bytes


class Bag:
    """A recording, opened; use it as a context manager.

    Raises:
        RecordingError: there is no recording, or nothing in it can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.faults: list[str] = []
        """what could not be read, each a sentence without full stop"""
        self._distribution = ""
        self._is_compressed = False  # every message on its own
        self._files: list[McapFile | SqliteFile] = []
        self._stores: dict[Topic, Any] = {}
        self._stack = ExitStack()
        self.counts: Counter[str] = Counter()
        """messages of each topic, as the recording says"""
        try:
            self._open()
        except RecordingError:
            self._stack.close()
            raise
        except Exception as error:  # a damaged file raises anything
            self._stack.close()
            raise RecordingError(f"{path} cannot be read: {said(error)}") from None
        self.topics = list(dict.fromkeys(t for file in self._files for t in file.channels.values()))

    def __enter__(self) -> Bag:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def fault(self, sentence: str) -> None:
        """Note what could not be read, once."""
        if sentence not in self.faults:
            self.faults.append(sentence)

    def messages(
        self, topics: Collection[str] | None = None, start: int = -EVER, stop: int = EVER
    ) -> Iterator[Recorded]:
        """The messages of some topics, or of all, recorded from `start` until before `stop`.

        In the order of recording; what cannot be read is left out and named in `faults`.
        """
        for file in self._files:
            wanted = {n for n, t in file.channels.items() if topics is None or t.name in topics}
            for channel, time, data in file.messages(wanted, start, stop):
                topic = file.channels[channel]
                try:
                    data = zstd().decompress(data) if self._is_compressed else data
                except Exception as error:
                    self.fault(f"a message on {topic.name} is damaged: {said(error)}")
                    continue
                yield Recorded(topic, time, data)

    def decode(self, recorded: Recorded) -> Any:
        """A message with its fields as attributes, by the definition that the file holds.

        None, and a fault, for one that is cut or damaged.
        """
        topic = recorded.topic
        try:
            return self.types_of(topic).deserialize_cdr(recorded.data, topic.type)
        except Exception as error:  # what is damaged raises anything
            when = f"{recorded.time / 1e9:.3f} s"
            self.fault(f"the message on {topic.name} at {when} cannot be read: {said(error)}")
            return None

    def types_of(self, topic: Topic) -> Any:
        """rosbags' type store with the definition of a topic's type.

        It is that of the file; else that of its distribution; else that of any, if they agree.

        Raises:
            RecordingError: nothing says what its messages look like; the text ends a sentence.
        """
        if topic not in self._stores:
            self._stores[topic] = self._store(topic)
        return self._stores[topic]

    def _store(self, topic: Topic) -> Any:
        name = topic.type
        if topic.encoding != "cdr":
            raise RecordingError(f"not in ROS 2's format ({topic.encoding or 'none'})")
        if topic.definition:
            store = get_typestore(Stores.EMPTY)
            try:
                store.register(_parsed(topic.definition, name))
                store.hash_rihs01(name)
                return store
            except Exception as error:
                raise RecordingError(f"of damaged definition ({said(error)})") from None
        stores = {one.name: get_typestore(one) for one in Stores if one.name.startswith("ROS2")}
        hashes = {n: s.hash_rihs01(name) for n, s in stores.items() if name in s.fielddefs}
        if not hashes:
            raise RecordingError("of unknown type")
        for distribution, digest in hashes.items():
            named = distribution == f"ROS2_{self._distribution.upper()}"
            if named or digest == topic.digest or len(set(hashes.values())) == 1:
                return stores[distribution]
        raise RecordingError("of a type that distributions define differently")

    def _open(self) -> None:
        path = self.path
        _refuse_others(path)
        paths, stated = [path], Counter()
        if path.is_dir():
            try:
                content = yaml.safe_load((path / "metadata.yaml").read_bytes())
            except yaml.YAMLError as error:
                place = getattr(error, "problem_mark", None)
                where = f", line {place.line + 1}" if place else ""
                raise RecordingError(
                    f"{path / 'metadata.yaml'}{where} cannot be read as YAML: {said(error)};"
                    f" `ros2 bag reindex {path}` writes it anew"
                ) from None
            metadata = content["rosbag2_bagfile_information"]
            if metadata["version"] > NEWEST_METADATA:
                raise RecordingError(f"{path}: metadata version {metadata['version']} is too new")
            self._distribution = metadata.get("ros_distro") or ""
            paths = [path / PurePath(name).name for name in metadata["relative_file_paths"]]
            mode = (metadata.get("compression_mode") or "").lower()
            self._is_compressed = mode == "message"
            if mode == "file":
                folder = Path(self._stack.enter_context(TemporaryDirectory()))
                paths = [_decompressed(one, folder / one.stem) for one in paths]
        for one in paths:
            try:
                self._files.append(self._file(one))
            except Exception as error:  # the others are not worse for it
                why = f"{path} lacks {one.name}" if not one.exists() else f"{one}: {said(error)}"
                self.fault(why)
        if not self._files:
            raise RecordingError("; ".join(self.faults))
        if path.is_dir():
            for entry in metadata["topics_with_message_count"]:
                about = entry["topic_metadata"]
                stated[about["name"]] += entry["message_count"]
                self._complete(about)
        for file in self._files:
            for channel, count in file.counts.items():
                self.counts[file.channels[channel].name] += count
        self.counts |= stated  # the larger of the two: metadata may be older than the file

    def _file(self, path: Path) -> McapFile | SqliteFile:
        with path.open("rb") as file:
            start = file.read(len(MAGIC))
        if start not in (MAGIC, b"SQLite f"):
            raise RecordingError("it is neither MCAP nor sqlite3: damaged, or no recording")
        opened = (McapFile if start == MAGIC else SqliteFile)(path, self.fault)
        self._stack.callback(opened.close)
        return opened

    def _complete(self, about: dict[str, Any]) -> None:
        """Take from the metadata what the files do not say of a topic."""
        for file in self._files:
            for number, topic in file.channels.items():
                if (topic.name, topic.type) == (about["name"], about["type"]):
                    digest = topic.digest or about.get("type_description_hash") or ""
                    qos = topic.qos or profiles(about.get("offered_qos_profiles") or "")
                    file.channels[number] = replace(topic, digest=digest, qos=qos)


@dataclass(frozen=True)
class Moment:
    """When a message was taken; nanoseconds."""

    stamp: int
    """of its header; 0: it has none"""
    recorded: int

    @classmethod
    def of(cls, message: Any, recorded: int) -> Moment:
        stamp = message.header.stamp
        return cls(stamp.sec * 10**9 + stamp.nanosec, recorded)

    @property
    def time(self) -> int:
        """By the stamp; where it is missing, that of the recording."""
        return self.stamp or self.recorded

    def away(self, other: Moment) -> int:
        """How far two are apart: by their stamps if both have one."""
        both = self.stamp and other.stamp
        return abs(self.stamp - other.stamp if both else self.recorded - other.recorded)


def nearest(moments: Sequence[Moment], to: Moment, slop: float) -> int | None:
    """The index of the moment that is nearest to another; None if all are beyond `slop` seconds.

    Stamps are not always of any use: of several equal ones the time of recording decides.
    """
    order = sorted(
        range(len(moments)),
        key=lambda i: (moments[i].away(to), abs(moments[i].recorded - to.recorded)),
    )
    if not order:
        return None
    best = moments[order[0]]
    repeated = len(order) > 1 and moments[order[1]].stamp == best.stamp
    away = abs(best.recorded - to.recorded) if repeated else best.away(to)
    return order[0] if away <= slop * 1e9 else None


def choose_camera(bag: Bag, wanted: str, others: Collection[str], option: str = "--image") -> str:
    """The topic to ask about: the wanted one, or the only one with images in colour.

    Args:
        bag: the recording.
        wanted: a topic; empty: whichever it is.
        others: topics that show something else: depth, earlier answers.
        option: that the user chooses with.

    Raises:
        RecordingError: there is none, or there are several.
    """
    images = [one for one in bag.topics if one.type in IMAGES and one.encoding == "cdr"]
    cameras = {one.name: one for one in images if one.name not in others}
    looks = {name: _look(bag, topic) for name, topic in sorted(cameras.items())}
    listing = ", ".join(f"{name} ({bag.counts[name]}, {looks[name]})" for name in looks) or "none"
    why = "".join(f"; {fault}" for fault in bag.faults)  # such as that it is cut short
    if wanted and looks.get(wanted, "no messages") == "no messages":
        raise RecordingError(f"no images on {wanted}; topics with images: {listing}{why}")
    if wanted:
        return wanted
    if not {*looks.values()} - {"no messages"}:
        raise RecordingError(f"{bag.path} holds no images{why}")
    for look in ("colour", "grey"):
        names = [name for name in looks if looks[name] == look]
        twins = {f"{name}/compressed" for name in names}  # the same images once more
        names = [name for name in names if name not in twins]
        if len(names) == 1:
            return names[0]
        if names:
            break
    raise RecordingError(f"choose the camera with {option}; topics with images: {listing}")


def _look(bag: Bag, topic: Topic) -> str:
    """What the first image of a topic shows: "colour", "grey", "depth" or "no messages"."""
    is_empty = bag.counts and not bag.counts[topic.name]
    first = None if is_empty else next(bag.messages([topic.name]), None)
    if first is None:
        return "no messages"
    message = bag.decode(first)
    encoding = getattr(message, "format", None) or getattr(message, "encoding", "")
    if encoding.startswith(DEPTH_ENCODINGS) or "compressedDepth" in encoding:
        return "depth"
    return "grey" if encoding.startswith(("mono", "8UC1")) else "colour"


def choose_camera_info(bag: Bag, wanted: str, depth: str) -> str:
    """The topic with the intrinsics: the wanted one, that beside the depth images, or the only one.

    Raises:
        RecordingError: there is none, or there are several.
    """
    found = sorted({t.name for t in bag.topics if t.type == CAMERA_INFO and bag.counts[t.name]})
    if wanted in found:
        return wanted
    listing = ", ".join(found) or "none"
    if wanted:
        raise RecordingError(f"no camera_info on {wanted}; topics with camera_info: {listing}")
    beside = [str(folder / "camera_info") for folder in PurePosixPath(depth).parents]
    near = [name for name in beside if name in found] or found
    if not near:
        raise RecordingError(f"{bag.path} holds no camera_info")
    if near is found and len(found) > 1:
        raise RecordingError(f"choose one with --camera-info; topics with camera_info: {listing}")
    return near[0]


def _refuse_others(path: Path) -> None:
    """Say what to do with what is no recording of ROS 2, or has lost its metadata."""
    if not path.exists():
        raise RecordingError(f"there is no recording {path}: it does not exist")
    if path.suffix == ".bag" and not path.is_dir():
        raise RecordingError(
            f"{path} is a recording of ROS 1: convert it with `rosbags-convert --src {path} --dst "
            f"{path.with_suffix('')}`, which rosbags brings, and name the new folder"
        )
    if path.name == "metadata.yaml":
        raise RecordingError(f"{path} only describes a recording: name its folder {path.parent}")
    if not path.is_dir() or (path / "metadata.yaml").exists():
        return
    files = sorted(one.name for one in path.iterdir() if one.suffix in (".mcap", ".db3", ".bag"))
    if not files:
        raise RecordingError(f"{path} is no recording: it holds no metadata.yaml, .mcap or .db3")
    if files[0].endswith(".bag"):
        raise RecordingError(f"{path} holds recordings of ROS 1: name one, such as {files[0]}")
    kind = "mcap" if files[0].endswith(".mcap") else "sqlite3"
    raise RecordingError(
        f"{path} has no metadata.yaml, as if its recorder was killed: write it with `ros2 bag "
        f"reindex -s {kind} {path}`, or name one of its files: {', '.join(files[:5])}"
    )


def _parsed(definition: str, name: str) -> dict:
    """The types of a definition by their names."""
    if not definition.startswith(f"{IDL}IDL: "):
        return get_types_from_msg(definition, name)
    found: dict = {}
    for part in definition.split(IDL)[1:]:
        found |= get_types_from_idl(part.split("\n", 1)[1])
    return found


def _decompressed(path: Path, target: Path) -> Path:
    with zstd().open(path, "rb") as source, target.open("wb") as written:
        shutil.copyfileobj(source, written)
    return target
