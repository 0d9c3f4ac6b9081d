"""A whole clip: read exactly from any place, the best of the answers taken, carried both ways.

The engine and the follower are stand-ins that see red; what is tested lies between them.
"""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from lisa_ros.cli import main
from lisa_ros.demo.recorded_camera import IMAGE, read_recording
from lisa_ros.engine.answer import Answer, AnswerStatus, Instance
from lisa_ros.errors import ServerError
from lisa_ros.recordings import clip_files
from lisa_ros.recordings.clip_files import VideoError, open_frames
from lisa_ros.recordings.video import choose_answer, follow_video, key_frames
from lisa_ros.tracking.follow import Follower
from lisa_ros.tracking.lisa import LisaTracker
from lisa_ros.tracking.tracker import Track, TrackState

FRAMES, SIZE = 40, (160, 120)


def place(index: int) -> tuple[int, int]:
    return 20 + 3 * index, 60


def frame(index: int) -> np.ndarray:
    """A red disc that moves to the right on grey; it hides in frames 18 and 19."""
    image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    if index not in (18, 19):
        cv2.circle(image, place(index), 12, (230, 20, 20), -1)
    return image


def red(rgb: np.ndarray) -> np.ndarray:
    return (rgb[..., 0] > 160) & (rgb[..., 1] < 90)


def answer(*labels: str, score: float = 0.8, mask: np.ndarray | None = None) -> Answer:
    mask = np.ones((2, 2), bool) if mask is None else mask
    found = [Instance(mask, score, 1.0, one) for one in labels]
    status = AnswerStatus.OK if found else AnswerStatus.NOT_FOUND
    text = f"It is {labels[0]} [SEG]." if labels else "There is none."
    return Answer(text, status, found)


class SeesRed:
    """Engine and follower in one: finds the disc wherever it is red."""

    asked, fault = 0, ""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def segment_batch(self, questions):
        self.batches.append(len(questions))
        return [
            # the further right it stands, the surer
            answer("the red disc", mask=mask, score=0.5 + np.nonzero(mask)[1].mean() / 400)
            if (mask := red(q.image)).any()
            else answer()
            for q in questions
        ]

    def begin(self, image, *, instances, **_):
        assert instances
        return self.update(image)

    def update(self, image, **_):
        mask = red(image)
        state = TrackState.VISIBLE if mask.any() else TrackState.OCCLUDED
        return [Track(1, "the red disc", mask, (0, 0, 0, 0), 0.9, state, 0.0, 0.0)]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> dict[str, Path]:
    """The same clip as MP4 with long groups of pictures, as Matroska, and as images."""
    folder = tmp_path_factory.mktemp("clips")
    paths = {name: folder / f"clip.{name}" for name in ("mp4", "mkv", "avi", "images")}
    for name in ("mp4", "mkv", "avi"):
        first = {"movflags": "faststart"} if name == "mp4" else {}
        with av.open(str(paths[name]), "w", options=first) as container:
            stream = container.add_stream("libx264", rate=20, options={"g": "16", "bf": "2"})
            stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
            for index in range(FRAMES):
                image = av.VideoFrame.from_ndarray(frame(index), format="rgb24")
                container.mux(stream.encode(image))
            container.mux(stream.encode())
    paths["images"].mkdir()
    for index in range(FRAMES):
        Image.fromarray(frame(index)).save(paths["images"] / f"{index:03d}.png")
    return paths


@pytest.mark.parametrize("kind", ["mp4", "mkv", "images"])
def test_every_frame_gets_its_own_mask(clips, kind, monkeypatch):
    monkeypatch.setattr(
        clip_files, "MEMORY", 7 * SIZE[0] * SIZE[1] * 3
    )  # backwards by seven frames
    pieces = []
    read = clip_files.FrameSource.read
    monkeypatch.setattr(
        clip_files.FrameSource, "read", lambda self, a, b: pieces.append((a, b)) or read(self, a, b)
    )
    engine = SeesRed()
    with open_frames(clips[kind]) as source:
        found = follow_video(engine, source, "the red disc", lambda: engine, keys=5)
        assert len(found.masks) == len(source.times) == FRAMES
        assert source.changes[0] == 0.0 < source.changes[1]
        assert engine.batches == [5]  # the key frames together
        assert found.chosen is not None and found.chosen > 30
        backwards = [(a, b) for a, b in pieces if b <= found.chosen + 1 and b - a > 1]
        assert backwards and [b - a for a, b in backwards][:4] == [7] * 4
        for index in range(FRAMES):
            [mask] = found.decoded(index)
            [(_, _, state, _)] = found.masks[index]
            if index in (18, 19):
                assert not mask.any() and state == "occluded"
                continue
            rows, columns = np.nonzero(mask)
            assert (columns.mean(), rows.mean()) == pytest.approx(place(index), abs=0.8), index


