"""Where speech begins and ends in a stream of sound."""

from __future__ import annotations

from collections import deque
from typing import Protocol

import numpy as np

from lisa_ros.speech.audio import BLOCK, RATE

BEGIN = 0.5  # probability of speech where an utterance begins
END = 0.35  # below which it may end
SILENCE = 0.8  # seconds that end an utterance; a speaker takes a breath between two sentences
LEAD = 0.3  # seconds kept from before the beginning: the first sound is softer than the vowel
SHORTEST = 0.25  # seconds of speech; what is shorter is a click
LONGEST = 20.0  # seconds; what is longer is handed on as it is
FLOOR_BLOCKS = 300  # blocks (10 s) among which the quietest is the room's noise
LOUDER = 4.0  # times the amplitude of the room's noise that speech has, 12 dB
FAINTEST = 2e-3  # amplitude below which nothing is speech


class Detector(Protocol):
    """Says of each block how probably somebody speaks in it."""

    def __call__(self, block: np.ndarray) -> float: ...

    def reset(self) -> None:
        """Forget what came before."""


class Silero:
    """The network of silero-vad, which comes with its package."""

    def __init__(self) -> None:
        import torch
        from silero_vad import load_silero_vad

        self._torch, self._model = torch, load_silero_vad()

    def __call__(self, block: np.ndarray) -> float:
        with self._torch.inference_mode():
            return float(self._model(self._torch.from_numpy(block), RATE))

    def reset(self) -> None:
        self._model.reset_states()


class Energy:
    """Louder than the room: for where silero-vad is not installed."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=FLOOR_BLOCKS)

    def __call__(self, block: np.ndarray) -> float:
        loudness = float(np.sqrt(np.mean(block**2)))
        self._recent.append(loudness)
        floor = max(min(self._recent), FAINTEST / LOUDER)
        return 1.0 if loudness > LOUDER * floor else 0.0

    def reset(self) -> None:
        """The room stays the room."""


def load_detector() -> tuple[Detector, str]:
    """silero-vad where it is installed, else loudness; with its name."""
    try:
        return Silero(), "silero-vad"
    except ModuleNotFoundError:
        return Energy(), "loudness, as silero-vad is not installed"


class Endpointer:
    """Cuts utterances out of a stream of blocks, float32 (512,) at 16 kHz."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._lead: deque[np.ndarray] = deque(maxlen=round(LEAD * RATE / BLOCK))
        self._kept: list[np.ndarray] = []
        self._spoken = self._silent = 0  # blocks

    @property
    def speaking(self) -> bool:
        """Whether an utterance has begun and not ended."""
        return bool(self._kept)

    def reset(self) -> None:
        """Forget a begun utterance."""
        self._detector.reset()
        self._lead.clear()
        self._kept, self._spoken, self._silent = [], 0, 0

    def __call__(self, block: np.ndarray) -> np.ndarray | None:
        """Take the next block; the utterance, float32 (N,), where it ends with this one."""
        probability = self._detector(block)
        if not self._kept:
            self._lead.append(block)
            if probability < BEGIN:
                return None
            self._kept = list(self._lead)
            self._lead.clear()
            self._spoken, self._silent = 1, 0
            return None
        self._kept.append(block)
        if probability < END:
            self._silent += 1
        else:
            self._spoken += 1
            self._silent = 0
        seconds = BLOCK / RATE
        if self._silent * seconds < SILENCE and len(self._kept) * seconds < LONGEST:
            return None
        return self.flush()

    def flush(self) -> np.ndarray | None:
        """End a begun utterance here, as at the end of a file; None where there was no speech."""
        kept, spoken = self._kept, self._spoken
        self._kept, self._spoken, self._silent = [], 0, 0
        if spoken * BLOCK / RATE < SHORTEST:
            return None
        return np.concatenate(kept)
