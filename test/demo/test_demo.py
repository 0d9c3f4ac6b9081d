"""The demonstration: its recording holds what is asked about, and the whole of it runs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from lisa_ros.demo.recorded_camera import (
    CAMERA_INFO,
    IMAGE,
    TRUTH,
    DemoQuestion,
    read_questions,
    read_recording,
)
from lisa_ros.model.config import SHIPPED

messages = pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

SMALLEST = 300  # pixels: less could not be asked about
QUESTIONS = read_questions()


def demo(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lisa_ros.cli", "demo", "--output", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=1500)


def test_recording_shows_what_is_asked_about() -> None:
    scenes = {scene.seed: scene for scene in read_recording()}
    assert {question.seed for question in QUESTIONS} == scenes.keys()
    for question in QUESTIONS:
        for frame in scenes[question.seed].frames:
            truth = cv2.imdecode(frame[TRUTH].data, cv2.IMREAD_UNCHANGED)
            image = cv2.imdecode(frame[IMAGE].data, cv2.IMREAD_COLOR)
            assert image.shape == (*truth.shape, 3) == (480, 640, 3)
            # Each topic has classes of its own, as its definitions are the file's.
            headers = {repr(frame[topic].header) for topic in (IMAGE, CAMERA_INFO, TRUTH)}
            assert len(headers) == 1
            for number in question.objects:
                assert (truth == number).sum() > SMALLEST, question.instruction


def test_scenes_are_not_those_of_training_or_evaluation() -> None:
    assert all(question.seed >= 9_000_000 for question in QUESTIONS)


def test_questions_are_of_different_kinds() -> None:
    assert len({question.kind for question in QUESTIONS}) >= 5
    assert {question.status for question in QUESTIONS} == {"OK", "NOT_FOUND", "TEXT_ONLY"}
    for question in QUESTIONS:
        assert bool(question.objects) == (question.status == "OK"), question.instruction


def result(status: int, box: tuple[int, int, int, int]) -> object:
    """A Segmentation of a 40x30 image with one full mask in the box x, y, width, height."""
    from array import array

    message = messages.Segmentation(status=status, width=40, height=30, error="no light")
    instance = messages.Instance()
    roi, mask = instance.roi, instance.mask
    roi.x_offset, roi.y_offset, roi.width, roi.height = box
    mask.width, mask.height, mask.step = box[2], box[3], box[2]
    mask.data = array("B", [255] * (box[2] * box[3]))
    message.instances.append(instance)
    return message


def test_masks_are_put_back_into_the_image() -> None:
    from lisa_ros.node.results.messages import full_mask

    message = result(messages.Segmentation.OK, (5, 7, 3, 2))
    whole = full_mask(message, message.instances[0])
    expected = np.zeros((30, 40), dtype=bool)
    expected[7:9, 5:8] = True
    assert (whole == expected).all()


@pytest.mark.parametrize(
    ("status", "overlap", "fault"),
    [
        ("OK", 0.8, ""),
        ("OK", 0.05, "the mask is not on the object that was meant"),
        ("MODEL_ERROR", 0.0, "status MODEL_ERROR instead of OK (no light)"),
    ],
)
def test_wrong_answers_are_noticed(status: str, overlap: float, fault: str) -> None:
    from lisa_ros.demo.demonstration import DemoReply

    question = DemoQuestion(seed=1, kind="plain", instruction="the mug", status="OK", objects=(1,))
    message = result(getattr(messages.Segmentation, status), (0, 0, 2, 2))
    assert DemoReply(question, message, np.zeros((1, 1, 3), np.uint8), overlap).fault == fault


def test_missing_model_is_named(tmp_path: Path) -> None:
    ended = demo("--model", str(tmp_path / "nothing_here"), folder=tmp_path / "out")
    assert ended.returncode == 2
    assert "nothing_here" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_place_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = demo(folder=tmp_path / "file" / "out")
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and "cannot write into the folder" in ended.stderr


def test_an_exported_domain_is_left_for_one_of_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's domain the demonstration would be answered by his robot's node."""
    import rclpy

    from lisa_ros.node.client import own_domain

    monkeypatch.setenv("ROS_DOMAIN_ID", "7")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    with own_domain() as domain:
        assert rclpy.get_default_context().get_domain_id() == domain != 7
        assert os.environ["ROS_DOMAIN_ID"] == str(domain), "for the node and the camera, too"
        assert os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] == "LOCALHOST"
        claim = "from lisa_ros.node.client import claimed_domain as c\nwith c() as it: print(it)"
        theirs = os.environ | {"ROS_DOMAIN_ID": "7"}  # another terminal of the same user
        others = subprocess.run(
            [sys.executable, "-c", claim], capture_output=True, text=True, env=theirs
        )
        assert int(others.stdout) not in (7, domain), others.stderr
    assert not rclpy.ok() and os.environ["ROS_DOMAIN_ID"] == "7"