def test_things_keep_their_numbers_and_questions_are_counted_both_ways(tmp_path):
    """With a real follower; the disc is hidden at both ends of the clip."""

    class Asked(SeesRed):
        def segment(self, image, instruction, **_):
            instructions.append(instruction)
            return answer()

    for index in range(20):
        image = np.full((SIZE[1], SIZE[0], 3), 200, np.uint8)
        if 4 < index < 15:
            cv2.circle(image, place(index), 12, (230, 20, 20), -1)
        Image.fromarray(image).save(tmp_path / f"{index:03d}.png")
    engine, instructions, followers = Asked(), [], []

    def follower() -> Follower:
        followers.append(Follower(engine, LisaTracker(None)))
        return followers[-1]

    with open_frames(tmp_path) as source:
        found = follow_video(engine, source, "the red disc", follower, keys=3)
    assert 4 < found.chosen < 15 and found.labels == {1: "the red disc"}
    shown = [(number, state) for [(number, _, state, _)] in found.masks]
    hidden, seen = (1, "occluded"), (1, "visible")
    assert shown == [hidden] * 5 + [seen] * 10 + [hidden] * 5
    assert found.asked_again == len(instructions) == 2
    # backwards time passes as well
    passed = [one.tracker.clock for one in followers]
    assert passed == pytest.approx([(19 - found.chosen) / 15, found.chosen / 15])


def test_backwards_through_a_stream_decodes_no_more_than_some_times_its_frames(
    tmp_path, monkeypatch
):
    """In MPEG-TS a seek lands behind its frame; each piece was decoded from the beginning."""
    path, count, decoded = tmp_path / "long.ts", 300, []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"g": "16", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for index in range(count):
            image = av.VideoFrame.from_ndarray(frame(index % FRAMES), format="rgb24")
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    monkeypatch.setattr(clip_files, "MEMORY", 20 * SIZE[0] * SIZE[1] * 3)
    frames = clip_files.FileFrames._frames

    def counted(source, stamp=None):
        for one in frames(source, stamp):
            decoded.append(one.pts)
            yield one

    monkeypatch.setattr(clip_files.FileFrames, "_frames", counted)
    with open_frames(path) as source:
        source.scan(lambda *_: None)
        forwards = list(source.read(0, count))
        decoded.clear()
        backwards = list(source.backwards(count - 1))
    assert len(decoded) < 5 * count
    assert all(np.array_equal(a, b) for a, b in zip(forwards[::-1], backwards, strict=True))


def test_key_frames_are_even_and_go_where_things_change():
    assert key_frames([0.0] * 100, 4) == [12, 37, 62, 87]
    still = [0.0] * 50 + [1.0] * 10 + [0.0] * 40
    assert sum(50 <= key < 60 for key in key_frames(still, 8)) >= 3
    assert key_frames([0.0] * 3, 8) == [0, 1, 2]


def test_the_surest_of_those_that_agree_is_taken():
    mug, cup = ("the mug",), ("the cup",)
    answers = [
        answer(),
        answer(*cup, score=0.95),
        answer(*mug, score=0.6),
        answer(*mug, score=0.7),
    ]
    assert choose_answer(answers) == 3
    assert choose_answer(answers[:3]) == 1
    assert choose_answer([answer(), answer()]) is None
    # several things: an answer is as sure as its least sure mask
    both = ("the mug", "the spoon")
    assert choose_answer([answer(*both, score=0.4), answer(*both, score=0.5)]) == 1


