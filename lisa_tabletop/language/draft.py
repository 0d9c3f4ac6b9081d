"""What every type of question needs: the scene as the language sees it, a context, a draft.

The scene says which objects may be asked for and what fits a description; the context draws
sentences; helpers at the end say how objects are called.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.random import Generator

from lisa_tabletop.language.knowledge import Kind, Knowledge, Patterns, article, pick
from lisa_tabletop.language.nouns import Vocabulary

MIN_VISIBLE = 0.4
MIN_AREA = 0.0015  # of the image
EDGE_MARGIN = 0.01  # of the image's shorter side
T = TypeVar("T")
MOST_TARGETS = 4
SIDES = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}
Turn = tuple[str, str]  # instruction, answer


@dataclass(frozen=True, eq=False)
class Referent:
    """One object in the image.

    `u`, `v`: centre, pixels; `size`: extent along the axes of the table frame as the object lies,
    metres; `uses`: {use: reason}, those of the material included; `on`: id of the object that it
    rests on or in, 0 for the table.
    """

    id: int
    kind: Kind
    color: str
    material: str
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    u: float
    v: float
    area: float
    askable: bool
    uses: Mapping[str, str]
    on: int = 0

    @property
    def noun(self) -> str:
        return f"{self.color} {self.kind.name}"

    @property
    def height(self) -> float:
        return self.size[2]

    @property
    def bulk(self) -> float:
        """Edge of the cube that has the volume of the object's box, metres."""
        x, y, z = self.size
        return (x * y * z) ** (1 / 3)


@dataclass(frozen=True)
class VisibleScene:
    """Everything that can be seen in the image, from left to right."""

    width: int
    height: int
    things: tuple[Referent, ...]
    askable: tuple[Referent, ...]
    knows_rests: bool = False  # whether the record says what rests on what

    def find(self, fits: Callable[[Referent], bool]) -> list[Referent] | None:
        """All that fit, left to right; None where one of them can't be asked for.

        Every question goes through here or checks `askable` itself. An object that is hardly
        visible or outside of what the model sees makes each description that would include it
        unaskable: it is neither counted, nor masked, nor called absent.
        """
        found = [thing for thing in self.things if fits(thing)]
        return found if all(thing.askable for thing in found) else None

    def find_one(self, fits: Callable[[Referent], bool]) -> Referent | None:
        """The only one that fits, if it can be asked for."""
        found = self.find(fits)
        return found[0] if found is not None and len(found) == 1 else None

    def find_for(self, use: str) -> list[Referent] | None:
        """All that have the use or belong to the group; None where that could be argued about."""
        if any(use in thing.kind.might and not _has(thing, use) for thing in self.things):
            return None
        return self.find(lambda thing: _has(thing, use))


def _has(thing: Referent, use: str) -> bool:
    return use in thing.uses or use in thing.kind.groups


def read_scene(record: Mapping, knowledge: Knowledge, *, whole_frame: bool = False) -> VisibleScene:
    """The scene of a record (format: docs/benchmark.md), without the objects that can't be seen.

    What lies outside of the central square may be asked for where the model sees the `whole_frame`.
    """
    width, height = record["width"], record["height"]
    things = [
        _thing(entry, _is_askable(entry, width, height, whole_frame), knowledge)
        for entry in record["objects"]
        if entry["area"] > 0
    ]
    things.sort(key=lambda thing: (thing.u, thing.id))
    askable = tuple(thing for thing in things if thing.askable)
    knows_rests = any("on" in entry for entry in record["objects"])
    return VisibleScene(width, height, tuple(things), askable, knows_rests)


def _thing(entry: Mapping, askable: bool, knowledge: Knowledge) -> Referent:
    kind = knowledge.kind(entry["kind"])
    uses = {**kind.uses, **knowledge.materials.get(entry["material"], {})}
    u, v = entry["center"]
    return Referent(
        id=entry["id"],
        kind=kind,
        color=entry["color"],
        material=entry["material"],
        size=tuple(entry["size"]),
        position=tuple(entry["position"]),
        u=u,
        v=v,
        area=entry["area"],
        askable=askable,
        uses=uses,
        on=entry.get("on", 0),
    )