def test_a_process_that_ends_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    from lisa_ros.node.client import NoAnswer, NodeProcess

    command = [sys.executable, "-c", "print('no lamp'); raise SystemExit(3)"]
    with NodeProcess(command, tmp_path / "log") as process:
        process.process.wait()
        with pytest.raises(NoAnswer, match=r"perception node has ended with code 3:\nno lamp"):
            process.check()


def test_what_serves_ends_with_the_demonstrations_node(tmp_path: Path) -> None:
    from lisa_ros.demo.demonstration import ended_with
    from lisa_ros.node.client import NoAnswer, NodeProcess, own_domain

    def process(code: str) -> NodeProcess:
        return NodeProcess([sys.executable, "-c", code], tmp_path / "log")

    waits = "import time; time.sleep(600)"
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    for node, camera in (("raise SystemExit(3)", waits), (waits, "raise SystemExit(3)")):
        with (
            pytest.raises(NoAnswer, match="has ended with code 3"),
            own_domain(),
            process(node) as perception,
            process(camera) as player,
            ended_with(perception, player, "lisa"),
        ):
            time.sleep(120)
    signal.signal(signal.SIGTERM, before)
    # Ctrl-C ends them together: that is no fault
    with (
        pytest.raises(KeyboardInterrupt),
        own_domain(),
        process("") as perception,
        process("") as player,
        ended_with(perception, player, "lisa"),
    ):
        perception.process.wait()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(120)


def test_a_process_that_ignores_its_signal_is_killed(tmp_path: Path) -> None:
    from lisa_ros.node.client import NodeProcess

    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf'); time.sleep(60)"
    process = NodeProcess([sys.executable, "-c", deaf], tmp_path / "log")
    while "deaf" not in process.log:
        process.check()
    assert process.end(patience=0.2) == -9


@pytest.mark.skipif(not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree")
def test_whole_demonstration(tmp_path: Path) -> None:
    (tmp_path / "holiday.png").write_bytes(b"the user's own")
    ended = demo(folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    right, of = map(int, re.search(r"(\d+) of (\d+) answers are right", ended.stdout).groups())
    assert of == len(QUESTIONS) and right >= 6, ended.stdout
    told = " ".join(ended.stdout.split())  # a long line is wrapped
    followed = re.search(r"followed through (\d+) images, its median overlap", told)
    assert followed and int(followed[1]) == 36, ended.stdout
    assert cv2.imread(str(tmp_path / "follow.jpg")).shape == (720, 1280, 3)
    assert (tmp_path / "holiday.png").read_bytes() == b"the user's own"
    images = sorted(tmp_path.glob("[0-9]*.png"))
    assert len(images) == len(QUESTIONS)
    for path in images:  # the recording's images with the words in a strip below
        height, width, _ = cv2.imread(str(path)).shape
        assert width == 640 and height > 480
