"""How well spoken instructions are understood, by voices of espeak-ng.

    python -m benchmarks.speech --write docs/speech.md    # its table
    python -m benchmarks.speech --model FOLDER            # the same with a Whisper or Moonshine
    python -m benchmarks.speech --fit                     # fits the confidence, on other voices

200 sentences of the tabletop, four voices, two speeds; and a hundred everyday sentences that have
nothing to do with it. What is fitted has heard neither these voices nor these sentences.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.random import default_rng

from benchmarks.generated_tables import page_option, show
from lisa_ros.errors import LisaError
from lisa_ros.speech import recognizer as recognizers
from lisa_ros.speech.audio import read_wav
from lisa_ros.text_tables import markdown_table
from lisa_tabletop.language.instructions import compose, random_record
from lisa_tabletop.language.knowledge import load_patterns
from lisa_tabletop.language.spoken import WAKE_WORD, spoken_words

OUTSIDE = Path(__file__).with_name("everyday_sentences.txt")
SPEEDS = (150, 180)  # words a minute
VOICES = ("en-us", "en-us+f3", "en-gb", "en-gb-x-rp+m3")
OTHER_VOICES = ("en-us+f2", "en-gb-x-gbclan+m5", "en-us+m7", "en-gb+f4")  # of the fit
COUNT, SEED = 200, 77
FIT_COUNT, FIT_SEED = 120, 202
HELD_OUT = 100  # everyday sentences of the table; the rest are the fit's
NOISE = 10.0  # dB between speech and white noise
_SLOT = re.compile(r"(\{\w+\})")
FIND = ("refer", "refer_many", "what_is", "use", "follow_refer", "follow_relation")
"""frames that ask where a thing is, whatever it is called by"""
SAME = dict.fromkeys(("all_of", "everything", "all_of_group", "all_at_place", "in_color"), "all")
SAME |= dict.fromkeys(("what_is_x", "x_by_use"), "thing")
"""frames for parts of sentences that say the same"""
GLUE = {"a", "an", "the", "that", "which", "is", "are", "of", "to", "one", "it", "please"}
GLUE |= {"there", "something"}
SPELLINGS = {"color": "colour", "gray": "grey"}
STEPS, RIDGE = 50, 1e-2  # of Newton's method


@dataclass(frozen=True)
class Utterance:
    """A sentence and its sound."""

    text: str
    samples: np.ndarray
    rate: int
    inside: bool
    """whether it is a sentence of the tabletop"""

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate


def say(text: str, voice: str, speed: int) -> tuple[np.ndarray, int]:
    """The sound that espeak-ng makes of a sentence."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        words = ["espeak-ng", "-v", voice, "-s", str(speed), "-w", str(path), text]
        try:
            subprocess.run(words, check=True)
        except FileNotFoundError:
            raise LisaError("the voices come from espeak-ng: apt install espeak-ng") from None
        return read_wav(path)


def tabletop_sentences(count: int, seed: int) -> Iterator[str]:
    """Instructions about invented scenes, of training and of the test by turns."""
    random, made = default_rng(seed), 0
    while made < count:
        split = ("everyday", "test")[made % 2]
        for question in compose(random_record(random), random, 1, split, forms={"name": 1.0}):
            made += 1
            yield question["instruction"]


def utterances(
    count: int, seed: int, voices: Sequence[str], outside: Sequence[str]
) -> list[Utterance]:
    """The sentences of the tabletop, then those of everyday life, voices and speeds by turns."""
    turns = [(voice, speed) for voice in voices for speed in SPEEDS]
    made = []
    for inside, texts in ((True, list(tabletop_sentences(count, seed))), (False, outside)):
        for number, text in enumerate(texts):
            samples, rate = say(text, *turns[number % len(turns)])
            made.append(Utterance(text, samples, rate, inside))
    return made


def noisy(utterance: Utterance, decibels: float, seed: int) -> Utterance:
    """With white noise so many dB below the speech."""
    samples = utterance.samples
    spoken = samples[np.abs(samples) > 1e-3]
    deviation = np.sqrt(np.mean(spoken**2) / 10 ** (decibels / 10))
    hiss = default_rng(seed).normal(0, deviation, len(samples)).astype(np.float32)
    return Utterance(utterance.text, samples + hiss, utterance.rate, utterance.inside)


def everyday_sentences() -> tuple[list[str], list[str]]:
    """Those of the table, those of the fit."""
    lines = [line for line in OUTSIDE.read_text().splitlines() if not line.startswith("#")]
    return lines[:HELD_OUT], lines[HELD_OUT:]


def same_request(said: str, heard: str) -> bool:
    """Whether both ask for the same thing: of the same kind, with the same attributes and places.

    Words that only carry the question ("Show me", "please") may differ, and so may the ways to name
    one place ("left of", "to the left of").
    """
    return _meaning(said) == _meaning(heard)


@lru_cache(maxsize=1000)
def _meaning(text: str) -> tuple[str, ...]:
    """What a sentence asks for: the kind of question, then what its pattern's slots say."""
    uses, frames, fragments = _language()
    words = " ".join(SPELLINGS.get(word, word) for word in spoken_words(text))
    words = words.removeprefix(f"{WAKE_WORD} ")
    for lead in (text for text, name in frames.items() if name == "use_lead"):
        words = words.removeprefix(f"{lead} ")
    for end in (text for text, name in frames.items() if name == "use_end"):
        words = words.removesuffix(f" {end}")
    if words in uses:
        return ("use", uses[words])
    # the pattern with the most words of its own, as "{np}" alone fits everything
    fitting = ((frame, re.fullmatch(frame, words)) for frame in frames)
    frame, match = next((frame, match) for frame, match in fitting if match)
    slots = [fragments.sub(_fragment_name, slot) for slot in match.groups()]
    # "paint brush" and "paintbrush" sound the same
    kept = "".join(word for slot in slots for word in slot.split() if word not in GLUE)
    return ("find" if frames[frame] in FIND else frames[frame], kept)


