"""What every type of question needs: its context, its draft, and how objects are called."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.random import Generator

from lisa_tabletop.language.knowledge import Knowledge, article
from lisa_tabletop.language.patterns import Patterns, pick
from lisa_tabletop.language.scene import Scene, Thing

MOST_TARGETS = 4
SIDES = {"left": "left of", "right": "right of", "front": "in front of", "behind": "behind"}
Turn = tuple[str, str]  # instruction, answer


@dataclass(frozen=True)
class Draft:
    """A question before its form is chosen.

    Exactly one is filled: `targets` (masks are asked for, and there are some), `refusal` (masks are
    asked for, but there is no such thing), or `text` (no mask is asked for). `because` explains the
    targets.
    """

    instruction: str
    targets: Sequence[Thing] = ()
    because: str = ""
    refusal: str = ""
    text: str = ""
    history: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Context:
    """What a question is made from."""

    scene: Scene
    knowledge: Knowledge
    patterns: Patterns
    random: Generator

    def pick(self, items: Sequence):
        return pick(self.random, items)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def frame(self, name: str, **slots: str) -> str:
        """One sentence of the frame with that name."""
        return self.pick(self.patterns.frames[name]).render(self.random, **slots)

    def name(self, thing: Thing) -> str:
        """What an instruction calls the thing's kind: mostly the first name, at times another."""
        names = thing.kind.names
        return names[0] if self.chance(0.7) else self.pick(names)

    def refer(self, noun: str) -> str:
        """An instruction that asks for the one thing that `noun` ("red mug") describes."""
        return self.frame("refer", **noun_slots(noun))


def noun_slots(noun: str) -> dict[str, str]:
    """The slots that a noun fills: np, noun, a, is."""
    verb = "are" if noun.endswith("scissors") and " of " not in noun else "is"
    return {"np": f"the {noun}", "noun": noun, "a": article(noun), "is": verb}


def unique_noun(context: Context, thing: Thing) -> str | None:
    """A noun, with or without colour, that fits `thing` alone; None if there is none."""
    things = context.scene.things
    same_kind = [other for other in things if other.kind is thing.kind]
    same_look = [other for other in same_kind if other.color == thing.color]
    if len(same_look) > 1:
        return None
    name = context.name(thing)
    if len(same_kind) == 1 and context.chance(0.5):
        return name
    return f"{thing.color} {name}"


def reference(context: Context, thing: Thing) -> str | None:
    """'the red mug', where that is clear."""
    noun = unique_noun(context, thing)
    return noun and f"the {noun}"


def anchor(context: Context, avoid: Thing | None = None) -> tuple[Thing, str] | None:
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


def absent(words: str) -> str:
    """'red mug' -> 'There is no red mug here.'"""
    return f"There is no {words} here."


def join(words: Sequence[str]) -> str:
    """'a', 'b', 'c' -> 'a, b and c'."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def named(targets: Sequence[Thing]) -> str:
    """'It is the red mug [SEG].' or 'They are the red mug [SEG] and the blue mug [SEG].'"""
    words = join([f"the {thing.noun} [SEG]" for thing in targets])
    return f"It is {words}." if len(targets) == 1 else f"They are {words}."


def use_reason(targets: Sequence[Thing], use: str) -> str:
    """Why the targets are good for `use`: one sentence for each kind among them."""
    sentences = {thing.kind.key: thing.kind.sentence(thing.uses[use]) for thing in targets}
    return " ".join(sentences.values())
