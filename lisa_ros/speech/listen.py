"""A ROS node that hears: microphone, WAV file or audio topic in, instructions out."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
from rclpy.context import Context
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Bool, String

from lisa_ros.speech.audio import BLOCK, RATE, AudioError, Resampler, blocks, mono
from lisa_ros.speech.endpointer import Endpointer, load_detector
from lisa_ros.speech.recognizer import Heard, Recognizer

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ECHO = 0.4  # seconds after our own voice in which the room still has it
AGAIN = "Sorry, I did not understand. Please say it again."
TOPIC_LIMIT = 10.0  # seconds until an audio topic has a publisher
ASKED_LIMIT = 10.0  # seconds until somebody hears `query`, before a file is played
AUDIO_PACKAGE = "audio_common_msgs"
AUDIO_TYPES = ("AudioData", "AudioDataStamped", "AudioStamped")


class Listener(Node):
    """Publishes `speech/text`, what it is sure of on `query`, and else asks again.

    Args:
        recognizer: from `load_recognizer`.
        wake_word: what an instruction must begin with; empty: nothing.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        wake_word: str = "",
        namespace: str = "lisa",
        context: Context | None = None,
    ) -> None:
        super().__init__("listen", namespace=namespace, context=context)
        self._recognizer, self._wake_word = recognizer, wake_word.lower().strip()
        detector, name = load_detector()
        self._endpointer = Endpointer(detector)
        self.get_logger().info(f"speech is found by {name}")
        self._text = self.create_publisher(String, "speech/text", 10)
        self._say = self.create_publisher(String, "speech/say", 10)
        self._query = self.create_publisher(String, "query", 10)
        self._listening = self.create_publisher(Bool, "speech/listening", LATCHED)
        self.create_subscription(Bool, "speech/speaking", self._on_speaking, LATCHED)
        self._speaking, self._quiet_since = False, 0.0
        self._told = False
        self.asked = 0
        """utterances that were sure enough to be asked"""
        self.not_called = 0
        """utterances in words, but without the wake word"""
        self.stopping = threading.Event()

    def _on_speaking(self, message: Bool) -> None:
        self._speaking = message.data
        if not message.data:
            self._quiet_since = time.monotonic()

    @property
    def deaf(self) -> bool:
        """Whether `speak` is speaking, or has just spoken: what is heard is our own voice."""
        return self._speaking or time.monotonic() - self._quiet_since < ECHO

    def hear(self, sound: Iterator[np.ndarray]) -> int:
        """Listen to blocks, float32 (512,) at 16 kHz, to their end; the number of utterances."""
        count = 0
        for block in sound:
            if self.stopping.is_set():
                return count
            if self.deaf:
                self._endpointer.reset()
            else:
                count += self._take(self._endpointer(block))
            self._tell(self._endpointer.speaking)
        count += self._take(self._endpointer.flush())
        self._tell(False)
        return count

    def _tell(self, listening: bool) -> None:
        if listening != self._told:
            self._told = listening
            self._listening.publish(Bool(data=listening))

    def _take(self, utterance: np.ndarray | None) -> int:
        """Understand an utterance, and ask what was asked."""
        if utterance is None:
            return 0
        heard = self._recognizer.recognise(utterance, RATE)
        instruction = self._called(heard)
        if instruction is None:
            return 0
        self._text.publish(String(data=heard.text))
        if heard.sure and instruction:
            self.get_logger().info(f"heard ({heard.confidence:.2f}): {heard.text}")
            self._query.publish(String(data=instruction))
            self.asked += 1
        else:
            self.get_logger().info(f"not sure ({heard.confidence:.2f}): {heard.text}")
            self._say.publish(String(data=AGAIN))
        return 1

    def _called(self, heard: Heard) -> str | None:
        """The instruction without the wake word; None where nobody has called."""
        if not heard.text:
            return None
        if not self._wake_word:
            return heard.text
        words, wake = heard.text.split(), self._wake_word.split()
        first = [word.lower().strip(",.!?") for word in words[: len(wake)]]
        if first != [word.strip(",.!?") for word in wake]:
            self.not_called += 1
            return None
        return " ".join(words[len(wake) :])

    # --- where sound comes from --------------------------------------------------------------

    def recording(self, sound: np.ndarray) -> Iterator[np.ndarray]:
        """The blocks of a recording, float32 (N,) at 16 kHz, once somebody hears `query`.

        Raises:
            AudioError: there is nobody to ask.
        """
        end = time.monotonic() + ASKED_LIMIT
        while not self._query.get_subscription_count() and time.monotonic() < end:
            time.sleep(0.05)
        if not self._query.get_subscription_count():
            raise AudioError(
                f"nobody hears {self._query.topic_name}, so that nothing that was said can be "
                "asked: start `lisa-ros node` first"
            )
        return blocks([sound, np.zeros(BLOCK - 1, np.float32)])  # the last one is filled up

    def topic(self, name: str, rate: int, channels: int) -> Iterator[np.ndarray]:
        """The blocks of an audio topic until the end.

        Args:
            rate, channels: of messages that do not say it themselves (ros-drivers' AudioData).

        Raises:
            AudioError: nobody publishes there, or no sound.
        """
        kind = self._audio_type(name)
        arrived: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.create_subscription(kind, name, arrived.put, 50)
        self.get_logger().info(f"listening to {self.resolve_topic_name(name)} ({kind.__name__})")
        return blocks(self._pieces(arrived, rate, channels))

    def _pieces(
        self, arrived: queue.SimpleQueue[Any], rate: int, channels: int
    ) -> Iterator[np.ndarray]:
        """The sound of messages at 16 kHz; one of another rate begins a new sound."""
        bring: tuple[int, Resampler] | None = None
        while not self.stopping.is_set():
            try:
                message = arrived.get(timeout=0.2)
            except queue.Empty:
                continue
            samples, own_rate = samples_of(message, rate, channels)
            if bring is None or bring[0] != own_rate:
                bring = (own_rate, Resampler(own_rate))
            yield bring[1](samples)

    def _audio_type(self, name: str) -> type:
        """The message class of an audio topic, by what its publisher says."""
        topic = self.resolve_topic_name(name)
        end = time.monotonic() + TOPIC_LIMIT
        while time.monotonic() < end and not self.stopping.is_set():
            for kind in dict(self.get_topic_names_and_types()).get(topic, []):
                return audio_class(kind)
            time.sleep(0.1)
        raise AudioError(f"nobody publishes sound on {topic}")


