"""Recordings as they are found: damaged, edited, foreign, without stamps; nothing goes unsaid."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import mcap_samples as mcap
import numpy as np
import pytest
import yaml

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from fake_engine import FakeEngine
from lisa_ros.msg import Segmentation
from rclpy.serialization import deserialize_message
from rosbags.highlevel import AnyReader
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from lisa_ros.cli import main
from lisa_ros.errors import LisaError
from lisa_ros.node.status import Status
from lisa_ros.recordings.annotate import Annotator, Summary, describe
from lisa_ros.recordings.bag import Bag, Moment, RecordingError, nearest
from lisa_ros.recordings.storage import McapFile

SECOND = 10**9
IMAGE, INFO, RANGE = (f"sensor_msgs/msg/{name}" for name in ("Image", "CameraInfo", "Range"))
STRING = "std_msgs/msg/String"
STORE, HUMBLE = get_typestore(Stores.ROS2_JAZZY), get_typestore(Stores.ROS2_HUMBLE)
HUMBLE.register(get_types_from_msg("float32 opening\nbool holds", "my_robot_msgs/msg/Gripper"))
T = STORE.types
PLUGINS = [StoragePlugin.MCAP, StoragePlugin.SQLITE3]
FOREVER = QosTime(2147483647, 4294967295)


def qos(depth: int = 10) -> Qos:
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
        FOREVER,
        FOREVER,
        QosLiveliness.AUTOMATIC,
        FOREVER,
        False,
    )


def header(nanoseconds: int, frame: str = "cam"):
    stamp = T["builtin_interfaces/msg/Time"](*divmod(nanoseconds, SECOND))
    return T["std_msgs/msg/Header"](stamp, frame)


def image(stamp: int, encoding: str = "rgb8", shade: int = 0, frame: str = "cam"):
    channels, kind = {"rgb8": (3, np.uint8), "mono8": (1, np.uint8), "16UC1": (1, np.uint16)}[
        encoding
    ]
    pixels = np.full((48, 64 * channels), shade, kind).view(np.uint8)
    step = pixels.shape[1]
    return T[IMAGE](header(stamp, frame), 48, 64, encoding, 0, step, pixels.ravel())


def cdr(message) -> bytes:
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def write(path: Path, messages, plugin=StoragePlugin.MCAP, version=8, profiles=()) -> Path:
    """A bag of (topic, time of recording, message)."""
    with Writer(path, version=version, storage_plugin=plugin) as writer:
        topics = {}
        for topic, time, message in messages:
            if topic not in topics:
                kind = message.__msgtype__
                topics[topic] = writer.add_connection(
                    topic, kind, typestore=STORE, offered_qos_profiles=profiles
                )
            writer.write(topics[topic], time, cdr(message))
    return path


def images(count: int = 3, start: int = 100, topic: str = "/cam"):
    moments = [(start + number) * SECOND for number in range(count)]
    return [(topic, moment, image(moment, shade=n)) for n, moment in enumerate(moments)]


def ask(source: Path, target: Path, **more) -> tuple[Summary, FakeEngine, list[Segmentation]]:
    engine = FakeEngine()
    annotator = Annotator(source, target, more.pop("questions", ["the mug"]), **{"every": 0} | more)
    list(annotator.run(engine))
    with Bag(target) as bag:
        read = [deserialize_message(one.data, Segmentation) for one in bag.messages(["/lisa/mask"])]
    return annotator.summary, engine, read


def counts(path: Path) -> dict[str, int]:
    with Reader(path) as reader:
        return {one.topic: one.msgcount for one in reader.connections}


def storage_file(folder: Path) -> Path:
    return next(one for one in folder.iterdir() if one.suffix in (".mcap", ".db3"))


# A copy is counted


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("written", ['""', "[]", "nonsense", "[{history: 1}]"])
def test_quality_of_service_in_the_metadata_says_nothing_about_messages(tmp_path, plugin, written):
    source = write(tmp_path / "in", images(), plugin, profiles=[qos()])
    file = source / "metadata.yaml"
    pattern = r"offered_qos_profiles:.*?(?=\n      serialization_format)"
    file.write_text(
        re.sub(pattern, f"offered_qos_profiles: {written}", file.read_text(), flags=re.S)
    )
    summary, _, results = ask(source, tmp_path / "out")
    assert summary.copied == {"/cam": 3} and not summary.faults and len(results) == 3
    with Reader(tmp_path / "out") as reader:
        [camera] = [one for one in reader.connections if one.topic == "/cam"]
        assert camera.ext.offered_qos_profiles == [qos()], "the file's own are kept"


@pytest.mark.parametrize("plugin", PLUGINS)
def test_fewer_messages_than_the_recording_says_are_an_error(tmp_path, plugin):
    source = write(tmp_path / "in", images(), plugin)
    file = source / "metadata.yaml"
    file.write_text(file.read_text().replace("message_count: 3", "message_count: 5"))
    summary, _, results = ask(source, tmp_path / "out")
    assert len(results) == 3
    assert summary.faults == ["only 3 of 5 messages on /cam are there"]
    assert "missing: only 3 of 5" in describe(summary)


def test_the_command_ends_with_1_where_messages_are_missing(tmp_path, monkeypatch, capsys):
    source = write(tmp_path / "in", images())
    command = ["bag", str(source), "--query", "the mug", "--every", "0", "--out"]
    assert main([*command, str(tmp_path / "whole")]) == 0
    file = source / "metadata.yaml"
    file.write_text(file.read_text().replace("message_count: 3", "message_count: 4"))
    assert main([*command, str(tmp_path / "part")]) == 1
    assert "only 3 of 4 messages on /cam" in capsys.readouterr().out
    assert counts(tmp_path / "part")["/cam"] == 3


def test_what_a_killed_recorder_left_in_its_journal_is_copied(tmp_path):
    file = tmp_path / "wal.db3"
    shutil.copy(storage_file(write(tmp_path / "in", images(), StoragePlugin.SQLITE3)), file)
    if (child := os.fork()) == 0:
        base = sqlite3.connect(file)
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA wal_autocheckpoint=0")
        rows = base.execute("SELECT topic_id, timestamp, data FROM messages").fetchall()
        later = [(topic, time + 3 * SECOND, data) for topic, time, data in rows]
        base.executemany("INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)", later)
        base.commit()
        os._exit(9)
    os.waitpid(child, 0)
    before = {
        one.name: one.read_bytes() for one in tmp_path.glob("wal.db3*") if "shm" not in one.name
    }
    summary, _, results = ask(file, tmp_path / "out")
    assert summary.copied == {"/cam": 6} and not summary.faults and len(results) == 6
    assert all((tmp_path / name).read_bytes() == content for name, content in before.items())


@pytest.mark.parametrize("name", ["drive #2", "what?", "50%25", "a b'c\"d", "bücher"])
@pytest.mark.parametrize("suffix", ["", ".db3", ".mcap"])
def test_any_name_will_do(tmp_path, name, suffix):
    folder = tmp_path / name
    folder.mkdir()
    source = write(tmp_path / "in", images(1), StoragePlugin.SQLITE3)
    bare = folder / f"{name}.db3"
    shutil.copy(storage_file(source), bare)
    summary, _, results = ask(bare, folder / f"out {name}{suffix}")
    assert summary.copied == {"/cam": 1} and len(results) == 1
    assert sorted(one.name for one in folder.iterdir()) == sorted(
        [bare.name, f"out {name}{suffix}"]
    )


# Damage


@pytest.mark.parametrize("bare", [True, False])
def test_a_damaged_page_costs_its_own_message(tmp_path, bare):
    source = write(tmp_path / "in", images(5), StoragePlugin.SQLITE3)
    file = storage_file(source)
    content = bytearray(file.read_bytes())
    at = content.index(cdr(image(0, shade=2))[-4000:])
    page = at // 4096 * 4096
    content[page : page + 4096] = b"\xff" * 4096
    file.write_bytes(content)
    summary, _, results = ask(file if bare else source, tmp_path / "out")
    assert 3 <= len(results) < 5 and all(one.status == Status.OK for one in results)
    assert any("damaged" in fault for fault in summary.faults)
    assert any("of 5 messages on /cam" in fault for fault in summary.faults) or bare


def simple(*parts: bytes) -> list[bytes]:
    definition = STORE.generate_msgdef(IMAGE, ros_version=2)[0]
    return [mcap.schema(1, IMAGE, "ros2msg", definition), mcap.channel(1, 1, "/cam"), *parts]


def camera_messages(*seconds: int) -> bytes:
    return b"".join(
        mcap.message(1, second * SECOND, cdr(image(second * SECOND))) for second in seconds
    )


@pytest.mark.parametrize("compression", ["", "lz4", "zstd"])
def test_a_damaged_chunk_costs_its_own_messages(tmp_path, compression):
    chunks = [
        mcap.chunk(
            first * SECOND,
            (first + 1) * SECOND,
            camera_messages(first, first + 1),
            compression,
            spoilt,
        )
        for first, spoilt in ((100, False), (102, True), (104, False))
    ]
    source = mcap.write(tmp_path / "in.mcap", *simple(*chunks))
    summary, _, results = ask(source, tmp_path / "out")
    assert [one.header.stamp.sec for one in results] == [100, 101, 104, 105]
    [fault] = summary.faults
    assert "chunk at byte" in fault and "damaged" in fault


def test_a_damaged_chunk_of_a_file_with_an_index(tmp_path):
    """The index says how many there were."""
    source = write(tmp_path / "in", images(4))
    file = storage_file(source)
    content = bytearray(file.read_bytes())
    at = content.index(cdr(image(102 * SECOND))[:40]) - 22 - 9
    assert content[at] == 5
    content[at + 1 : at + 9] = struct.pack("<Q", 2**40)  # the length of the third message
    file.write_bytes(content)
    summary, _, results = ask(source, tmp_path / "out")
    assert [one.header.stamp.sec for one in results] == [100, 101]
    assert summary.faults[-1] == "only 2 of 4 messages on /cam are there"


@pytest.mark.parametrize("content", [None, b"", b"garbage"])
def test_a_file_of_several_that_is_lost_costs_its_own_messages(tmp_path, content):
    source, second = tmp_path / "in", write(tmp_path / "second", images(2, start=102))
    write(source, images(2))
    first = storage_file(source)
    shutil.copy(storage_file(second), source / "in_1.mcap")
    file = source / "metadata.yaml"
    text = file.read_text().replace("message_count: 2", "message_count: 4")
    file.write_text(text.replace("  - in.mcap\n", "  - in.mcap\n  - in_1.mcap\n"))
    summary, _, results = ask(source, tmp_path / "whole")
    assert len(results) == 4 and not summary.faults
    first.unlink()
    if content is not None:
        first.write_bytes(content)
    summary, _, results = ask(source, tmp_path / "part")
    assert [one.header.stamp.sec for one in results] == [102, 103]
    assert "in.mcap" in summary.faults[0]
    assert summary.faults[-1] == "only 2 of 4 messages on /cam are there"


@pytest.mark.parametrize("cut", [1, 30, 5000])
def test_a_recorder_that_was_killed(tmp_path, cut):
    whole = mcap.write(tmp_path / "whole.mcap", *simple(camera_messages(1, 2, 3)), end=b"")
    source = tmp_path / "in.mcap"
    source.write_bytes(whole.read_bytes()[:-cut])
    summary, _, results = ask(source, tmp_path / "out")
    assert len(results) == 2
    [fault] = summary.faults
    assert "cannot be read beyond byte" in fault and "killed" in fault


def test_a_message_that_is_cut_costs_itself(tmp_path):
    whole = cdr(image(102 * SECOND))
    definition = [(100, cdr(image(100 * SECOND))), (101, whole[:30]), (102, whole)]
    parts = b"".join(mcap.message(1, second * SECOND, data) for second, data in definition)
    summary, _, results = ask(mcap.write(tmp_path / "in.mcap", *simple(parts)), tmp_path / "out")
    assert [one.header.stamp.sec for one in results] == [100, 102]
    [fault] = summary.faults
    assert "/cam at 101.000 s cannot be read" in fault
    assert summary.copied == {"/cam": 3}, "it is copied as it is"


def test_a_model_that_fails_once_costs_one_answer(tmp_path):
    questions = ["exception", "the mug"]
    summary, _, results = ask(
        write(tmp_path / "in", images(2)), tmp_path / "out", questions=questions
    )
    assert [one.status for one in results] == [Status.MODEL_ERROR, Status.OK] * 2
    assert "RuntimeError" in results[0].error
    assert len(summary.faults) == 2 and summary.copied == {"/cam": 2}


@pytest.mark.parametrize("suffix", ["", ".mcap", ".db3"])
def test_a_full_disk_leaves_nothing_behind(tmp_path, suffix, monkeypatch):
    """sqlite3 says it in its own way."""
    source, target = write(tmp_path / "in", images()), tmp_path / "place" / f"out{suffix}"
    full = sqlite3.OperationalError if suffix == ".db3" else OSError

    def fail(*_: object) -> None:
        raise full("database or disk is full")

    monkeypatch.setattr("lisa_ros.recordings.annotate._Writer.write", fail)
    with pytest.raises(LisaError, match=r"cannot write .*out.*: database or disk is full"):
        ask(source, target)
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize("every", [-1.0, float("nan")])
def test_there_is_no_negative_time_between_questions(tmp_path, every):
    with pytest.raises(LisaError, match=f"--every must be at least 0 and finite, it is {every:g}"):
        ask(write(tmp_path / "in", images()), tmp_path / "out", every=every)


@pytest.mark.parametrize(
    ("seconds", "every", "asked"),
    [
        ([0, 1, 2, 3, 4], 2.0, [0, 2, 4]),
        ([0, 1, 5, 6, 9], 3.0, [0, 5, 9]),
        ([0, 0.9, 1.0, 1.9, 2.1], 1.0, [0, 1.0, 2.1]),
    ],
)
def test_a_question_every_so_many_seconds(tmp_path, seconds, every, asked):
    times = [100 * SECOND + round(one * SECOND) for one in seconds]
    source = write(tmp_path / "in", [("/cam", time, image(time)) for time in times])
    _, _, results = ask(source, tmp_path / "out", every=every)
    stamps = [one.header.stamp.sec + one.header.stamp.nanosec / SECOND - 100 for one in results]
    assert stamps == pytest.approx(asked)


# Of other makes


def test_foreign_channels_are_left_out_by_name(tmp_path):
    parts = [
        mcap.schema(2, "foxglove.Log", "protobuf", b"\x0a\xff\xfe"),
        mcap.channel(2, 2, "/log", "protobuf"),
        mcap.schema(3, "Status", "jsonschema", '{"type": "object"}'),
        mcap.channel(3, 3, "/status", "json"),
        mcap.channel(4, 0, "/nothing", "json"),
        mcap.message(2, SECOND, b"\x0a\x01"),
        mcap.message(3, SECOND, b"{}"),
        camera_messages(1),
    ]
    summary, _, results = ask(mcap.write(tmp_path / "in.mcap", *simple(*parts)), tmp_path / "out")
    assert len(results) == 1 and not summary.faults
    assert summary.left_out == {
        "not in ROS 2's format (protobuf)": ["/log"],
        "not in ROS 2's format (json)": ["/status", "/nothing"],
    }


def test_two_publishers_of_a_topic_are_both_copied(tmp_path):
    parts = [
        mcap.channel(2, 1, "/cam", offered_qos_profiles="- {history: 1}"),
        mcap.message(1, 1 * SECOND, cdr(image(1 * SECOND))),
        mcap.message(2, 2 * SECOND, cdr(image(2 * SECOND))),
        mcap.message(1, 3 * SECOND, cdr(image(3 * SECOND))),
    ]
    source = mcap.write(tmp_path / "in.mcap", *simple(*parts))
    summary, _, results = ask(source, tmp_path / "out")
    assert [one.header.stamp.sec for one in results] == [1, 2, 3]
    assert summary.copied == {"/cam": 3} and not summary.faults
    assert counts(tmp_path / "out")["/cam"] == 3


def test_messages_out_of_order_come_sorted(tmp_path):
    """Chunks overlap where several threads write, and a file without an index has no order."""
    parts = [
        mcap.chunk(1 * SECOND, 4 * SECOND, camera_messages(4, 1)),
        mcap.chunk(2 * SECOND, 6 * SECOND, camera_messages(6, 2)),
        camera_messages(5, 3),
    ]
    _, _, results = ask(mcap.write(tmp_path / "in.mcap", *simple(*parts)), tmp_path / "out")
    assert [one.header.stamp.sec for one in results] == [1, 2, 3, 4, 5, 6]


def test_a_summary_that_does_not_say_where_the_messages_are(tmp_path):
    """As a recorder writes it that makes no chunks; and what the summary counts is held against."""
    head, data = simple(), camera_messages(1, 2, 3)
    summary = [*head, mcap.statistics({1: 3}, chunks=0)]
    source = mcap.write_with_summary(tmp_path / "in.mcap", [*head, data], summary)
    summary, _, results = ask(source, tmp_path / "out")
    assert [one.header.stamp.sec for one in results] == [1, 2, 3] and not summary.faults


@pytest.mark.parametrize("plugin", PLUGINS)
def test_messages_of_a_time_and_of_some_topics(tmp_path, plugin):
    both = [*images(5), *images(5, topic="/other")]
    with Bag(write(tmp_path / "in", both, plugin)) as bag:
        found = list(bag.messages(["/cam"], 101 * SECOND, 103 * SECOND))
        assert [(one.topic.name, one.time) for one in found] == [
            ("/cam", second * SECOND) for second in (101, 102)
        ]
        assert len(list(bag.messages())) == 10 and list(bag.messages([])) == []
        assert [one.time for one in bag.messages(stop=101 * SECOND)] == [100 * SECOND] * 2
        assert bag.counts == {"/cam": 5, "/other": 5}
    chunks = [
        mcap.chunk(at * SECOND, (at + 1) * SECOND, camera_messages(at, at + 1)) for at in (1, 3, 5)
    ]
    with Bag(mcap.write(tmp_path / "chunks.mcap", *simple(*chunks))) as bag:
        found = [one.time // SECOND for one in bag.messages(None, 4 * SECOND, 6 * SECOND)]
        assert found == [4, 5], "a chunk that begins before counts too"


def humble_mcap(path: Path) -> Path:
    """A bare file with the definitions of Humble, whose Range has a field less than Jazzy's."""
    kinds = (IMAGE, RANGE, "my_robot_msgs/msg/Gripper")
    parts = []
    for number, (kind, topic) in enumerate(
        zip(kinds, ("/cam", "/sonar", "/gripper"), strict=True), 1
    ):
        definition = HUMBLE.generate_msgdef(kind, ros_version=2)[0]
        parts += [
            mcap.schema(number, kind, "ros2msg", definition),
            mcap.channel(number, number, topic),
        ]
    types = HUMBLE.types
    sonar = types[RANGE](header(SECOND), 0, 0.5, 0.02, 4.0, 1.25)
    gripper = types[kinds[2]](0.05, True)
    parts += [
        mcap.message(1, SECOND, cdr(image(SECOND))),
        mcap.message(2, SECOND, bytes(HUMBLE.serialize_cdr(sonar, RANGE))),
        mcap.message(3, SECOND, bytes(HUMBLE.serialize_cdr(gripper, kinds[2]))),
    ]
    return mcap.write(path, *parts)


