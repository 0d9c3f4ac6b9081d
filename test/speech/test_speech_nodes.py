"""`lisa-ros listen` and `lisa-ros speak` beside a perception node."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from lisa_ros.msg import Segmentation
from node_rig import WAIT, Process, Rig, drawn_image, rig, wait_for
from std_msgs.msg import Bool, String
from voices import needs_voice, write_wav

from benchmarks.speech import say
from lisa_ros.cli import main
from lisa_ros.speech.audio import AudioError
from lisa_ros.speech.listen import LATCHED, Listener
from lisa_ros.speech.recognizer import Heard

LISA = [sys.executable, "-m", "lisa_ros.cli"]


@pytest.fixture(scope="module")
def robot() -> Iterator[Rig]:
    with rig() as made:
        made.start()
        made.film(10.0, drawn_image(160, 120))
        yield made


def spoken(path: Path, *texts: str) -> Path:
    """A WAV file in which these are said, a second apart."""
    parts, rate = [], 22_050
    for text in texts:
        samples, rate = say(text, "en-us", 150)
        parts += [samples, np.zeros(rate, np.float32)]
    return write_wav(path, np.concatenate(parts), rate)


@needs_voice
def test_a_file_is_heard_and_its_instruction_answered(robot: Rig, tmp_path: Path) -> None:
    path = spoken(tmp_path / "said.wav", "Find the red mug.", "The train leaves at nine in May.")
    before = len(robot.results)
    process = Process([*LISA, "listen", "--wav", str(path)], robot.domain)
    robot.processes.append(process)
    result = wait_for(lambda: robot.results[before:], "the answer")[0]
    assert result.query == "find the red mug" and result.status == Segmentation.OK
    assert process.process.wait(WAIT) == 1, process.log
    assert "1 of 2 sentences not understood surely enough" in process.log
    assert len(robot.results) == before + 1, "the other sentence was not asked"
    assert "not sure" in process.log, "it was asked to be said again"


class Parrot:
    """A recogniser that hears what it is told to."""

    def __init__(self, *heard: Heard) -> None:
        self.heard = list(heard)

    def recognise(self, samples: np.ndarray, rate: int) -> Heard:
        return self.heard.pop(0)


class Always:
    """A detector to which everything loud is speech."""

    def __call__(self, block: np.ndarray) -> float:
        return float(np.abs(block).max() > 0.1)

    def reset(self) -> None:
        pass


def sound(*seconds: float) -> Iterator[np.ndarray]:
    """Speech and silence by turns."""
    for number, length in enumerate(seconds):
        for _ in range(round(length * 16_000 / 512)):
            yield np.full(512, 0.0 if number % 2 else 0.5, np.float32)


@pytest.fixture
def listener(robot: Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """In the test's own process, with a recogniser of the test."""
    monkeypatch.setattr("lisa_ros.speech.listen.load_detector", lambda: (Always(), "test"))
    node = robot.do(lambda: Listener(Parrot(), namespace="ears", context=robot.context))
    robot.do(lambda: robot.executor.add_node(node))
    yield node
    robot.do(lambda: robot.executor.remove_node(node))
    robot.do(node.destroy_node)


def test_what_is_not_sure_is_asked_again(robot: Rig, listener: Listener) -> None:
    with (
        robot.hearing(String, "/ears/query") as asked,
        robot.hearing(String, "/ears/speech/say") as again,
        robot.hearing(String, "/ears/speech/text") as text,
    ):
        listener._recognizer = Parrot(
            Heard("the red mug", 0.9, True), Heard("the mud", 0.1, False), Heard("", 0.0, False)
        )
        assert listener.hear(sound(1, 1, 1, 1, 1, 1)) == 2
        wait_for(lambda: len(text) == 2 and again, "what was heard")
        assert [one.data for one in asked] == ["the red mug"]
        assert [one.data for one in again] == ["Sorry, I did not understand. Please say it again."]


