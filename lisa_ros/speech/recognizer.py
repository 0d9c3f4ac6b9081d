"""From a spoken sentence to its words, and how far they are to be trusted.

    recognizer = load_recognizer()
    heard = recognizer.recognise(samples, 16_000)    # Heard("find the red mug", 0.97, True)

By default pocketsphinx, whose wheel carries an English acoustic model, with a language model of
the tabletop's sentences (lisa_tabletop/language/spoken.py writes it). With a folder or an id in
the hub's cache, any Whisper or Moonshine that transformers loads.
"""

from __future__ import annotations

import gzip
import json
import math
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise, product
from pathlib import Path
from typing import Protocol

import numpy as np

from lisa_ros.errors import LisaError
from lisa_ros.model.hub import find_cached, parse_id
from lisa_ros.speech.audio import RATE, resample

LANGUAGE = Path(__file__).with_name("tabletop.lm.gz")
"""word trigrams of the tabletop's sentences, ARPA"""
PRONUNCIATIONS = Path(__file__).with_name("pronunciations.txt")
"""how those words are said that pocketsphinx's dictionary lacks"""
CONFIDENCE = Path(__file__).with_name("confidence.json")
"""the fit of `python -m benchmarks.speech --fit`: from an utterance's features to a probability"""
SURE, SURE_IN_NOISE = 0.35, 0.75  # least confidence of what is asked without asking again
NOISY = 20.0  # dB from the softest tenth of a recording to its loudest, below which it is noisy
SHORTEST = 0.2  # seconds; nothing that short is a word
LOUDNESS = 0.1  # root mean square that every recording is brought to
HISS = 2e-3  # of noise that is added then: digital silence has no spectrum
FAINTEST = 1e-4  # root mean square of a recording with anything in it
VARIANTS, MOST_CHOICES = 3, 200  # ways of saying a phrase: kept, and looked at
BEAMS = {  # probabilities below which a path is given up; wider than pocketsphinx's own
    **dict.fromkeys(("beam", "pbeam"), 1e-70),
    **dict.fromkeys(("wbeam", "lponlybeam"), 1e-50),
    "lpbeam": 1e-60,
}


class RecognizerError(LisaError):
    """The recogniser cannot be loaded."""


@dataclass(frozen=True)
class Heard:
    """What was understood."""

    text: str
    """lower case, without punctuation, with pocketsphinx; empty where no word was heard"""
    confidence: float
    """0 to 1, the probability that this is what was said; 1 always with a model of one's own"""
    sure: bool
    """whether it may be asked without asking the speaker again"""


class Recognizer(Protocol):
    """What `load_recognizer` returns."""

    def recognise(self, samples: np.ndarray, rate: int) -> Heard:
        """Understand one utterance.

        Args:
            samples: float32 (N,), one channel, -1 to 1.
            rate: samples per second, 8,000 or more.
        """
        ...


def load_recognizer(model: str = "") -> Recognizer:
    """The offline recogniser of the tabletop's sentences, or a speech model.

    Args:
        model: folder of a Whisper or Moonshine as transformers saves it, or its id in the hub's
            cache; empty for pocketsphinx.

    Raises:
        RecognizerError: a package or the model is missing.
        CheckpointError: the hub's cache has no such model, or only a part of it.
    """
    return SpeechModel(model) if model else SentenceRecognizer()


