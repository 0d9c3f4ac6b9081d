"""`lisa-ros bag`: recordings of any make, annotated without a ROS graph."""

from __future__ import annotations

import io
import re
import sqlite3
import subprocess
import sys
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from depth_rig import COLOR, INFO, SEEN, check_is_the_thing, later, millimetres
from fake_engine import FakeEngine
from lisa_ros.msg import Segmentation
from node_rig import image_message
from PIL import Image as PilImage
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.rosbag2 import Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import String

from lisa_ros.cli import main
from lisa_ros.errors import LisaError
from lisa_ros.node.inputs.image_conversion import to_rgb
from lisa_ros.node.status import Status
from lisa_ros.recordings.annotate import Annotator, describe
from lisa_ros.recordings.bag import RecordingError
from lisa_ros.recordings.clip_files import open_frames

MODEL = FakeEngine()
SECOND = 10**9
DEPTH = "/cam/depth"
STORE = get_typestore(Stores.ROS2_HUMBLE)
STORE.register(get_types_from_msg("int32 gear\n", "truck_msgs/msg/Gear"))
Time = STORE.types["builtin_interfaces/msg/Time"]
Header = STORE.types["std_msgs/msg/Header"]


def camera_image(second: int, kind: str = "rgb8"):
    """What another maker's camera would have recorded."""
    header = Header(Time(second, 5), "their_camera")
    pixels = np.full((48, 64, 3), 10 * second, np.uint8)
    if kind == "jpeg":
        file = io.BytesIO()
        PilImage.fromarray(pixels).save(file, "JPEG")
        data = np.frombuffer(file.getvalue(), np.uint8)
        compressed = STORE.types["sensor_msgs/msg/CompressedImage"]
        return compressed(header, "jpeg", data)
    encoding, step, data = kind, 192, pixels.reshape(-1)
    return STORE.types["sensor_msgs/msg/Image"](header, 48, 64, encoding, 0, step, data)


def record(path, plugin=StoragePlugin.MCAP, kind="rgb8", seconds=5, two_cameras=False):
    """A bag with a camera and a topic of a type that nobody here knows."""
    name = "sensor_msgs/msg/" + ("CompressedImage" if kind == "jpeg" else "Image")
    with Writer(path, version=8, storage_plugin=plugin) as writer:
        camera = writer.add_connection("/their/camera", name, typestore=STORE)
        gear = writer.add_connection("/gear", "truck_msgs/msg/Gear", typestore=STORE)
        if two_cameras:
            rear = writer.add_connection("/rear/camera", name, typestore=STORE)
            writer.write(rear, 100 * SECOND, STORE.serialize_cdr(camera_image(0, kind), name))
        for second in range(seconds):
            data = STORE.serialize_cdr(camera_image(second, kind), name)
            writer.write(camera, 100 * SECOND + second * SECOND, data)
            number = STORE.types["truck_msgs/msg/Gear"](second)
            data = STORE.serialize_cdr(number, "truck_msgs/msg/Gear")
            writer.write(gear, 100 * SECOND + second * SECOND + 7, data)
    return path


def read(path) -> dict[str, list[tuple[int, bytes]]]:
    topics: dict[str, list[tuple[int, bytes]]] = {}
    with Reader(path) as reader:
        for connection, stamp, data in reader.messages():
            topics.setdefault(connection.topic, []).append((stamp, bytes(data)))
    return topics


@pytest.mark.parametrize("plugin", [StoragePlugin.MCAP, StoragePlugin.SQLITE3])
@pytest.mark.parametrize("kind", ["rgb8", "bgr8", "jpeg"])
@pytest.mark.parametrize("suffix", ["", ".mcap", ".db3"])
def test_recordings_come_back_with_answers(tmp_path, plugin, kind, suffix):
    source = record(tmp_path / "in", plugin, kind)
    target = tmp_path / f"out{suffix}"
    annotator = Annotator(source, target, ["the mug", "nothing"], every=2.0)
    said = [words for words in annotator.run(MODEL) if words]
    assert len(said) == 3 and annotator.total == 10
    before, after = read(source), read(target)
    assert after["/their/camera"] == before["/their/camera"]
    assert after["/gear"] == before["/gear"]
    results = [deserialize_message(data, Segmentation) for _, data in after["/lisa/mask"]]
    assert [one.status for one in results] == [Status.OK, Status.NOT_FOUND] * 3
    assert [one.header.stamp.sec for one in results] == [0, 0, 2, 2, 4, 4]
    assert [stamp for stamp, _ in after["/lisa/mask"]][::2] == [
        (100 + second) * SECOND for second in (0, 2, 4)
    ]
    assert {one.header.frame_id for one in results} == {"their_camera"}
    assert {one.source for one in results} == {Segmentation.SOURCE_RECORDING}
    masks = [deserialize_message(data, Image) for _, data in after["/lisa/mask/image"]]
    assert to_rgb(masks[0], 10_000).any() and not to_rgb(masks[1], 10_000).any()
    assert len(after["/lisa/overlay"]) == len(after["/lisa/answer"]) == 6
    assert describe(annotator.summary) == "10 messages copied, 6 answers (3 OK, 3 NOT_FOUND)"


