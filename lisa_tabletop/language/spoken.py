"""The tabletop's sentences as a recogniser of speech wants them: a language model, pronunciations.

    python -m lisa_tabletop.language.spoken     # writes lisa_ros/speech/tabletop.lm.gz

A sentence pattern is cut into phrases, what stands between its slots and stops: "(Can|Could) you
find {np}?" gives "can_you_find" and "could_you_find". Each phrase is one word of the model, as long
as it sounds; the names that fill the slots stay single words. So three words in a row see most
of a sentence, and a recogniser that knows trigrams follows the grammar.
"""

import gzip
import math
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from numpy.random import Generator, default_rng

from lisa_tabletop.language.instructions import compose, random_record
from lisa_tabletop.language.knowledge import Pattern, Patterns, load_patterns

MODEL = Path(__file__).resolve().parents[2] / "lisa_ros" / "speech" / "tabletop.lm.gz"
SEED = 20
SCENES = 5_000  # invented for each split
QUESTIONS = 8  # asked about each
WAKE_WORD, CALLED = "robot", 0.05  # what some sentences begin with, and how many
DISCOUNT = 0.5  # taken from every count for what was never counted
LEAST = 2  # times that three words must stand in a row to be kept
_SLOT = re.compile(r"(\{\w+\})")


def spoken_words(text: str) -> list[str]:
    """The words of a sentence as a recogniser hears them: lower case, no stops, no accents."""
    plain = unicodedata.normalize("NFKD", text.replace("’", "'")).encode("ascii", "ignore").decode()
    return re.findall(r"[a-z0-9_]+(?:'[a-z0-9_]+)*", plain.lower().replace("-", " "))


def in_phrases(text: str) -> str:
    """'Can you find {np}, please?' -> 'Can_you_find {np}, please?'"""
    parts = _SLOT.split(text)
    for place in range(0, len(parts), 2):
        pieces = re.split(r"([.,;:!?]+\s*|\s+$|^\s+)", parts[place])
        parts[place] = "".join(
            piece if index % 2 else "_".join(spoken_words(piece))
            for index, piece in enumerate(pieces)
        )
    return "".join(parts)


def phrased(patterns: Patterns) -> Patterns:
    """The same patterns, their literal parts joined to phrases."""

    def every(group: Iterable[Pattern]) -> tuple[Pattern, ...]:
        texts = {in_phrases(text): None for pattern in group for text in pattern.every_text()}
        return tuple(Pattern(text, ((text,),)) for text in texts)

    return Patterns(
        {name: every(group) for name, group in patterns.frames.items()},
        {name: every(group) for name, group in patterns.uses.items()},
    )


def spoken_sentences(random: Generator, scenes: int = SCENES) -> Iterator[list[str]]:
    """Sentences about invented scenes, of training and of the test, as lists of phrases."""
    for split in ("everyday", "test"):
        patterns = phrased(load_patterns(split))
        for group in patterns.uses.values():
            yield from (spoken_words(pattern.source) for pattern in group)
        for _ in range(scenes):
            record = random_record(random)
            for question in compose(record, random, QUESTIONS, split, patterns=patterns):
                words = spoken_words(question["instruction"])
                yield [WAKE_WORD, *words] if random.random() < CALLED else words


def language_model(sentences: Iterable[Sequence[str]]) -> str:
    """Trigrams with absolute discounting and Kneser-Ney's unigrams, in the format ARPA.

    (Ney, Essen, Kneser: On structuring probabilistic dependences in stochastic language modelling,
    1994.)
    """
    pairs: Counter = Counter()
    triples: Counter = Counter()
    for sentence in sentences:
        words = ("<s>", *sentence, "</s>")
        pairs.update(pairwise(words))
        triples.update(zip(words, words[1:], words[2:], strict=False))

    # 1. a word, by how many different words it follows
    follows = Counter(word for _, word in pairs)
    one = {word: count / follows.total() for word, count in follows.items()}

    # 2. after one word, and 3. after two: what is counted, less the discount, plus the share of
    # what the shorter context says
    two, back_one = _level(pairs, {(word,): p for word, p in one.items()}, 1)
    kept = {key: count for key, count in triples.items() if count >= LEAST}
    three, back_two = _level(kept, two, 0, pairs)

    lines = ["\\data\\", f"ngram 1={len(one) + 1}", f"ngram 2={len(two)}", f"ngram 3={len(three)}"]
    lines += ["", "\\1-grams:"]
    for word in sorted({*one, "<s>"}):
        back = back_one.get((word,), 1.0)
        lines.append(f"{_log(one.get(word, 0))} {word} {_log(back)}")
    lines += ["", "\\2-grams:"]
    for key in sorted(two):
        lines.append(f"{_log(two[key])} {' '.join(key)} {_log(back_two.get(key, 1.0))}")
    lines += ["", "\\3-grams:"]
    lines += [f"{_log(three[key])} {' '.join(key)}" for key in sorted(three)]
    return "\n".join([*lines, "", "\\end\\", ""])


def _level(counts, shorter, least: int, seen=None):
    """Probabilities of word sequences of one length, and each context's weight of backing off."""
    after: dict[tuple, list] = defaultdict(list)
    for key, count in counts.items():
        after[key[:-1]].append((key, count))
    probability, back_off = {}, {}
    for context, entries in after.items():
        total = seen[context] if seen else sum(count for _, count in entries)
        counted = sum(count for _, count in entries)
        free = (DISCOUNT * len(entries) + total - counted) / total
        below = [shorter[key[1:]] for key, _ in entries]
        for (key, count), low in zip(entries, below, strict=True):
            probability[key] = (count - DISCOUNT) / total + free * low
        left = 1 - sum(probability[key] for key, _ in entries)
        back_off[context] = max(left, 1e-6) / max(1 - sum(below), 1e-6)
    return probability, back_off


def _log(probability: float) -> str:
    return f"{math.log10(max(probability, 1e-9)):.3f}"


def written_model() -> bytes:
    """The file that lisa_ros ships, byte for byte."""
    text = language_model(spoken_sentences(default_rng(SEED)))
    return gzip.compress(text.encode(), 9, mtime=0)


if __name__ == "__main__":
    MODEL.write_bytes(written_model())
    print(f"{MODEL}: {MODEL.stat().st_size:,} bytes", file=sys.stderr)
