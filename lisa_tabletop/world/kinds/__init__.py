"""Parametric builders of the household objects: every call draws another member of the kind.

A builder returns a `Shape` standing on the plane z = 0. What a kind is called, its colours and its
material stand in language/knowledge.yaml, the one list of the kinds.
"""

from collections.abc import Callable

from numpy.random import Generator

from lisa_tabletop.language.knowledge import Kind, load_knowledge
from lisa_tabletop.world.kinds import home, kitchen, workshop
from lisa_tabletop.world.parts import Draw, Shape

KINDS: dict[str, Kind] = dict(load_knowledge().kinds)
"""By name, in the order that decides what a seed draws: new kinds go to the end."""

BUILDERS: dict[str, Callable[[Draw], Shape]] = {
    name: next(getattr(room, name) for room in (kitchen, workshop, home) if hasattr(room, name))
    for name in KINDS
}


def build(kind: str, random: Generator, held_out: bool = False) -> Shape:
    """Another member of the kind, or one of a shape that training never shows."""
    return BUILDERS[kind](Draw(random, held_out))


def palette(kind: str, held_out: bool = False) -> tuple[str, ...]:
    """The colours to choose from; held out are those that the kind never has in training.

    A kind without held-out colours, such as a fruit, keeps its usual ones.
    """
    return (KINDS[kind].also if held_out else ()) or KINDS[kind].colors
