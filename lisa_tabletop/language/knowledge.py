"""What the language knows of the tabletop, as knowledge.yaml has it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import yaml

from lisa_ros.errors import LisaError

KNOWLEDGE_FILE = Path(__file__).with_name("knowledge.yaml")


class KnowledgeError(LisaError):
    """knowledge.yaml, a pattern file, or a scene record does not fit the others."""


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
