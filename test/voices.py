"""Voices for the tests of speech: espeak-ng."""

from __future__ import annotations

import shutil
import wave
from pathlib import Path

import numpy as np
import pytest

needs_voice = pytest.mark.skipif(
    shutil.which("espeak-ng") is None,
    reason="the voices of these tests come from espeak-ng: make system-packages",
)


def write_wav(path: Path, samples: np.ndarray, rate: int, channels: int = 1) -> Path:
    """A WAV file of 16 bits; samples from -1 to 1, those of several channels interleaved."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path