class SentenceRecognizer:
    """pocketsphinx with the sentences of the tabletop."""

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ModuleNotFoundError:
            raise RecognizerError(
                "hearing needs the package pocketsphinx: pip install 'lisa_ros[speech]'"
            ) from None
        folder = Path(pocketsphinx.get_model_path()) / "en-us"
        common = {"hmm": str(folder / "en-us"), "cmn": "batch", "loglevel": "FATAL"}
        arpa = gzip.decompress(LANGUAGE.read_bytes())
        self._pairs = {tuple(words) for words in _n_grams(arpa.decode(), 2)}
        with tempfile.TemporaryDirectory(prefix="lisa_ros_speech_") as scratch:
            model, words = Path(scratch) / "tabletop.lm", Path(scratch) / "tabletop.dict"
            model.write_bytes(arpa)
            phrases = [word for (word,) in _n_grams(arpa.decode(), 1) if word[0] != "<"]
            base = (folder / "cmudict-en-us.dict").read_text("utf-8")
            base += PRONUNCIATIONS.read_text("utf-8")
            words.write_text(phrase_dictionary(phrases, base), "utf-8")
            self._words = pocketsphinx.Decoder(lm=str(model), dict=str(words), **BEAMS, **common)
        # Any sounds of English in any order: how well a voice can be followed at all.
        sounds = str(folder / "en-us-phone.lm.bin")
        self._sounds = pocketsphinx.Decoder(allphone=sounds, lm=None, dict=None, **common)
        self._fit = json.loads(CONFIDENCE.read_text("utf-8"))

    def recognise(self, samples: np.ndarray, rate: int) -> Heard:
        text, features = self.features(samples, rate)
        if not text:
            return Heard("", 0.0, False)
        confidence = self.confidence(features)
        least = SURE_IN_NOISE if loudness_range(samples, rate) < NOISY else SURE
        return Heard(text, confidence, confidence >= least)

    def confidence(self, features: dict[str, float]) -> float:
        """The probability that what was heard was said."""
        weights = self._fit["weights"]
        score = self._fit["bias"] + sum(weights[name] * value for name, value in features.items())
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, score))))

    def features(self, samples: np.ndarray, rate: int) -> tuple[str, dict[str, float]]:
        """The most probable sentence, and what the confidence is computed from."""
        sound = resample(samples, rate)
        loudness = float(np.sqrt(np.mean(sound**2))) if len(sound) else 0.0
        if len(sound) < SHORTEST * RATE or loudness < FAINTEST:
            return "", {}
        sound = LOUDNESS / loudness * sound
        sound = sound + HISS * np.random.default_rng(0).standard_normal(len(sound))
        pcm = (np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes()
        hypothesis = _decode(self._words, pcm)
        if hypothesis is None or not hypothesis.hypstr:
            return "", {}
        spoken = [s for s in self._words.seg() if not s.word.startswith(("<", "["))]
        if not spoken:
            return "", {}
        _decode(self._sounds, pcm)

        # 1. Frame by frame, what any sounds in any order would have scored. (frames,) summed up
        free = [0.0]
        for segment in self._sounds.seg():
            length = segment.end_frame - segment.start_frame + 1
            free += [_log(segment.ascore) / length] * length
        free = np.cumsum(free)

        # 2. How far each word stays behind that, per frame
        behind, lengths = [], []
        for segment in spoken:
            first, last = segment.start_frame, min(segment.end_frame + 1, len(free) - 1)
            lengths.append(max(1, last - first))
            behind.append(_log(segment.ascore) - (free[last] - free[min(first, last)]))
        each = np.array(behind) / np.array(lengths)

        # 3. Words that no sentence of the tabletop has one after the other
        words = [re.sub(r"\(\d+\)$", "", segment.word) for segment in spoken]
        strange = [pair not in self._pairs for pair in pairwise(("<s>", *words, "</s>"))]
        return " ".join(words).replace("_", " "), {
            "sounds": float(sum(behind) / sum(lengths)),
            "worst": float(each.min()),
            "strange": float(sum(strange)),
            "pace": float(sum(lengths) / len(lengths)),
            "belief": _log(hypothesis.prob),
            "language": float(np.mean([_log(segment.lscore) for segment in spoken])),
            "frames": float(sum(lengths)),
        }


def loudness_range(samples: np.ndarray, rate: int) -> float:
    """From the softest tenth of a recording to its loudest, dB: small where noise fills pauses."""
    size = rate // 40
    frames = samples[: len(samples) // size * size].reshape(-1, size)
    low, high = np.percentile(10 * np.log10(np.mean(frames**2, axis=1) + 1e-9), [10, 90])
    return float(high - low)


def _decode(decoder, pcm: bytes):
    """What a decoder makes of one utterance; None for nothing."""
    decoder.reinit_feat()  # forgets the voice before
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    return decoder.hyp()


def _log(value: float) -> float:
    return math.log(max(value, 1e-300))


def _n_grams(arpa: str, order: int) -> Iterator[list[str]]:
    """The sequences of so many words in a language model in the format ARPA."""
    part = arpa.partition(f"\\{order}-grams:\n")[2].partition("\n\n")[0]
    return (line.split()[1 : 1 + order] for line in part.splitlines())


def phrase_dictionary(phrases: Iterable[str], dictionary: str) -> str:
    """How phrases ("show_me_the") are said, from how their words are, in the dictionary's format.

    Of a phrase whose words can be said in several ways it has the `VARIANTS` most usual.

    Raises:
        RecognizerError: a word is not in the dictionary.
    """
    ways: dict[str, list[str]] = defaultdict(list)
    for line in dictionary.splitlines():
        word, _, sounds = line.partition(" ")
        ways[word.partition("(")[0]].append(sounds)
    lines = []
    for phrase in phrases:
        words = phrase.split("_")
        unknown = [word for word in words if word not in ways]
        if unknown:
            raise RecognizerError(f"no pronunciation of {unknown[0]!r}: add it to {PRONUNCIATIONS}")
        choices = islice(product(*(list(enumerate(ways[word])) for word in words)), MOST_CHOICES)
        usual = sorted(choices, key=lambda choice: sum(rank for rank, _ in choice))
        for number, choice in enumerate(usual[:VARIANTS], 1):
            name = phrase if number == 1 else f"{phrase}({number})"
            lines.append(f"{name} {' '.join(sounds for _, sounds in choice)}")
    return "\n".join([*lines, ""])


class SpeechModel:
    """A Whisper or Moonshine of transformers: any words, in its own languages.

    It says nothing about how sure it is, so that everything it hears is asked.
    """

    def __init__(self, folder: str) -> None:
        path = Path(folder).expanduser()
        if not path.exists() and parse_id(folder):
            path = find_cached(folder)
        if not (path / "config.json").is_file():
            raise RecognizerError(
                f"{folder} is no folder of a speech model (it has no config.json): save a Whisper "
                "or a Moonshine there, or leave --model out"
            )
        from transformers import AutoProcessor, pipeline

        try:
            processor = AutoProcessor.from_pretrained(path, local_files_only=True)
            self._pipeline = pipeline(
                "automatic-speech-recognition",
                model=str(path),
                tokenizer=processor.tokenizer,
                feature_extractor=processor.feature_extractor,
            )
        except (OSError, ValueError, KeyError, AttributeError) as error:
            first = str(error).splitlines()[0]
            raise RecognizerError(f"{folder} cannot be loaded as a speech model: {first}") from None

    def recognise(self, samples: np.ndarray, rate: int) -> Heard:
        sound = resample(samples, rate)
        if len(sound) < SHORTEST * RATE or float(np.sqrt(np.mean(sound**2))) < FAINTEST:
            return Heard("", 0.0, False)
        text = self._pipeline({"raw": sound, "sampling_rate": RATE})["text"].strip()
        return Heard(text, 1.0 if text else 0.0, bool(text))
