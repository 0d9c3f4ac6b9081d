"""Sentence patterns: "(Find|Show me) {np}." and the YAML files that hold them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import yaml
from numpy.random import Generator

from lisa_tabletop.language.knowledge import KnowledgeError, load_knowledge

PATTERN_FOLDER = Path(__file__).with_name("patterns")
# Sentences that the fixed test set draws from ("train": met in training; "test": never), those of
# "train" and of the folder everyday/, which the recogniser of speech knows, and all that training
# hears: those and the folder training/.
SPLITS = ("train", "test", "everyday", "training")
_ADDED_TO = {"everyday": "train", "training": "everyday"}
_CHOICE = re.compile(r"\(([^()]*)\)")


def pick(random: Generator, items):
    """One of `items` (a sequence), all equally likely."""
    return items[int(random.random() * len(items))]  # several times faster than random.choice


@dataclass(frozen=True)
class Pattern:
    """A sentence with choices, "(a|b)", and slots, "{np}"."""

    source: str
    parts: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, source: str) -> "Pattern":
        pieces = _CHOICE.split(source)
        if any(mark in piece for piece in pieces[::2] for mark in "()|"):
            raise KnowledgeError(f'Pattern "{source}": choices are written (a|b) and not nested.')
        parts = (tuple(piece.split("|")) for piece in pieces)
        return cls(source, tuple(parts))

    def render(self, random: Generator, **slots: str) -> str:
        text = "".join(part[0] if len(part) == 1 else pick(random, part) for part in self.parts)
        return text.format_map(slots) if slots else text

    def every_text(self) -> Iterator[str]:
        """Each text that the choices allow, slots left as they are."""
        return ("".join(choice) for choice in product(*self.parts))


@dataclass(frozen=True)
class Patterns:
    """The patterns of one split: `frames` by name, `uses` by the use that they ask for."""

    frames: Mapping[str, tuple[Pattern, ...]]
    uses: Mapping[str, tuple[Pattern, ...]]


@lru_cache(maxsize=len(SPLITS))
def load_patterns(split: str) -> Patterns:
    """The patterns of `split`. ValueError for another split, KnowledgeError for a bad file."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not '{split}'")
    if split in _ADDED_TO:
        return _with_more(load_patterns(_ADDED_TO[split]), PATTERN_FOLDER / split)
    frames, uses = {}, {}
    for path in sorted(PATTERN_FOLDER.glob("*.yaml")):
        for name, entry in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            is_frame = path.stem == "frames"
            if not is_frame and name not in load_knowledge().uses:
                raise KnowledgeError(f"{path.name}: '{name}' is not a use in knowledge.yaml.")
            texts = entry.get(split) or (entry["train"] if is_frame else ())
            (frames if is_frame else uses)[name] = tuple(Pattern.parse(text) for text in texts)
    return Patterns(frames, uses)


def _with_more(fewer: Patterns, folder: Path) -> Patterns:
    """Those and the folder's: lists of texts by the frame or use they add to."""
    frames, uses = dict(fewer.frames), dict(fewer.uses)
    for path in sorted(folder.glob("*.yaml")):
        more = frames if path.stem == "frames" else uses
        for name, texts in yaml.safe_load(path.read_text(encoding="utf-8")).items():
            if name not in more:
                raise KnowledgeError(f"{folder.name}/{path.name}: '{name}' is no frame or use.")
            more[name] += tuple(Pattern.parse(text) for text in texts)
    return Patterns(frames, uses)