def record_depth(path, late: float, waited: float = 0.02) -> None:
    """Colour, depth (recorded `waited` s after it, its stamp `late` s later) and camera_info."""
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        names = {"/cam/color": Image, DEPTH: Image, "/cam/info": CameraInfo}
        topics = {
            name: writer.add_connection(name, f"sensor_msgs/msg/{kind.__name__}", typestore=STORE)
            for name, kind in names.items()
        }
        writer.write(topics["/cam/info"], 99 * SECOND, serialize_message(INFO))
        for second in range(2):
            image = image_message(COLOR, (second, 5))
            depth = millimetres()
            depth.header.frame_id = image.header.frame_id
            depth.header.stamp = later(image.header, late)
            recorded = (100 + second) * SECOND
            writer.write(topics["/cam/color"], recorded, serialize_message(image))
            writer.write(topics[DEPTH], recorded + round(waited * 1e9), serialize_message(depth))


@pytest.mark.parametrize(("late", "waited"), [(0.02, 0.02), (0.4, 0.02), (0.02, 5.0)])
def test_depth_of_the_recording_places_the_objects(tmp_path, late, waited):
    """By its stamp, also where the recorder let it wait for seconds."""
    record_depth(tmp_path / "in", late, waited)
    model = FakeEngine((SEEN == 0)[None])
    with pytest.raises(RecordingError, match="no camera_info on /nowhere"):
        Annotator(
            tmp_path / "in", tmp_path / "x", ["it"], every=0, depth="/cam/depth", info="/nowhere"
        )
    target = tmp_path / "out.mcap"
    list(Annotator(tmp_path / "in", target, ["it"], every=0, depth="/cam/depth").run(model))
    results = [deserialize_message(data, Segmentation) for _, data in read(target)["/lisa/mask"]]
    assert len(results) == 2
    for result in results:
        [one] = result.instances
        if late < 0.1:
            check_is_the_thing(one)
        else:
            assert "no depth image within 0.1 s" in one.pose_reason and one.area


def test_recordings_without_type_descriptions_as_humble_makes_them(tmp_path):
    source = record(tmp_path / "in", StoragePlugin.SQLITE3)
    [database] = source.glob("*.db3")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("DELETE FROM message_definitions")
        connection.execute("UPDATE topics SET type_description_hash = ''")
        connection.commit()
    metadata = source / "metadata.yaml"
    hashes = r"type_description_hash:\s*\S+"
    metadata.write_text(re.sub(hashes, "type_description_hash: ''", metadata.read_text()))
    annotator = Annotator(source, tmp_path / "out.mcap", ["the mug"], every=0)
    list(annotator.run(MODEL))
    after = read(tmp_path / "out.mcap")
    assert len(after["/their/camera"]) == len(after["/lisa/mask"]) == 5
    assert annotator.summary.left_out == {"of unknown type": ["/gear"]}
    assert describe(annotator.summary).endswith("not copied, of unknown type: /gear")


def test_the_result_describes_its_own_types(tmp_path):
    from rosbags.highlevel import AnyReader

    target = tmp_path / "out.mcap"
    list(Annotator(record(tmp_path / "in"), target, ["the mug"], every=0).run(MODEL))
    with AnyReader([target]) as reader:
        [connection] = [one for one in reader.connections if one.topic == "/lisa/mask"]
        for one, _, data in reader.messages(connections=[connection]):
            message = reader.deserialize(data, one.msgtype)
            assert message.answer == "Sure, it is here." and message.instances[0].area == 768


