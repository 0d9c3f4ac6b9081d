"""All that the language knows, which is data beside this file.

The kinds of things and their uses (1, knowledge.yaml), and the sentences that ask for them (2, the
folder patterns/). The words for what no table of ours holds: nouns.py.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import product
from pathlib import Path

import yaml
from numpy.random import Generator

from lisa_ros.errors import LisaError

KNOWLEDGE_FILE = Path(__file__).with_name("knowledge.yaml")
PATTERN_FOLDER = KNOWLEDGE_FILE.with_name("patterns")
# Sentences that the fixed test set draws from ("train": met in training; "test": never), those of
# "train" and of the folder everyday/, which the recogniser of speech knows, and all that training
# hears: those and the folder training/.
SPLITS = ("train", "test", "everyday", "training")
_ADDED_TO = {"everyday": "train", "training": "everyday"}
_CHOICE = re.compile(r"\(([^()]*)\)")


class KnowledgeError(LisaError):
    """knowledge.yaml, a pattern file, or a scene record does not fit the others."""


# 1. the kinds of things


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of object. The fields are explained at the head of knowledge.yaml."""

    key: str
    names: tuple[str, ...]
    colors: tuple[str, ...]
    materials: tuple[str, ...]
    size: tuple[float, float]
    about: str
    uses: Mapping[str, str]
    also: tuple[str, ...] = ()
    holds: str = ""
    groups: tuple[str, ...] = ()
    might: tuple[str, ...] = ()
    plurals: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.names[0]

    def plural(self, name: str) -> str:
        return self.plurals.get(name) or plural_of(name)

    def sentence(self, predicate: str) -> str:
        """'holds a drink' -> 'A mug holds a drink.'"""
        return f"{article(self.name).capitalize()} {predicate}."


@dataclass(frozen=True)
class Knowledge:
    """Everything in knowledge.yaml.

    `materials`: {material: {use: reason}}; `adjectives`: {material: "wooden"};
    `pairs`: {kind's key: {partner's key: reason}}.
    """

    colors: tuple[str, ...]
    materials: Mapping[str, Mapping[str, str]]
    adjectives: Mapping[str, str]
    uses: Mapping[str, str]
    groups: Mapping[str, str]
    kinds: Mapping[str, Kind]
    pairs: Mapping[str, Mapping[str, str]]

    def kind(self, key: str) -> Kind:
        """Raise KnowledgeError where knowledge.yaml has no such kind."""
        if key not in self.kinds:
            raise KnowledgeError(
                f"The kind '{key}' has no entry in {KNOWLEDGE_FILE.name}: add one."
            )
        return self.kinds[key]


def article(noun: str) -> str:
    """'apple' -> 'an apple'."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def plural_of(name: str) -> str:
    """The regular plural: 'mug' -> 'mugs', 'roll of tape' -> 'rolls of tape'."""
    head, of, rest = name.partition(" of ")
    ending = "es" if head.endswith(("s", "x", "ch", "sh")) else "s"
    return head + ending + of + rest


@lru_cache(maxsize=1)
def load_knowledge() -> Knowledge:
    """Read and check knowledge.yaml; every name that one part uses must be defined by another."""
    raw = yaml.safe_load(KNOWLEDGE_FILE.read_text(encoding="utf-8"))
    kinds = {key: _kind(key, entry) for key, entry in raw["kinds"].items()}
    materials = {name: dict(entry.get("uses", {})) for name, entry in raw["materials"].items()}
    adjectives = {name: entry.get("adjective", name) for name, entry in raw["materials"].items()}
    pairs: dict[str, dict[str, str]] = {key: {} for key in kinds}
    for pair in raw["pairs"]:
        one, other = pair["kinds"]
        _require((one, other), kinds, "pairs", "kinds")
        pairs[one][other] = pairs[other][one] = pair["because"]
    for key, kind in kinds.items():
        _require((*kind.colors, *kind.also), raw["colors"], key, "colors")
        _require((kind.holds,), ("", "in", "on"), key, "words for holds")
        _require(kind.materials, materials, key, "materials")
        _require(kind.uses, raw["uses"], key, "uses")
        _require(kind.groups, raw["groups"], key, "groups")
        _require(kind.might, {**raw["uses"], **raw["groups"]}, key, "uses or groups")
    for name, uses in materials.items():
        _require(uses, raw["uses"], name, "uses")
    return Knowledge(
        colors=tuple(raw["colors"]),
        materials=materials,
        adjectives=adjectives,
        uses=raw["uses"],
        groups=raw["groups"],
        kinds=kinds,
        pairs=pairs,
    )


def _kind(key: str, entry: dict) -> Kind:
    lists = ("names", "colors", "also", "materials", "size", "groups", "might")
    try:
        return Kind(key, **{k: tuple(v) if k in lists else v for k, v in entry.items()})
    except TypeError as fault:
        raise KnowledgeError(f"{KNOWLEDGE_FILE.name}, kind '{key}': {fault}") from None


def _require(names, known, owner: str, section: str) -> None:
    for name in names:
        if name not in known:
            raise KnowledgeError(
                f"{KNOWLEDGE_FILE.name}: '{owner}' has '{name}', which is not among the {section}."
            )


# 2. the sentences


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