@pytest.mark.parametrize("suffix", ["", ".mcap", ".db3"])
def test_the_definitions_of_the_file_go_along(tmp_path, suffix):
    summary, *_ = ask(humble_mcap(tmp_path / "in.mcap"), target := tmp_path / f"out{suffix}")
    assert summary.copied == {"/cam": 1, "/sonar": 1, "/gripper": 1} and not summary.left_out
    with AnyReader([target]) as reader:
        for one, _, data in reader.messages([c for c in reader.connections if c.topic != "/cam"]):
            message = reader.deserialize(data, one.msgtype)
            if one.topic == "/sonar":
                assert message.range == 1.25 and not hasattr(message, "variance")
            if one.topic == "/gripper":
                assert message.holds and message.opening == pytest.approx(0.05)


def without_definitions(tmp_path: Path, distribution: str = "", digest: bool = False) -> Path:
    """A bag as Humble makes it: nothing says what its types look like."""
    ranges = [("/sonar", 100 * SECOND, T[RANGE](header(SECOND), 0, 0.5, 0.02, 4.0, 1.25, 0.1))]
    source = write(tmp_path / "in", [*images(2), *ranges], StoragePlugin.SQLITE3)
    with closing(sqlite3.connect(storage_file(source))) as base:
        base.execute("DELETE FROM message_definitions")
        if not digest:
            base.execute("UPDATE topics SET type_description_hash = ''")
        base.commit()
    file = source / "metadata.yaml"
    content = file.read_text().replace("ros_distro: rosbags", f"ros_distro: '{distribution}'")
    if not digest:
        content = re.sub(r"type_description_hash:\s*\S+", "type_description_hash: ''", content)
    file.write_text(content)
    return source


