"""Sound from files, messages and microphones, also such as nobody expects."""

from __future__ import annotations

import sys
import wave
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from voices import write_wav

from lisa_ros.cli import main
from lisa_ros.speech import audio
from lisa_ros.speech.audio import RATE, AudioError, Resampler, read_wav, resample
from lisa_ros.speech.endpointer import Endpointer, Energy, Silero
from lisa_ros.speech.listen import audio_class, samples_of


def tone(hertz: float, rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype("f4")


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_a_tone_stays_the_tone_it_was(rate: int) -> None:
    heard = resample(tone(1000, rate), rate)
    assert abs(len(heard) - RATE) <= 1
    inner = slice(500, 15_000)
    assert np.abs(heard[:RATE][inner] - tone(1000, RATE)[inner]).max() < 0.01


def test_a_tone_that_16_khz_cannot_carry_is_silence() -> None:
    heard = resample(tone(11_000, 48_000), 48_000)
    assert np.sqrt(np.mean(heard[500:-500] ** 2)) < 0.01


def test_blocks_give_what_the_whole_gives() -> None:
    whole = np.random.default_rng(0).normal(0, 0.1, 20_000).astype("f4")
    step = Resampler(44_100)
    parts = np.concatenate([step(part) for part in np.array_split(whole, 37)])
    once = Resampler(44_100)(whole)
    assert len(parts) == len(once)
    assert np.allclose(parts, once, atol=1e-6)


def test_stereo_of_8_khz_is_read(tmp_path: Path) -> None:
    left, right = tone(500, 8_000), -tone(500, 8_000) / 2
    path = write_wav(tmp_path / "two.wav", np.stack([left, right], 1).ravel(), 8_000, 2)
    samples, rate = read_wav(path)
    assert rate == 8_000 and len(samples) == 8_000
    assert np.abs(samples - tone(500, 8_000) / 4).max() < 0.001


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_samples_of_every_width_are_the_same_sound(tmp_path: Path, bits: int) -> None:
    left, right = tone(500, 8_000), -tone(500, 8_000) / 2
    values = np.stack([left, right], 1).ravel().astype(float) * (2 ** (bits - 1) - 1)
    # 8 bits are unsigned, 24 the upper three bytes of 32
    whole = (values.round() * 2 ** (32 - bits)).astype("<i4").view(np.uint8).reshape(-1, 4)
    data = whole[:, 4 - bits // 8 :] ^ (0x80 if bits == 8 else 0)
    with wave.open(str(tmp_path / "some.wav"), "wb") as file:
        file.setparams((2, bits // 8, 8_000, 0, "NONE", ""))
        file.writeframes(data.tobytes())
    samples, rate = read_wav(tmp_path / "some.wav")
    assert rate == 8_000 and len(samples) == 8_000
    assert np.abs(samples - tone(500, 8_000) / 4).max() < 2 ** (2 - min(bits, 16))


def test_files_that_are_no_sound_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    empty = write_wav(tmp_path / "empty.wav", np.zeros(0), 16_000)
    (tmp_path / "words.wav").write_text("hello")
    whole = write_wav(tmp_path / "whole.wav", tone(500, 8_000), 8_000).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[:-12_000])
    (tmp_path / "head.wav").write_bytes(whole[:40])

    rates, bits = {"no rate": 0, "cut without a rate": 0}, {"five bytes": 40, "eight bytes": 64}
    for name in (*rates, *bits):
        head = bytearray(whole)
        head[24:28] = rates.get(name, 8_000).to_bytes(4, "little")
        head[34:36] = bits.get(name, 16).to_bytes(2, "little")
        (tmp_path / f"{name}.wav").write_bytes(head[:-12_000] if "cut" in name else head)

    def load_recognizer(model: str) -> None:
        raise AssertionError("a model was loaded for a file that cannot be heard")

    monkeypatch.setattr("lisa_ros.speech.recognizer.load_recognizer", load_recognizer)
    for path, reason in (
        (tmp_path / "cut.wav", "is cut off: 0.2 s of the 1.0 s"),
        (tmp_path / "head.wav", "is no WAV file"),
        (empty, "has no sound in it"),
        (tmp_path / "words.wav", "is no WAV file"),
        (write_wav(tmp_path / "slow.wav", tone(500, 4_000), 4_000), "4000 samples a second"),
        (tmp_path / "no rate.wav", "sound of 0 samples a second"),
        (tmp_path / "cut without a rate.wav", "sound of 0 samples a second"),
        (tmp_path / "five bytes.wav", "samples of 40 bits: 8 to 32 can be read"),
        (tmp_path / "eight bytes.wav", "samples of 64 bits: 8 to 32 can be read"),
        (tmp_path / "none.wav", "none.wav is missing: there is no file of that name"),
    ):
        assert main(["listen", "--wav", str(path)]) == 2
        said = capsys.readouterr().err
        assert reason in said and len(said.splitlines()) == 1


def test_rates_that_no_voice_has_are_refused_with_those_that_can_be(
    capsys: pytest.CaptureFixture,
) -> None:
    for rate in (4_000, 500_000):
        assert main(["listen", "--topic", "/a", "--rate", str(rate)]) == 2
        said = capsys.readouterr().err
        assert f"of {rate} samples a second cannot be used: 8,000 to 384,000 can" in said


def test_a_file_that_came_by_a_pipe_has_no_length_to_be_cut_at(tmp_path: Path) -> None:
    written = bytearray(write_wav(tmp_path / "piped.wav", tone(500, 8_000), 8_000).read_bytes())
    for length in (0xFFFFFFFF, 0x7FFFF000):  # of ffmpeg, of sox and espeak-ng
        written[40:44] = length.to_bytes(4, "little")
        for channels in (1, 2):
            written[22:24] = channels.to_bytes(2, "little")
            (tmp_path / "piped.wav").write_bytes(written)
            assert len(read_wav(tmp_path / "piped.wav")[0]) == 8_000 // channels


def test_without_portaudio_one_sentence_names_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    class NoPortAudio:
        def find_spec(self, name: str, *_: object) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [NoPortAudio(), *sys.meta_path])
    assert main(["listen"]) == 2
    assert "apt install libportaudio2" in capsys.readouterr().err


def test_no_microphone_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class PortAudioError(Exception):
        pass

    def none(*_: object) -> None:
        raise PortAudioError("Error querying device -1")

    device = SimpleNamespace(PortAudioError=PortAudioError, query_devices=none)
    monkeypatch.setattr(audio, "sound_device", lambda: device)
    with pytest.raises(AudioError, match="no microphone can be opened"):
        next(audio.microphone())


def test_a_microphone_that_is_unplugged_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    class PortAudioError(Exception):
        pass

    class Stream:
        def __init__(self, **_: object) -> None:
            self.blocks = [np.zeros((1600, 1), "f4")]

        def start(self) -> None:
            pass

        def read(self, count: int) -> tuple[np.ndarray, bool]:
            if not self.blocks:
                raise PortAudioError("Unanticipated host error")
            return self.blocks.pop(), False

        def close(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    device = SimpleNamespace(
        PortAudioError=PortAudioError,
        query_devices=lambda *_: {"default_samplerate": 16_000.0},
        InputStream=Stream,
    )
    monkeypatch.setattr(audio, "sound_device", lambda: device)
    with pytest.raises(AudioError, match="gives no sound any more"):
        for block in audio.microphone():
            assert len(block) == audio.BLOCK
    assert closed == [True]


def test_both_packages_of_audio_messages_are_understood() -> None:
    pcm = (tone(500, 16_000) * 32767).astype("<i2")
    plain = SimpleNamespace(data=list(pcm.tobytes()))
    samples, rate = samples_of(plain)
    assert rate == RATE and np.abs(samples - tone(500, 16_000)).max() < 0.001
    half = SimpleNamespace(data=list(np.append(np.repeat(pcm, 2), pcm[0]).tobytes()))
    assert np.array_equal(samples_of(half, channels=2)[0], samples)  # its right half is missing
    stamped = SimpleNamespace(header=None, audio=plain)
    assert np.array_equal(samples_of(stamped)[0], samples)
    with pytest.raises(AudioError, match="0 channels"):
        samples_of(plain, channels=0)

    empty = dict.fromkeys(("float32_data", "int32_data", "int8_data", "uint8_data"), ())
    data = SimpleNamespace(**empty, int16_data=np.repeat(pcm, 2))
    info = SimpleNamespace(channels=2, rate=44_100)
    other = SimpleNamespace(audio=SimpleNamespace(audio_data=data, info=info))
    again, rate = samples_of(other)
    assert rate == 44_100 and np.abs(again - samples).max() < 1e-6


def test_audio_types_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AudioError, match="is no sound"):
        audio_class("std_msgs/msg/String")
    with pytest.raises(AudioError, match="audio_common_msgs is not installed"):
        audio_class("audio_common_msgs/msg/AudioData")
    installed = SimpleNamespace(AudioData=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "audio_common_msgs", SimpleNamespace(msg=installed))
    monkeypatch.setitem(sys.modules, "audio_common_msgs.msg", installed)
    assert audio_class("audio_common_msgs/msg/AudioData") is SimpleNamespace
    with pytest.raises(AudioError, match="the other package of this name"):
        audio_class("audio_common_msgs/msg/AudioStamped")


def test_two_utterances_are_cut_apart_by_loudness() -> None:
    random = np.random.default_rng(0)
    room = random.normal(0, 0.002, 5 * RATE).astype("f4")
    room[RATE : 2 * RATE] += tone(300, RATE)
    room[int(3.5 * RATE) : 4 * RATE] += tone(300, RATE, 0.5)
    cut = Endpointer(Energy())
    found = [cut(block) for block in audio.blocks([room])]
    found = [one for one in [*found, cut.flush()] if one is not None]
    assert len(found) == 2
    assert 1.0 < len(found[0]) / RATE < 2.4 and 0.5 < len(found[1]) / RATE < 1.9


@pytest.mark.parametrize("detector", [Energy, Silero])
def test_noise_and_silence_are_no_utterance(detector: type) -> None:
    cut = Endpointer(detector())
    noise = np.random.default_rng(0).normal(0, 0.05, 3 * RATE).astype("f4")
    for sound in (noise, np.zeros(2 * RATE, "f4")):
        assert all(cut(block) is None for block in audio.blocks([sound]))
        assert cut.flush() is None