def test_what_the_model_is_not_sure_of_is_left_out_as_by_the_node(tmp_path):
    source = record(tmp_path / "in", seconds=1)
    for least, status in ((None, Status.NOT_FOUND), (0.1, Status.OK)):
        target, more = tmp_path / f"out{least}", {} if least is None else {"least_score": least}
        list(Annotator(source, target, ["the mug score:0.2"], every=0, **more).run(MODEL))
        topics = read(target)
        result = deserialize_message(topics["/lisa/mask"][0][1], Segmentation)
        mask = to_rgb(deserialize_message(topics["/lisa/mask/image"][0][1], Image), 10_000)
        said = deserialize_message(topics["/lisa/answer"][0][1], String).data
        found = status == Status.OK
        assert (result.status, len(result.instances), mask.any()) == (status, found, found)
        assert ("score of 0.20" in said) != found
    with pytest.raises(LisaError, match="--score-min must be from 0 to 1, it is 25"):
        Annotator(source, tmp_path / "no", ["it"], every=0, least_score=25.0)


def test_mode_and_length_reach_the_model(tmp_path):
    asked = []

    class Asked(FakeEngine):
        def stream(self, image, instruction, **options):
            asked.append((options["mode"], options["max_new_tokens"]))
            return super().stream(image, instruction, **options)

    source, model = record(tmp_path / "in", seconds=2), Asked()
    run = Annotator(source, tmp_path / "out", ["it"], every=0, mode="explain", max_new_tokens=7)
    list(run.run(model))
    assert asked == [("explain", 7)] * 2
    [result, _] = [
        deserialize_message(data, Segmentation) for _, data in read(tmp_path / "out")["/lisa/mask"]
    ]
    assert result.mode == "explain"


def test_an_annotated_recording_can_be_annotated_again(tmp_path):
    first, second = tmp_path / "first.mcap", tmp_path / "second.mcap"
    list(Annotator(record(tmp_path / "in"), first, ["the mug"], every=0).run(MODEL))
    list(Annotator(first, second, ["nothing"], every=4.0).run(MODEL))
    results = [deserialize_message(data, Segmentation) for _, data in read(second)["/lisa/mask"]]
    assert [one.query for one in results] == ["nothing", "nothing"]


def test_broken_images_are_answered_with_a_reason(tmp_path):
    source = tmp_path / "in"
    with Writer(source, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        name = "sensor_msgs/msg/Image"
        camera = writer.add_connection("/camera", name, typestore=STORE)
        image = camera_image(1)
        image.data = image.data[:100]
        writer.write(camera, SECOND, STORE.serialize_cdr(image, name))
    target = tmp_path / "out.mcap"
    list(Annotator(source, target, ["the mug"], every=1.0).run(MODEL))
    [(_, data)] = read(target)["/lisa/mask"]
    result = deserialize_message(data, Segmentation)
    assert result.status == Status.REJECTED and "ends early" in result.error


def test_what_cannot_be_done_is_said(tmp_path):
    good = record(tmp_path / "good", two_cameras=True)
    with pytest.raises(RecordingError, match=r"--image; .* /rear/camera \(1, colour\), /their/c"):
        Annotator(good, tmp_path / "out", ["x"], every=1.0)
    with pytest.raises(RecordingError, match="choose the camera with --topic"), open_frames(good):
        pass
    with pytest.raises(RecordingError, match="no images on /nowhere"):
        Annotator(good, tmp_path / "out", ["x"], every=1.0, topic="/nowhere")
    with pytest.raises(RecordingError, match="exists already"):
        Annotator(good, good, ["x"], every=1.0)
    with pytest.raises(RecordingError, match="does not exist"):
        Annotator(tmp_path / "missing.mcap", tmp_path / "out", ["x"], every=1.0)
    damaged = tmp_path / "damaged.mcap"
    damaged.write_bytes(next(good.glob("*.mcap")).read_bytes()[:200])
    with pytest.raises(RecordingError):
        Annotator(damaged, tmp_path / "out", ["x"], every=1.0)
    assert not (tmp_path / "out").exists()


def test_lines_of_the_command_are_not_wrapped_in_a_file(tmp_path, monkeypatch, capsys):
    """rich takes a file for a terminal of 80 columns."""
    monkeypatch.setattr(FakeEngine, "modes", ("auto",), raising=False)
    monkeypatch.setattr("lisa_ros.engine.load.load_engine", lambda **_: MODEL)
    source, out = record(tmp_path / "in", seconds=1), tmp_path / f"{'long_' * 30}name"
    assert main(["bag", str(source), "--query", f"the {'red ' * 20}mug", "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert f"{out}: 2 messages copied, 1 answer (1 OK)" in said
    assert max(map(len, said[:-1])) > 80, said


def test_the_command_speaks_before_it_loads_a_model(tmp_path):
    command = [sys.executable, "-m", "lisa_ros.cli", "bag", str(tmp_path / "no.mcap")]
    command += ["--query", "x", "--out", str(tmp_path / "out.mcap")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 2
    assert "no.mcap" in done.stderr and "Traceback" not in done.stderr