def test_a_type_that_changed_is_left_out_where_nothing_says_which_it_is(tmp_path):
    summary, _, results = ask(without_definitions(tmp_path), tmp_path / "out")
    assert len(results) == 2 and not summary.faults
    assert summary.left_out == {"of a type that distributions define differently": ["/sonar"]}


@pytest.mark.parametrize(("distribution", "digest"), [("jazzy", False), ("", True)])
def test_the_distribution_or_the_hash_says_which_it_is(tmp_path, distribution, digest):
    source = without_definitions(tmp_path, distribution, digest)
    summary, *_ = ask(source, tmp_path / "out")
    assert summary.copied["/sonar"] == 1 and not summary.left_out
    with AnyReader([tmp_path / "out"]) as reader:
        [one] = [c for c in reader.connections if c.topic == "/sonar"]
        [(_, _, data)] = reader.messages([one])
        assert reader.deserialize(data, RANGE).variance == pytest.approx(0.1)


def test_older_messages_of_our_own_are_not_given_todays_definition(tmp_path):
    old = "string query\nstring answer\n"
    parts = [
        mcap.schema(2, "lisa_ros/msg/Segmentation", "ros2msg", old),
        mcap.channel(2, 2, "/other/mask"),
        mcap.message(2, SECOND, b"\0\1\0\0" + bytes(16)),
        camera_messages(1),
    ]
    summary, _, results = ask(mcap.write(tmp_path / "in.mcap", *simple(*parts)), tmp_path / "out")
    assert len(results) == 1 and results[0].status == Status.OK
    assert list(summary.left_out.values()) == [["/other/mask"]]


