"""An engine without a model: its instructions say what it does, or how it fails.

    python test/fake_engine.py [--ros-args ...]

runs the whole perception node around it. An instruction is a list of words; the known ones are the
keys of `FAULTS` and `ANSWERS`, with a number behind a colon where they take one. Everything else is
answered with the middle of the image. The node knows it only by the interface of the real engine.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lisa_ros.engine.answer import Answer, AnswerStatus, Finished, Instance, MaskReady, TextDelta
from lisa_ros.engine.load import ModelUnavailable
from lisa_ros.errors import CheckpointError, ImageError
from lisa_ros.tracking.tracker import Track, TrackState

WORDS_ALONE = {"words", "warm", "history", "transcripts", "key"}
WORD_TIME = 0.01  # seconds per word of an answer


class OutOfMemoryError(RuntimeError):
    """Bears the name of torch's own."""


def _raise(kind: type[Exception], text: str = "") -> Callable[[float], None]:
    def run(_: float) -> None:
        raise kind(text)

    return run


FAULTS: dict[str, Callable[[float], None]] = {
    "exception": _raise(RuntimeError, "shape '[1, 2]' is invalid: {0} %s /etc/passwd"),
    "encoder": _raise(ValueError, "the encoder failed"),
    "oom": _raise(OutOfMemoryError, "CUDA out of memory. Tried to allocate 20 GiB"),
    "memory": _raise(MemoryError),
    "image": _raise(ImageError, "the image is too dark"),
    "stall": time.sleep,
}


def instance(mask: np.ndarray, label: str, score: float = 0.9) -> Instance:
    """A mask as the model would have found it."""
    return Instance(mask, score, 0.75, label)