def test_the_command_writes_video_and_run_lengths(clips, tmp_path, monkeypatch, capsys):
    engine = SeesRed()
    monkeypatch.setattr("lisa_ros.engine.load.load_engine", lambda **_: engine)
    monkeypatch.setattr("lisa_ros.tracking.follow.Follower", lambda *_: engine)
    files = {"--out": tmp_path / "out.mp4", "--json": tmp_path / "out.json"}
    options = [str(one) for pair in files.items() for one in pair]
    assert main(["video", str(clips["mp4"]), "the red disc", *options]) == 0
    said = capsys.readouterr().out
    assert "seen in 38 of 40 frames" in said
    data = json.loads(files["--json"].read_text())
    assert (data["status"], data["things"]) == ("OK", [{"id": 1, "label": "the red disc"}])
    last = data["frames"][-1]
    assert last["time"] == pytest.approx(39 / 20, abs=1e-3)
    mask = coco.decode(last["masks"][0]["segmentation"])
    assert mask.shape == (120, 160) and mask[60, place(39)[0]] == 1
    with av.open(str(files["--out"])) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES
    assert main(["video", str(clips["images"]), "x", "--out", str(tmp_path / "small.gif")]) == 0
    animation = Image.open(tmp_path / "small.gif")
    assert 15 <= animation.n_frames <= 25 and animation.info["loop"] == 0
    assert animation.info["duration"] == pytest.approx(2000 / 15, abs=10)
    assert animation.size == (320, 240)
    monkeypatch.setattr(engine, "segment_batch", lambda questions: [answer()] * len(questions))
    assert main(["video", str(clips["mp4"]), "the red disc", "--keys", "1"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("answer ") and "NOT_FOUND" in said
    assert re.search(r"^asked     about frame \d+$", said, re.MULTILINE)


@pytest.mark.parametrize("kind", ["mp4", "mkv", "avi"])
def test_a_cut_file_is_followed_as_far_as_it_goes(clips, kind, tmp_path, monkeypatch, capsys):
    engine, cut = SeesRed(), tmp_path / f"cut.{kind}"
    monkeypatch.setattr("lisa_ros.engine.load.load_engine", lambda **_: engine)
    monkeypatch.setattr("lisa_ros.tracking.follow.Follower", lambda *_: engine)
    whole = clips[kind].read_bytes()
    cut.write_bytes(whole[: int(len(whole) * 0.7)])
    command = ["video", str(cut), "the red disc", "--keys", "3", "--json"]
    assert main([*command, str(tmp_path / "cut.json")]) == 1
    data = json.loads((tmp_path / "cut.json").read_text())
    frames = len(data["frames"])
    assert 5 < frames < FRAMES and all(one["masks"] for one in data["frames"])
    [fault] = data["faults"]
    assert fault.startswith(f"it breaks off after {frames} frames")
    assert "of 2.0 s" in fault or "frames of 40" in fault
    assert f"missing   {fault}" in capsys.readouterr().out
    with open_frames(clips[kind]) as source:
        source.scan(lambda *_: None)
    assert not source.faults and len(source.times) == FRAMES


def test_what_is_found_is_named_by_the_models_own_words(tmp_path):
    """The shipped model, about what `lisa-ros demo` plays; the instruction names nothing."""
    [scene, *_] = read_recording()
    file = scene.frames[0][IMAGE].data.tobytes()
    for index in range(4):
        (tmp_path / f"{index}.jpg").write_bytes(file)
    data, words = tmp_path / "out.json", "something to drink from"
    assert main(["video", str(tmp_path), words, "--keys", "2", "--json", str(data)]) == 0
    found = json.loads(data.read_text())
    [thing, *_] = found["things"]
    assert found["text"] and thing["label"] in found["text"] and thing["label"] != words


def test_a_server_that_goes_away_is_no_thing_that_is_hidden(clips):
    engine = SeesRed()
    engine.fault = "the server does not answer"
    with open_frames(clips["mp4"]) as source, pytest.raises(ServerError, match="does not answer"):
        follow_video(engine, source, "the red disc", lambda: engine)


def test_damaged_and_other_images_are_said(clips, tmp_path):
    for index in range(4):
        Image.fromarray(frame(index)).save(tmp_path / f"{index}.png")
    (tmp_path / "0.png").write_text("no image")
    Image.fromarray(frame(3)).resize((80, 60)).save(tmp_path / "3.png")
    engine = SeesRed()
    with open_frames(tmp_path) as source:
        found = follow_video(engine, source, "the red disc", lambda: engine)
        shapes = {rgb.shape for rgb in source.read(0, 3)}
    assert len(found.masks) == 3
    assert any("0.png" in one for one in source.faults)
    assert any("another size" in one for one in source.notes)
    assert shapes == {(SIZE[1], SIZE[0], 3)}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("b.mp4", "libx264", {"bf": "3"}),
        ("open.mp4", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
        ("b.mkv", "libx264", {"bf": "3"}),
        ("b.ts", "libx264", {"bf": "2"}),
        ("b.mpg", "mpeg2video", {"bf": "2"}),
        ("b.avi", "libx264", {"bf": "3"}),  # its stamps go back and forth
        ("b.flv", "libx264", {"bf": "2"}),
        ("raw.h264", "libx264", {}),  # no stamps, no seeking
        ("b.gif", "gif", {}),
    ],
)
def test_a_frame_by_itself_is_that_of_the_whole_pass(tmp_path, name, codec, options):
    path, count = tmp_path / name, 48
    random = np.random.default_rng(0)
    ground = random.integers(0, 256, (64, 96, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.gop_size = 96, 64, 12
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for index in range(count):
            image = cv2.blur(np.roll(ground, 3 * index, 1), (5, 5))
            cv2.putText(image, str(index), (8, 50), 0, 1.5, (255, 255, 255), 3)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        plain = [one.to_ndarray(format="rgb24") for one in container.decode(video=0)]
    with open_frames(path) as source:
        source.scan(lambda *_: None)
        assert len(plain) == len(source.times) == count
        assert np.diff(source.times) == pytest.approx(1 / 25, abs=0.011)
        for index in range(count):
            [one] = source.read(index, index + 1)
            assert np.array_equal(one, plain[index]), index
        rest = list(source.read(7, count + 9))
        assert all(np.array_equal(a, b) for a, b in zip(rest, plain[7:], strict=True))
        assert list(source.read(count, count + 1)) == []
        assert not source.faults


def test_what_is_decoded_otherwise_after_a_seek_is_read_from_the_beginning(clips, monkeypatch):
    """A stand-in for a codec whose key frames are none, all stamps as they should be."""
    from_stamp = []

    def frames(self, stamp=None, plain=clip_files.FileFrames._frames):
        for one in plain(self, stamp):
            image = one.to_ndarray(format="rgb24")
            if stamp is not None:
                from_stamp.append(one.pts)
                image[:] = 0
            yield SimpleNamespace(
                pts=one.pts, time=one.time, to_ndarray=lambda format, it=image: it
            )

    monkeypatch.setattr(clip_files.FileFrames, "_frames", frames)
    with open_frames(clips["mp4"]) as source:
        source.scan(lambda *_: None)
        every = list(source.read(0, FRAMES))
        rest = list(source.read(30, FRAMES))
    assert from_stamp and np.array_equal(rest, every[30:])


def test_a_phones_video_stands_upright(clips, tmp_path):
    """Stored lying, with a quarter to the right beside it."""
    whole = bytearray(clips["mp4"].read_bytes())
    matrix = whole.index(b"tkhd") + 44
    turn = [0, 1 << 16, 0, -1 << 16, 0, 0, SIZE[1] << 16, 0, 1 << 30]
    whole[matrix : matrix + 36] = np.array(turn, ">i4").tobytes()
    (tmp_path / "phone.mp4").write_bytes(whole)
    with open_frames(clips["mp4"]) as lying, open_frames(tmp_path / "phone.mp4") as upright:
        for source in (lying, upright):
            source.scan(lambda *_: None)
        assert upright.size == (SIZE[0], SIZE[1])
        for was, now in zip(lying.read(25, 28), upright.read(25, 28), strict=True):
            assert np.array_equal(now, np.rot90(was, -1))


def test_a_file_that_shrinks_while_it_is_read_is_said(clips, tmp_path):
    copy = tmp_path / "clip.mkv"
    copy.write_bytes(clips["mkv"].read_bytes())
    with open_frames(copy) as source:
        source.scan(lambda *_: None)
        copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
        with pytest.raises(VideoError, match="40 frames at first, and now only"):
            list(source.read(0, FRAMES))


def no_frames(folder: Path) -> Path:
    path = folder / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        container.start_encoding()
    return path


def sound_only(folder: Path) -> Path:
    path = folder / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    return path


def unknown_codec(folder: Path) -> Path:
    path = folder / "codec.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, SIZE)
    for index in range(3):
        writer.write(frame(index))
    writer.release()
    path.write_bytes(path.read_bytes().replace(b"MJPG", b"ZZ9Z"))
    return path


def no_video(folder: Path) -> Path:
    path = folder / "words.mp4"
    path.write_text("words")
    return path


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (no_frames, "no frames|cannot be read as video"),
        (sound_only, "holds no video"),
        (unknown_codec, "no decoder"),
        (no_video, "cannot be read as video"),
        (empty_folder, "holds no images"),
        (lambda folder: folder / "absent.mp4", "there is no clip"),
    ],
)
def test_what_is_no_clip_is_one_sentence(tmp_path, make, words):
    engine = SeesRed()
    with pytest.raises(VideoError, match=words), open_frames(make(tmp_path)) as source:
        follow_video(engine, source, "the red disc", lambda: engine)


def test_the_images_of_a_bag_are_a_clip():
    recording = Path(clip_files.__file__).parents[1] / "demo" / "tabletop.mcap"
    with open_frames(recording) as source:
        source.scan(lambda *_: None)
        assert len(source.times) > 1 and min(np.diff(source.times)) >= 0
        middle = len(source.times) // 2
        [one] = source.read(middle, middle + 1)
        every = list(source.read(0, len(source.times)))
        assert np.array_equal(one, every[middle])
        back = list(source.backwards(middle))
        assert all(np.array_equal(a, b) for a, b in zip(back, every[middle::-1], strict=True))


def test_a_damaged_image_of_a_bag_costs_itself(tmp_path):
    store, kind = get_typestore(Stores.ROS2_JAZZY), "sensor_msgs/msg/Image"
    types = store.types
    with Writer(tmp_path / "in", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        camera = writer.add_connection("/cam", kind, typestore=store)
        for second in range(5):
            stamp = types["builtin_interfaces/msg/Time"](sec=second, nanosec=0)
            header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="cam")
            data = np.full(48 * 64 * 3, 10 * second, np.uint8)
            encoding = "16SC9" if second == 3 else "rgb8"
            image = types[kind](header, 48, 64, encoding, 0, 192, data)
            raw = bytes(store.serialize_cdr(image, kind))
            writer.write(camera, (70 + second) * 10**9, raw[:60] if second == 2 else raw)
    with open_frames(tmp_path / "in") as source:
        source.scan(lambda *_: None)
        assert source.times == [0, 1, 4]
        assert [int(rgb[0, 0, 0]) for rgb in source.read(0, 9)] == [0, 10, 40]
        assert len(source.faults) == 2 and "16SC9" in source.faults[0]


def test_options_are_checked_before_the_model_is_loaded(clips, tmp_path, capsys):
    assert main(["video", str(clips["mp4"]), "x", "--out", str(tmp_path / "x.webm")]) == 2
    assert "must end in .mp4 or .gif" in capsys.readouterr().err
    assert main(["video", str(clips["mp4"]), "x", "--keys", "0"]) == 2
    copy = tmp_path / "clip.mp4"
    copy.write_bytes(clips["mp4"].read_bytes())
    same = str(tmp_path / "same.mp4")
    for options, words in (
        (["--out", same, "--json", same], "something else is written"),
        (["--out", str(copy)], "which is read"),
        (["--sam2", str(tmp_path)], "--tracker sam2 as well"),
        (["--tracker", "sam2"], "needs --sam2 DIR"),
        (["--topic", "/camera"], "has no topic /camera"),
    ):
        assert main(["video", str(copy), "x", *options]) == 2
        assert words in capsys.readouterr().err
    assert copy.read_bytes() == clips["mp4"].read_bytes()