def _fragment_name(match: re.Match[str]) -> str:
    return f" {_fragment_names()[match[0]]} "


@lru_cache(maxsize=1)
def _fragment_names() -> dict[str, str]:
    """Parts of sentences that name a place or an order, by their words: "to the left of" left."""
    names: dict[str, str] = {}
    for split in ("everyday", "test"):
        for name, group in load_patterns(split).frames.items():
            texts = [text for pattern in group for text in pattern.every_text()]
            for text in texts if all(text[0].islower() or text[0] == "{" for text in texts) else ():
                parts = [" ".join(spoken_words(part)) for part in _SLOT.split(text)[::2]]
                own = [part for part in parts if set(part.split()) - GLUE]
                if len(own) == 1:
                    names.setdefault(own[0], SAME.get(name, name))
    return names


@lru_cache(maxsize=1)
def _language() -> tuple[dict[str, str], dict[str, str], re.Pattern[str]]:
    """Whole sentences by the use they ask for; patterns, the longest first; parts of sentences."""
    uses: dict[str, str] = {}
    frames: dict[str, str] = {}
    for split in ("everyday", "test"):
        patterns = load_patterns(split)
        for use, group in patterns.uses.items():
            texts = (text for pattern in group for text in pattern.every_text())
            uses |= {" ".join(spoken_words(text)): use for text in texts}
        for name, group in patterns.frames.items():
            texts = (text for pattern in group for text in pattern.every_text())
            for text in texts:
                parts = [" ".join(spoken_words(part)) for part in _SLOT.split(text)]
                if name in FIND or text[0].isupper():
                    parts[1::2] = ["(.+)"] * (len(parts) // 2)
                    frames.setdefault(" ".join(filter(None, parts)), name)
    longest = dict(sorted(frames.items(), key=lambda item: -len(item[0].replace("(.+)", ""))))
    names = sorted(_fragment_names(), key=len, reverse=True)
    return uses, longest, re.compile(rf"\b(?:{'|'.join(names)})\b")


def fit(recognizer: recognizers.SentenceRecognizer) -> dict:
    """Logistic regression from features to "it was said so", on voices of its own."""
    spoken = utterances(FIT_COUNT, FIT_SEED, OTHER_VOICES, everyday_sentences()[1])
    rows, right = [], []
    for number, utterance in enumerate(spoken):
        for heard_as in (utterance, noisy(utterance, NOISE, number)):
            text, features = recognizer.features(heard_as.samples, heard_as.rate)
            if text:
                rows.append(features)
                right.append(utterance.inside and same_request(utterance.text, text))
    names = list(rows[0])
    values = np.array([[row[name] for name in names] + [1.0] for row in rows])
    target = np.array(right, float)
    center, scale = values[:, :-1].mean(0), values[:, :-1].std(0)
    scaled = np.column_stack([(values[:, :-1] - center) / scale, values[:, -1]])
    weights = np.zeros(scaled.shape[1])
    for _ in range(STEPS):
        guess = 1 / (1 + np.exp(-scaled @ weights))
        slope = scaled.T @ (guess - target) + RIDGE * weights
        curve = (scaled * (guess * (1 - guess))[:, None]).T @ scaled
        weights -= np.linalg.solve(curve + RIDGE * np.eye(len(weights)), slope)
    plain = weights[:-1] / scale
    return {
        "weights": {name: round(float(w), 5) for name, w in zip(names, plain, strict=True)},
        "bias": round(float(weights[-1] - plain @ center), 5),
        "fitted_on": f"{len(rows)} utterances, {int(target.sum())} of them understood",
    }


def measure(recognizer: recognizers.Recognizer, count: int = COUNT) -> Iterator[dict[str, str]]:
    """The rows of the table; half as many everyday sentences as of the tabletop."""
    spoken = utterances(count, SEED, VOICES, everyday_sentences()[0][: count // 2])
    inside = [utterance for utterance in spoken if utterance.inside]
    outside = [utterance for utterance in spoken if not utterance.inside]
    noise = [noisy(utterance, NOISE, number) for number, utterance in enumerate(inside)]
    for name, part in (("clean", inside), ("white noise, 10 dB", noise), ("outside", outside)):
        counts = {"right": 0, "wrong": 0, "asked again": 0}
        start = time.process_time()
        for utterance in part:
            heard = recognizer.recognise(utterance.samples, utterance.rate)
            right = utterance.inside and same_request(utterance.text, heard.text)
            counts["asked again" if not heard.sure else "right" if right else "wrong"] += 1
        used = time.process_time() - start
        row = {"utterances": f"{name} ({len(part)})"}
        row |= {key: f"{value / len(part):.3f}" for key, value in counts.items()}
        if part is outside:  # no answer to it is right
            row["right"] = "–"
        row["real-time factor"] = f"{used / sum(one.seconds for one in part):.2f}"
        print(row, file=sys.stderr, flush=True)
        yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="folder of a speech model of transformers")
    parser.add_argument("--count", type=int, default=COUNT, help="sentences (default: 200)")
    parser.add_argument("--fit", action="store_true", help="fit the confidence anew and write it")
    page_option(parser, "--write", "speech")
    args = parser.parse_args()
    recognizer = recognizers.load_recognizer(args.model)
    if args.fit:
        found = fit(recognizer)
        recognizers.CONFIDENCE.write_text(json.dumps(found, indent=2) + "\n")
        print(found["fitted_on"])
        return
    rows = list(measure(recognizer, args.count))
    table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
    show(table, args.write, "speech")


if __name__ == "__main__":
    main()