@pytest.mark.parametrize("suffix", ["", ".db3"])
def test_what_is_written_opens_in_humble(tmp_path, suffix):
    """Humble reads the quality of service as one string of numbers, which version 9 has not."""
    source = write(tmp_path / "in", images(1), StoragePlugin.SQLITE3, 9, [qos(7)])
    ask(source, target := tmp_path / f"out{suffix}")
    if suffix:
        with closing(sqlite3.connect(target)) as base:
            text = base.execute(
                "SELECT offered_qos_profiles FROM topics WHERE name='/cam'"
            ).fetchone()[0]
    else:
        content = yaml.safe_load((target / "metadata.yaml").read_text())[
            "rosbag2_bagfile_information"
        ]
        assert content["version"] < 9 and content["storage_identifier"] == "mcap"
        assert content["relative_file_paths"] == ["out.mcap"]
        topics = {
            one["topic_metadata"]["name"]: one for one in content["topics_with_message_count"]
        }
        text = topics["/cam"]["topic_metadata"]["offered_qos_profiles"]
    assert isinstance(text, str)
    [profile] = yaml.safe_load(text)
    assert profile["depth"] == 7 and profile["history"] == 1 and profile["reliability"] == 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("drive.bag", r"ROS 1.*rosbags-convert --src"),
        ("killed", r"no metadata.yaml.*ros2 bag reindex -s mcap .*x_0.mcap"),
        ("old", r"ROS 1.*drive.bag"),
        ("empty", "no recording"),
        ("killed/metadata.yaml", "does not exist"),
        ("good/metadata.yaml", "name its folder"),
        ("text.mcap", "neither MCAP nor sqlite3"),
        ("bent", r"bent.metadata.yaml, line 1 cannot be read as YAML.*ros2 bag reindex"),
        ("lacking", "lacks lacking.mcap"),
    ],
)
def test_what_is_no_recording_is_told_what_to_do(tmp_path, name, words):
    for folder in ("killed", "old", "empty", "bent"):
        (tmp_path / folder).mkdir()
    (tmp_path / "killed" / "x_0.mcap").write_bytes(mcap.MAGIC)
    for place in (tmp_path, tmp_path / "old"):
        (place / "drive.bag").write_bytes(b"#ROSBAG V2.0\n")
    (tmp_path / "bent" / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    (tmp_path / "text.mcap").write_text("no recording")
    write(tmp_path / "good", images(1))
    storage_file(write(tmp_path / "lacking", images(1))).unlink()
    with pytest.raises(RecordingError, match=words) as caught:
        Bag(tmp_path / name)
    assert "\n" not in str(caught.value)


# Which camera


def realsense():
    camera = "/camera/camera"
    for number in range(2):
        time = (100 + number) * SECOND
        yield f"{camera}/color/image_raw", time, image(time)
        yield f"{camera}/infra1/image_rect_raw", time, image(time, "mono8")
        yield f"{camera}/depth/image_rect_raw", time, image(time, "16UC1", 700)
        aligned = f"{camera}/aligned_depth_to_color"
        yield f"{aligned}/image_raw", time, image(time, "16UC1", 700)
        for place, focal in (("color", 60.0), ("depth", 40.0), ("aligned_depth_to_color", 50.0)):
            k = np.array([focal, 0, 32, 0, focal, 24, 0, 0, 1])
            roi = T["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
            info = (header(time), 48, 64, "plumb_bob", np.zeros(5), k, np.eye(3).ravel())
            yield f"{camera}/{place}/camera_info", time, T[INFO](*info, np.zeros(12), 0, 0, roi)


def test_a_realsense_recording_needs_no_names_but_that_of_its_depth(tmp_path):
    source = write(tmp_path / "in", list(realsense()))
    depth = "/camera/camera/aligned_depth_to_color/image_raw"
    _, _, results = ask(source, tmp_path / "out", depth=depth)
    assert [one.header.stamp.sec for one in results] == [100, 101]
    # The mask covers 32x24 pixels of 64x48, 0.7 m away, at the focal length beside the depth.
    assert results[0].instances[0].size.x == pytest.approx(0.7 * 32 / 50, rel=0.05)


def test_topics_without_messages_are_no_cameras(tmp_path):
    with Writer(tmp_path / "in", version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        for topic in ("/front", "/cam", "/rear"):
            connection = writer.add_connection(topic, IMAGE, typestore=STORE)
            if topic == "/cam":
                writer.write(connection, SECOND, cdr(image(SECOND)))
    _, _, results = ask(tmp_path / "in", tmp_path / "out")
    assert len(results) == 1
    with pytest.raises(RecordingError, match=r"no images on /rear; .*/rear \(0, no messages\)"):
        Annotator(tmp_path / "in", tmp_path / "other", ["x"], every=0, topic="/rear")


def test_a_topic_without_messages_costs_no_reading_through(tmp_path, monkeypatch):
    """The index says everything all the same; a bag of hours is not read twice."""
    head = [*simple(), mcap.channel(2, 1, "/rear")]
    chunk = mcap.chunk(SECOND, 3 * SECOND, camera_messages(1, 2, 3))
    start = mcap.MAGIC + mcap.record(1, mcap.text("ros2") + mcap.text("test")) + b"".join(head)
    index = mcap.record(8, struct.pack("<QQQ", SECOND, 3 * SECOND, len(start)))
    summary = [*head, index, mcap.statistics({1: 3}, chunks=1)]
    path = mcap.write_with_summary(tmp_path / "in.mcap", [*head, chunk], summary)
    monkeypatch.setattr(McapFile, "_scan", lambda *_: pytest.fail("read through"))
    with Bag(path) as bag:
        assert len(list(bag.messages())) == bag.counts["/cam"] == 3


# Stamps


@pytest.mark.parametrize("stamp", [5 * SECOND, 0])
def test_equal_stamps_are_not_one_image(tmp_path, stamp):
    """The engine's key names the image: with the stamp for a key it would see the first only."""
    moments = [(100 + number) * SECOND for number in range(3)]
    source = write(tmp_path / "in", [("/cam", moment, image(stamp)) for moment in moments])
    summary, engine, results = ask(source, tmp_path / "out", questions=["the mug", "the box"])
    assert len(results) == 6 and len(set(engine.keys)) == 3
    assert engine.keys[0] == engine.keys[1], "two questions about one image share its key"
    assert bool(summary.notes) == (stamp == 0)
    burst = write(tmp_path / "burst", [("/cam", SECOND, image(SECOND, shade=n)) for n in range(3)])
    _, engine, results = ask(burst, tmp_path / "bursts")
    assert len(results) == 3 and len(set(engine.keys)) == 3


def depth_recording(path: Path, stamps: list[tuple[int, int]], depth_at: float) -> Path:
    """Three images and depth images, recorded a second apart, the depth `depth_at` later.

    Each depth image is 100 mm farther than the one before. `stamps`: of each pair.
    """
    messages = []
    for number, (one, other) in enumerate(stamps):
        time = (100 + number) * SECOND
        messages.append(("/cam", time, image(one)))
        later = time + round(depth_at * SECOND)
        messages.append(("/depth", later, image(other, "16UC1", 500 + 100 * number)))
    info = next(message for topic, _, message in realsense() if topic.endswith("color/camera_info"))
    return write(path, [("/info", 30 * SECOND, info), *messages])  # once, long before


SECONDS = [(n * SECOND, n * SECOND) for n in (7, 8, 9)]


@pytest.mark.parametrize(
    ("stamps", "depth_at", "found"),
    [
        (SECONDS, 0.05, [0.5, 0.6, 0.7]),
        (SECONDS, 0.9, [0.5, 0.6, 0.7]),  # the recorder was slow: the stamps count
        (SECONDS, 4.3, [0.5, 0.6, 0.7]),
        ([(one, other + SECOND // 2) for one, other in SECONDS], 0.05, [None] * 3),
        ([(0, 0)] * 3, 0.05, [0.5, 0.6, 0.7]),
        ([(0, 0)] * 3, 0.5, [None] * 3),
        ([(7, 7)] * 3, 0.05, [0.5, 0.6, 0.7]),  # a clock that stands
        ([(one, 0) for one, _ in SECONDS], 0.05, [0.5, 0.6, 0.7]),
    ],
)
def test_the_depth_image_of_an_image(tmp_path, stamps, depth_at, found):
    source = depth_recording(tmp_path / "in", stamps, depth_at)
    _, _, results = ask(source, tmp_path / "out", depth="/depth")
    places = [result.instances[0] for result in results]
    assert [one.has_pose for one in places] == [one is not None for one in found]
    for one, distance in zip(places, found, strict=True):
        if distance is None:
            assert "no depth image within 0.1 s" in one.pose_reason
        else:
            assert one.centroid.z == pytest.approx(distance, abs=0.002)


def test_of_equal_stamps_the_time_of_recording_decides_and_must_be_near_too():
    one = Moment(7 * SECOND, 100 * SECOND)
    later = [Moment(7 * SECOND, 100 * SECOND + away) for away in (400_000_000, 50_000_000)]
    assert nearest(later, one, 0.1) == 1
    assert nearest(later[:1] * 2, one, 0.1) is None
    assert nearest([], one, 0.1) is None