def audio_class(kind: str) -> type:
    """The class of a message type such as `audio_common_msgs/msg/AudioStamped`.

    Two packages have this name: ros-drivers' (AudioData, AudioDataStamped) and another one
    (AudioStamped). Which one is installed shows in the classes that it has.

    Raises:
        AudioError: it is no sound, or the package is not installed.
    """
    package, _, name = kind.split("/")
    if package != AUDIO_PACKAGE or name not in AUDIO_TYPES:
        raise AudioError(
            f"{kind} is no sound that can be heard: {', '.join(AUDIO_TYPES)} of {AUDIO_PACKAGE} are"
        )
    try:
        module = import_module(f"{AUDIO_PACKAGE}.msg")
    except ModuleNotFoundError:
        raise AudioError(
            f"the package {AUDIO_PACKAGE} is not installed here: apt install "
            "ros-$ROS_DISTRO-audio-common-msgs, or hear a microphone"
        ) from None
    if not hasattr(module, name):
        raise AudioError(
            f"the installed {AUDIO_PACKAGE} has no {name}: it is the other package of this name "
            "(ros-drivers/audio_common has AudioData, mgonzs13/audio_common AudioStamped)"
        )
    return getattr(module, name)


def samples_of(message: Any, rate: int = RATE, channels: int = 1) -> tuple[np.ndarray, int]:
    """Sound of an audio message, float32 (N,), and its rate.

    Args:
        rate, channels: where the message does not say (AudioData, S16LE).
    """
    audio = getattr(message, "audio", message)
    if hasattr(audio, "info"):  # AudioStamped: it says what it is
        info, values = audio.info, np.zeros(0, np.float32)
        for kind in ("float32", "int32", "int16", "int8", "uint8"):
            if len(given := getattr(audio.audio_data, f"{kind}_data")):
                values = np.asarray(given, kind)
                break
        return mono(values, info.channels or 1), info.rate or rate
    data = bytes(audio.data)
    return mono(np.frombuffer(data[: len(data) // 2 * 2], "<i2"), channels), rate