def middle(height: int, width: int, part: int = 4) -> np.ndarray:
    """A mask of the middle of an image."""
    mask = np.zeros((height, width), bool)
    mask[height // part : height - height // part, width // part : width - width // part] = True
    return mask


class FakeEngine:
    """Answers at once, except where the instruction says otherwise."""

    name, device = "fake", "cpu"

    def __init__(self, masks: np.ndarray | None = None) -> None:
        """`masks`: bool (N, H, W), what is answered with instead of the middle of the image."""
        self.masks = masks
        self.threads: set[int] = set()
        self.keys: list[Any] = []
        self.warm = 0

    def stream(
        self,
        image: np.ndarray,
        instruction: str,
        *,
        mode: str = "auto",
        history: Any = (),
        key: Any = None,
        cancel: threading.Event | None = None,
        max_new_tokens: int | None = None,
        deadline: float | None = None,
    ) -> Iterator[Any]:
        """The events of an answer."""
        self.threads.add(threading.get_ident())
        assert len(self.threads) == 1, "the engine was called from two threads"
        self.keys = [*self.keys[-9:], key]
        words = [word.partition(":") for word in instruction.split()]
        for name, _, number in words:
            if name in FAULTS:
                FAULTS[name](float(number or 0))
        names = {name: number for name, _, number in words}
        yield from self._answer(image, names, history, cancel, max_new_tokens, deadline)

    def segment(self, image: np.ndarray, instruction: str, **options: Any) -> Answer:
        """The same without the events."""
        *_, last = self.stream(image, instruction, **options)
        return last.answer

    def prepare(self, image: np.ndarray, key: Any) -> None:
        """What `stream` would do first; here there is nothing to do."""

    def warm_up(self, *, deadline: float | None = None) -> None:
        """What a first question alone would pay for; here it is counted."""
        self.warm += 1

    def _answer(self, image, names, history, cancel, max_new_tokens, deadline) -> Iterator[Any]:
        height, width = image.shape[:2]
        instances: list[Instance] = []
        text = "Sure, it is here." if "nothing" not in names else "There is no such thing."
        if "history" in names:
            text = f"I remember {len(history)}: {' | '.join(q for q, _ in history)}"
        if "warm" in names:
            text = f"{self.warm} times"
        if "transcripts" in names:
            text = " | ".join(transcript for _, transcript in history)
        if "several" in names:
            instances = [
                instance(middle(height, width, 3), "the left one"),
                instance(middle(height, width, 6), "the right one"),
            ]
        elif "color" in names:
            mask = has_color(image, [int(part) for part in bytes.fromhex(names["color"])])
            instances = [instance(mask, names["color"])] if mask.any() else []
        elif not {"nothing", *WORDS_ALONE} & set(names):
            found = [middle(height, width)] if self.masks is None else self.masks
            instances = [instance(mask, "it") for mask in found]
        if "score" in names and instances:
            instances[0] = replace(instances[0], score=float(names["score"]))
        if "nan" in names:
            instances = [instance(middle(height, width), "it", float("nan"))]
        if "shape" in names:
            instances = [instance(np.ones((3, 3), bool), "it")]
        if "label" in names:
            instances = [instance(middle(height, width), 7)]
        if "key" in names:
            text = f"{len(set(self.keys[-2:]))} keys"
        for one in instances:
            yield MaskReady(one)
        count = int(names.get("long") or 0)
        words = [*text.split(" "), *(f"word{i}" for i in range(count))]
        cut = max_new_tokens is not None and len(words) > max_new_tokens
        words = words[: max_new_tokens or None]
        said, status, stopped_by = "", None, "tokens" if cut else "end"
        if "circles" in names:
            stopped_by = "repetition"
        endless = "endless" in names
        while words or endless:
            if "deaf" not in names and cancel is not None and cancel.is_set():
                status, stopped_by = AnswerStatus.CANCELLED, "cancel"
                break
            if "deaf" not in names and deadline is not None and time.monotonic() > deadline:
                status, stopped_by = AnswerStatus.TIMEOUT, "deadline"
                break
            word = words.pop(0) if words else "on"
            said += (" " if said else "") + word
            yield TextDelta((" " if said != word else "") + word)
            if count or endless:
                time.sleep(WORD_TIME)
        if "mute" in names:
            return
        if status is None:
            status = AnswerStatus.OK if instances else AnswerStatus.NOT_FOUND
            status = AnswerStatus.TEXT_ONLY if WORDS_ALONE & set(names) else status
        timings = {"clip": 1.0, "sam": 2.0, "prefill": 3.0, "decode": 4.0, "mask": 5.0}
        counters = {"sam_encodes": 1, "clip_encodes": 1, "forwards": 2, "tokens": 3}
        counters |= {"drafted": 5, "accepted": 4}
        transcript = f"{said} [SEG]" if instances else said
        answer = Answer(said, status, instances, timings, counters, stopped_by, transcript)
        yield Finished(answer)


def has_color(image: np.ndarray, color: Sequence[int]) -> np.ndarray:
    """Where an image has exactly this colour, bool (H, W)."""
    return (image == np.array(color, image.dtype)).all(axis=-1)


FAULTY = (1, 2, 3)
"""the colour of an image's first pixel at which the tracker fails"""
STALLING = (3, 2, 1)
"""likewise, at which it takes its time"""


class FakeTracker:
    """Follows things by their exact colour, that of the middle one of their pixels."""

    def __init__(self, most: int) -> None:
        self.max_tracks, self.counters = most, Counter()
        self.colors: dict[int, np.ndarray] = {}

    def start(self, image, instances, *, stamp, key=None) -> list[Track]:
        for number, one in enumerate(instances, 1):
            pixels = image[one.mask]
            self.colors[number] = pixels[len(pixels) // 2]
        return self.update(image, stamp=stamp, key=key)

    def update(self, image, *, stamp, key=None) -> list[Track]:
        if tuple(image[0, 0]) == FAULTY:
            raise RuntimeError("the tracker failed")
        if tuple(image[0, 0]) == STALLING:
            time.sleep(0.3)
        self.counters["sam_encodes"] += 1
        tracks = []
        for number, color in self.colors.items():
            one = instance(has_color(image, color), "it", 0.8)
            state = TrackState.VISIBLE if one.area else TrackState.OCCLUDED
            tracks.append(Track(number, one.label, one.mask, one.box, one.score, state, 0.0, 0.0))
        return tracks

    def resume(self, track_id, image, instance, *, stamp, key=None) -> Track | None:
        return None


def load(parameters: Any) -> tuple[FakeEngine, type[FakeTracker]]:
    """By `model.path`: the engine, or how it fails to load."""
    name, _, number = parameters["model.path"].partition(":")
    if name == "slow":
        time.sleep(float(number))
    if name == "missing":
        raise CheckpointError("there is no file /models/missing/config.json")
    if name == "damaged":
        raise ValueError("header too large")
    if name == "big":
        raise ModelUnavailable("not enough memory on cpu for big")
    masks = np.load(number) if name == "masks" else None
    engine = FakeEngine(masks)
    if name == "unprepared":
        engine.prepare = lambda image, key: _raise(RuntimeError, "prepare fails")(0.0)
    return engine, FakeTracker


if __name__ == "__main__":
    from lisa_ros.node.run import run

    sys.exit(run(sys.argv[1:], load))