def test_a_file_is_not_played_where_nobody_can_be_asked(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lisa_ros.speech.listen.ASKED_LIMIT", 0.2)
    with pytest.raises(AudioError, match=r"nobody hears /ears/query.* start `lisa-ros node`"):
        listener.recording(np.full(8_000, 0.5, np.float32))


def test_of_a_recording_not_one_sample_is_lost(robot: Rig, listener: Listener) -> None:
    said = np.random.default_rng(0).normal(0, 0.1, 8_191).astype(np.float32)
    with robot.hearing(String, "/ears/query"):
        heard = np.concatenate(list(listener.recording(said)))
    assert np.array_equal(heard[: len(said)], said)


def test_a_topic_without_sound_is_one_sentence(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lisa_ros.speech.listen.TOPIC_LIMIT", 0.2)
    with pytest.raises(AudioError, match="nobody publishes sound on /ears/audio"):
        next(listener.topic("audio", 16_000, 1))
    with pytest.raises(AudioError, match="std_msgs/msg/String is no sound"):
        next(listener.topic("query", 16_000, 1))


def test_noise_and_silence_in_a_file_are_a_sentence_and_an_exit_code(
    robot: Rig, tmp_path: Path
) -> None:
    noise = np.random.default_rng(0).normal(0, 0.05, 32_000)
    path = write_wav(tmp_path / "noise.wav", np.concatenate([noise, np.zeros(16_000)]), 16_000)
    process = Process([*LISA, "listen", "--wav", str(path)], robot.domain)
    robot.processes.append(process)
    assert process.process.wait(WAIT) == 1, process.log
    assert f"nobody says anything in {path}" in process.log


@pytest.mark.parametrize(
    ("words", "sure", "code", "sentence", "wake"),
    [
        ("the red mug", True, 0, "heard (0.50)", ""),
        ("the red mug", False, 1, "nothing was understood", ""),
        ("the red mug", True, 1, "nobody says the wake word 'hey robot'", "hey robot"),
        ("hey robot the red mug", True, 0, "heard (0.50)", " Hey Robot"),
        ("hey robot", True, 1, "nothing was understood", "hey robot"),
    ],
)
def test_a_file_ends_with_0_where_all_of_it_was_asked(
    robot: Rig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
    words: str,
    sure: bool,
    code: int,
    sentence: str,
    wake: str,
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(robot.domain))
    monkeypatch.setattr("lisa_ros.speech.listen.load_detector", lambda: (Always(), "test"))
    parrot = Parrot(Heard(words, 0.5, sure))
    monkeypatch.setattr("lisa_ros.speech.recognizer.load_recognizer", lambda model: parrot)
    path = write_wav(tmp_path / "said.wav", np.full(16_000, 0.5), 16_000)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert main(["listen", "--wav", str(path), "--wake-word", wake]) == code
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert sentence in capfd.readouterr().err


def test_a_wake_word_must_come_first(robot: Rig, listener: Listener) -> None:
    with robot.hearing(String, "/ears/query") as asked:
        listener._wake_word = "robot"
        listener._recognizer = Parrot(
            Heard("the red mug", 0.9, True), Heard("robot the blue mug", 0.9, True)
        )
        assert listener.hear(sound(1, 1, 1, 1)) == 1
        wait_for(lambda: asked, "the instruction")
        assert [one.data for one in asked] == ["the blue mug"]
        assert listener.not_called == 1

        listener._wake_word = "hey robot"
        listener._recognizer = Parrot(
            Heard("hey you the red mug", 0.9, True), Heard("Hey, robot, the green mug", 0.9, True)
        )
        assert listener.hear(sound(1, 1, 1, 1)) == 1
        wait_for(lambda: len(asked) == 2, "the second instruction")
        assert asked[1].data == "the green mug"


def test_it_is_deaf_while_the_voice_speaks(robot: Rig, listener: Listener) -> None:
    speaking = robot.do(lambda: robot.node.create_publisher(Bool, "/ears/speech/speaking", LATCHED))
    speaking.publish(Bool(data=True))
    wait_for(lambda: listener.deaf, "the listener to hear of it")
    assert listener.hear(sound(1, 1)) == 0
    speaking.publish(Bool(data=False))
    wait_for(lambda: not listener.deaf, "the listener to hear again")
    listener._recognizer = Parrot(Heard("the red mug", 0.9, True))
    assert listener.hear(sound(1, 1)) == 1
    robot.do(lambda: robot.node.destroy_publisher(speaking))


def test_the_voice_says_the_newest_and_is_silent_while_somebody_speaks(
    robot: Rig, tmp_path: Path
) -> None:
    voice = tmp_path / "voice.py"
    said = tmp_path / "said.txt"
    voice.write_text(
        "import sys, time\n"
        "text = sys.stdin.read()\n"
        "text == 'broken' and sys.exit('no sound device')\n"
        f"open({str(said)!r}, 'a').write(text + ' begun\\n')\n"
        "time.sleep(60 if 'long' in text else 0)\n"
        f"open({str(said)!r}, 'a').write(text + ' ended\\n')\n"
    )
    command = f"{sys.executable} {voice}"
    process = Process([*LISA, "speak", "--command", command, "--namespace", "mouth"], robot.domain)
    robot.processes.append(process)
    answer = robot.do(lambda: robot.node.create_publisher(String, "/mouth/answer", 10))
    listening = robot.do(
        lambda: robot.node.create_publisher(Bool, "/mouth/speech/listening", LATCHED)
    )

    def lines() -> list[str]:
        process.check()
        return said.read_text().splitlines() if said.exists() else []

    with robot.hearing(Bool, "/mouth/speech/speaking", LATCHED) as speaking:
        wait_for(answer.get_subscription_count, "the voice")
        time.sleep(0.3)
        answer.publish(String(data="broken"))
        wait_for(lambda: "cannot speak: no sound device" in process.log, "why nothing is said")
        answer.publish(String(data="long one"))
        wait_for(lambda: lines() == ["long one begun"], "the first words")
        answer.publish(String(data="second"))
        wait_for(lambda: "second ended" in lines(), "the newer answer")
        assert "long one ended" not in lines(), "it was broken off"

        answer.publish(String(data="long two"))
        wait_for(lambda: "long two begun" in lines(), "the third answer")
        listening.publish(Bool(data=True))
        wait_for(lambda: speaking and not speaking[-1].data, "the voice to fall silent")
        answer.publish(String(data="fourth"))
        time.sleep(0.5)
        assert not any(line.startswith("fourth") for line in lines()), "somebody speaks"
        listening.publish(Bool(data=False))
        wait_for(lambda: "fourth ended" in lines(), "what was kept until then")
    assert process.stop() == 0
    assert "Traceback" not in process.log


def test_a_voice_that_cannot_run_says_so_and_lets_listen_hear_again(
    robot: Rig, tmp_path: Path
) -> None:
    voice = tmp_path / "voice"
    voice.write_bytes(b"\0 no program")
    voice.chmod(0o755)
    process = Process(
        [*LISA, "speak", "--command", str(voice), "--namespace", "lame"], robot.domain
    )
    robot.processes.append(process)
    answer = robot.do(lambda: robot.node.create_publisher(String, "/lame/answer", 10))
    with robot.hearing(Bool, "/lame/speech/speaking", LATCHED) as speaking:
        wait_for(answer.get_subscription_count, "the voice")
        time.sleep(0.3)
        for times in (1, 2):
            answer.publish(String(data="hello"))
            wait_for(lambda n=times: process.log.count("cannot speak: Exec format") == n, "why")
        wait_for(lambda: speaking and not speaking[-1].data, "listen to be let hear again")
    assert process.stop() == 0
    assert "Traceback" not in process.log


def test_no_voice_is_one_sentence(capsys: pytest.CaptureFixture) -> None:
    assert main(["speak", "--command", "no_such_voice"]) == 2
    said = capsys.readouterr().err
    assert "apt install espeak-ng" in said and len(said.splitlines()) == 1
