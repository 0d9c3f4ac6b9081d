"""What is asked about a view in training: everything, or nothing that has to be thought out.

Implicit is a question that does not say what it means: by use or situation, or in two steps. The
experiment of headline.py trains a model that never met one.
"""

from __future__ import annotations

from collections.abc import Mapping

from numpy.random import Generator

from lisa_tabletop.language.instructions import compose
from lisa_tabletop.language.knowledge import load_knowledge

IMPLICIT = ("use", "two_hop")
_NOTHING_FOR = "There is nothing here "


def questions_about(
    record: Mapping,
    random: Generator,
    count: int,
    types: Mapping[str, float],
    *,
    implicit: bool,
) -> list[dict]:
    """Up to `count` questions as `compose` makes them; without `implicit`, none is implicit."""
    if implicit:
        return compose(record, random, count, types=types)
    left_out = (*IMPLICIT, "followup")  # whose first turn may be implicit
    plainer = {name: weight for name, weight in types.items() if name not in left_out}
    return [q for q in compose(record, random, count, types=plainer) if not is_implicit(q)]


def is_implicit(question: Mapping) -> bool:
    """Whether a question, or a turn before it, asks by use or in two steps."""
    if question["type"] in IMPLICIT or question.get("history"):
        return True
    if question["answer"].startswith(_NOTHING_FOR):
        return True
    return any(use in question["instruction"] for use in load_knowledge().uses.values())
