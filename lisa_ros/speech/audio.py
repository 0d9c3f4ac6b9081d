"""Sound as the recogniser wants it: 16,000 samples a second, one channel, float32 from -1 to 1."""

from __future__ import annotations

import wave
from collections.abc import Iterable, Iterator
from math import gcd
from pathlib import Path
from typing import BinaryIO

import numpy as np

from lisa_ros.errors import LisaError

RATE = 16_000  # samples per second, of the recogniser and the speech detector
LOWEST_RATE = 8_000  # below this a voice cannot be understood
HIGHEST_RATE = 384_000  # above this it is no rate but a damaged number
BLOCK = 512  # samples that the speech detector takes at a time, 32 ms
UNKNOWN_LENGTH = 2**31 - 2**16  # bytes from which on a length says that the file came by a pipe
TAPS = 24  # of the low-pass of the resampler, on each side, in samples of the lower rate


class AudioError(LisaError):
    """No sound can be had, or it cannot be used."""


def check_sound(rate: int = RATE, channels: int = 1) -> None:
    """Raise `AudioError` for sound that no voice could be understood in."""
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError(
            f"sound of {rate} samples a second cannot be used: {LOWEST_RATE:,} to "
            f"{HIGHEST_RATE:,} can"
        )
    if channels < 1:
        raise AudioError(f"sound of {channels} channels cannot be used: 1 is the least")