def _is_askable(entry: Mapping, width: int, height: int, whole_frame: bool) -> bool:
    """Visible enough, large enough, and centred in what the language model is shown."""
    side = min(width, height)
    margin = EDGE_MARGIN * side
    across = (width if whole_frame else side) / 2 - margin
    upright = (height if whole_frame else side) / 2 - margin
    u, v = entry["center"]
    return (
        entry["visible"] >= MIN_VISIBLE
        and entry["area"] >= MIN_AREA * width * height
        and abs(u - width / 2) <= across
        and abs(v - height / 2) <= upright
    )


@dataclass(frozen=True)
class Draft:
    """A question before its form is chosen.

    Exactly one is filled: `targets` (masks are asked for, and there are some), `refusal` (masks are
    asked for, but there is no such thing), or `text` (no mask is asked for). `because` explains the
    targets.
    """

    instruction: str
    targets: Sequence[Referent] = ()
    because: str = ""
    refusal: str = ""
    text: str = ""
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a question is made from."""

    scene: VisibleScene
    knowledge: Knowledge
    patterns: Patterns
    random: Generator
    vocabulary: Vocabulary  # what is asked for in vain

    def pick(self, items: Sequence):
        return pick(self.random, items)

    def askable_thing(self) -> Referent:
        """One of the objects that may be asked for."""
        demand(bool(self.scene.askable))
        return self.pick(self.scene.askable)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def frame(self, name: str, **slots: str) -> str:
        """One sentence of the frame with that name."""
        return self.pick(self.patterns.frames[name]).render(self.random, **slots)

    def name(self, kind: Kind) -> str:
        """What an instruction calls things of a kind: mostly the first name, at times another."""
        return kind.name if self.chance(0.7) else self.pick(kind.names)

    def refer(self, noun: str) -> str:
        """An instruction that asks for the one thing that `noun` ("red mug") describes."""
        return self.frame("refer", **noun_slots(noun))


class Unclear(Exception):
    """The question would not be clear, or there is nothing to ask: another is drawn instead."""


def clear(value: T | None) -> T:
    """The value, where there is one."""
    if value is None:
        raise Unclear
    return value


def demand(condition: bool) -> None:
    """Go on only where this holds."""
    if not condition:
        raise Unclear


def noun_slots(noun: str) -> dict[str, str]:
    """The slots that a noun fills: np, noun, a, is."""
    verb = "are" if noun.endswith("scissors") and " of " not in noun else "is"
    return {"np": f"the {noun}", "noun": noun, "a": article(noun), "is": verb}


def unique_noun(context: Context, thing: Referent) -> str | None:
    """A noun, with or without colour, that fits `thing` alone; None if there is none."""
    things = context.scene.things
    same_kind = [other for other in things if other.kind is thing.kind]
    same_look = [other for other in same_kind if other.color == thing.color]
    if len(same_look) > 1:
        return None
    name = context.name(thing.kind)
    if len(same_kind) == 1 and context.chance(0.5):
        return name
    return f"{thing.color} {name}"


def reference(context: Context, thing: Referent) -> str | None:
    """'the red mug', where that is clear."""
    noun = unique_noun(context, thing)
    return noun and f"the {noun}"


def anchor(context: Context, avoid: Referent | None = None) -> tuple[Referent, str] | None:
    """A thing that a question can refer to, and the words for it."""
    others = [thing for thing in context.scene.askable if thing is not avoid]
    if not others:
        return None
    thing = context.pick(others)
    words = reference(context, thing)
    return (thing, words) if words else None


def ask_place(context: Context, rel: str) -> str:
    """'What is left of the book?' or 'Find the thing left of the book.'"""
    if context.chance(0.5):
        return context.frame("what_is", rel=rel)
    return context.refer(f"{context.frame('thing')} {rel}")


def there_is_no(words: str) -> str:
    """'red mug' -> 'There is no red mug here.'"""
    return f"There is no {words} here."


def join(words: Sequence[str]) -> str:
    """'a', 'b', 'c' -> 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def named(targets: Sequence[Referent]) -> str:
    """'It is the red mug [SEG].' or 'They are the red mug [SEG] and the blue mug [SEG].'"""
    words = join([f"the {thing.noun} [SEG]" for thing in targets])
    return f"It is {words}." if len(targets) == 1 else f"They are {words}."


def use_reason(targets: Sequence[Referent], use: str) -> str:
    """Why the targets are good for `use`: one sentence for each kind among them."""
    sentences = {thing.kind.key: thing.kind.sentence(thing.uses[use]) for thing in targets}
    return " ".join(sentences.values())