class Resampler:
    """Brings a stream of blocks to 16 kHz; what a block leaves over waits for the next.

    A windowed sinc in all phases that the two rates meet in, so that no tone is mirrored into
    the voice.
    """

    def __init__(self, rate: int) -> None:
        check_sound(rate)
        common = gcd(rate, RATE)
        self._up, self._down = RATE // common, rate // common
        cut = min(1.0, RATE / rate)  # of the input's band that survives
        self._reach = int(np.ceil(TAPS / cut))  # input samples on each side of an output sample
        grid = np.arange(-self._reach, self._reach)
        phases = np.arange(self._up)[:, None] / self._up
        distance = grid[None, :] + 1 - phases  # (up, 2 reach), in input samples
        window = 0.5 + 0.5 * np.cos(np.pi * np.clip(distance / self._reach, -1, 1))
        kernel = cut * np.sinc(cut * distance) * window
        self._kernel = (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)
        self._left = np.zeros(self._reach - 1, np.float32)  # the first sample stays the first
        self._next = 0  # place of the next output sample, in 1/up of an input sample

    def __call__(self, samples: np.ndarray) -> np.ndarray:
        """float32 (N,) at the rate of the input -> float32 (about N * 16000 / rate,)."""
        if self._up == self._down:
            return samples.astype(np.float32, copy=False)
        held = np.concatenate([self._left, samples.astype(np.float32, copy=False)])
        usable = len(held) - 2 * self._reach + 1  # places whose whole neighbourhood is here
        count = max(0, -(-(usable * self._up - self._next) // self._down))
        places = self._next + self._down * np.arange(count)
        whole, phase = places // self._up, places % self._up
        result = np.zeros(0, np.float32)
        if count:
            rows = np.lib.stride_tricks.sliding_window_view(held, 2 * self._reach)
            result = np.einsum("nk,nk->n", rows[whole], self._kernel[phase])
        after = self._next + self._down * count
        gone = min(after // self._up, max(usable, 0))
        self._left, self._next = held[gone:], after - gone * self._up
        return result.astype(np.float32, copy=False)


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """A whole recording at 16 kHz."""
    if rate == RATE:
        return samples.astype(np.float32, copy=False)
    step = Resampler(rate)
    tail = np.zeros(2 * step._reach, np.float32)
    return np.concatenate([step(samples), step(tail)])[: round(len(samples) * RATE / rate)]


def mono(values: np.ndarray, channels: int = 1) -> np.ndarray:
    """Interleaved samples as float32 (N,) from -1 to 1, the mean of all channels.

    Unsigned ones have their silence in the middle of their range, as WAV's 8 bits do.
    """
    check_sound(channels=channels)
    values = values[: len(values) - len(values) % channels]
    samples = values.reshape(-1, channels).astype(np.float32).mean(1)
    if values.dtype.kind == "f":
        return samples
    half = np.float32(2 ** (8 * values.dtype.itemsize - 1))
    return samples / half - (values.dtype.kind == "u")


def read_wav(source: Path | BinaryIO, name: str = "") -> tuple[np.ndarray, int]:
    """Samples, float32 (N,), and their rate, of a WAV file with 8 to 32 bits.

    Args:
        name: what sentences call an opened file; a path is its own name.

    Raises:
        AudioError: it is no WAV file, has no sound in it that can be used, or is cut off: of half
            an instruction nobody knows what the other half said.
    """
    name = name or str(source)
    try:
        with wave.open(str(source) if isinstance(source, Path) else source) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            promised = file.getnframes()
            data = file.readframes(promised)
    except FileNotFoundError:
        raise AudioError(f"{name} is missing: there is no file of that name") from None
    except (wave.Error, EOFError) as error:
        reason = str(error) or "it ends too early"
        raise AudioError(
            f"{name} is no WAV file that can be read ({reason}): "
            "make one with `ffmpeg -i FILE -ac 1 -ar 16000 NEW.wav`"
        ) from None
    check_sound(rate)
    if width > 4:
        raise AudioError(f"{name} has samples of {8 * width} bits: 8 to 32 can be read")
    data = data[: len(data) - len(data) % (width * channels)]
    if not data:
        raise AudioError(f"{name} has no sound in it: its length is zero")
    frames = len(data) // (width * channels)
    if frames < promised and promised * width * channels < UNKNOWN_LENGTH:
        raise AudioError(
            f"{name} is cut off: {frames / rate:.1f} s of the {promised / rate:.1f} s that its "
            "beginning promises are there; copy or record it again"
        )
    if width == 3:  # as the upper bytes of 32 bits
        parts = np.zeros((frames * channels, 4), np.uint8)
        parts[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return mono(parts.view("<i4")[:, 0], channels), rate
    return mono(np.frombuffer(data, {1: "u1", 2: "<i2", 4: "<i4"}[width]), channels), rate


def blocks(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Pieces of sound, float32 (any,), as blocks (512,); what is left at the end is dropped."""
    left = np.zeros(0, np.float32)
    for piece in pieces:
        left = np.concatenate([left, piece])
        while len(left) >= BLOCK:
            yield left[:BLOCK]
            left = left[BLOCK:]


def sound_device():  # the module `sounddevice`
    """The module that knows microphones.

    Raises:
        AudioError: it cannot be imported, with what is to be installed.
    """
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise AudioError(
            "a microphone needs the package sounddevice: pip install 'lisa_ros[speech]'"
        ) from None
    except OSError:  # it looks for PortAudio when it is imported
        raise AudioError(
            "a microphone needs the library PortAudio: apt install libportaudio2"
        ) from None
    return sounddevice


def microphone(name: str = "") -> Iterator[np.ndarray]:
    """The blocks of a microphone, float32 (512,) at 16 kHz, as they come.

    Args:
        name: number or part of the name of a device, as `python -m sounddevice` lists them; empty:
            the system's own choice.

    Raises:
        AudioError: there is none, it gives no sound, or has been unplugged.
    """
    device = sound_device()
    chosen = int(name) if name.isdecimal() else name or None
    try:
        about = device.query_devices(chosen, "input")
        rate = int(about["default_samplerate"])
        at_16_khz = Resampler(rate)
        stream = device.InputStream(samplerate=rate, device=chosen, channels=1, dtype="float32")
        stream.start()
    except (device.PortAudioError, ValueError) as error:
        raise AudioError(
            f"no microphone{f' {name}' if name else ''} can be opened ({error}): "
            "`python -m sounddevice` lists what there is; --wav and --topic need none"
        ) from None

    def heard() -> Iterator[np.ndarray]:
        while True:
            samples, _ = stream.read(max(1, rate // 32))
            yield at_16_khz(samples[:, 0])

    try:
        yield from blocks(heard())
    except device.PortAudioError as error:
        raise AudioError(
            f"the microphone gives no sound any more ({error}): is it still there?"
        ) from None
    finally:
        stream.close()
