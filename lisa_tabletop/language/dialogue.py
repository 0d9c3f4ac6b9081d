"""Questions with an answer in words only, and questions that follow an earlier turn."""

from dataclasses import replace

from lisa_tabletop.language import reference, spatial
from lisa_tabletop.language.draft import (
    Context,
    Draft,
    Referent,
    clear,
    demand,
    join,
    named,
    noun_slots,
    unique_noun,
)
from lisa_tabletop.language.knowledge import article

_MOST_LISTED = 5


def text(context: Context) -> Draft:
    """How many, what colour, what material, what about, is there, is it, what is there at all."""
    return context.pick(_TEXTS)(context)


def _how_many(context: Context) -> Draft:
    kind = context.askable_thing().kind
    n = len(clear(context.scene.find(lambda other: other.kind is kind)))
    many = kind.plural(kind.name)
    answer = f"There is 1 {kind.name}." if n == 1 else f"There are {n} {many}."
    return Draft(context.frame("how_many", many=many), text=answer)


def _is_there(context: Context) -> Draft:
    kind = context.pick(tuple(context.knowledge.kinds.values()))
    if context.chance(0.5) and context.scene.askable:
        kind = context.askable_thing().kind
    alike = clear(context.scene.find(lambda other: other.kind is kind))
    instruction = context.frame("is_there", a=article(kind.name))
    return Draft(instruction, text="Yes." if alike else "No.")


def _about_one(context: Context) -> Draft:
    """Colour, material, or purpose of one object."""
    thing = context.askable_thing()
    # naming the colour would give the answer away, so the thing must be alone of its kind
    clear(context.scene.find_one(lambda other: other.kind is thing.kind))
    return _is_it(context, thing) if context.chance(0.25) else _ask_fact(context, thing)


def _is_it(context: Context, thing: Referent) -> Draft:
    """'Is the mug red?'"""
    color = thing.color if context.chance(0.5) else context.pick(context.knowledge.colors)
    instruction = context.frame("is_it", color=color, **noun_slots(context.name(thing.kind)))
    return Draft(instruction, text="Yes." if color == thing.color else "No.")


def _ask_fact(context: Context, thing: Referent) -> Draft:
    """'What colour is the mug?'"""
    facts = [
        ("what_color", f"The {thing.kind.name} is {thing.color}."),
        ("what_about", thing.kind.sentence(thing.kind.about)),
    ]
    if thing.material != "food":
        facts.append(("what_material", f"The {thing.kind.name} is made of {thing.material}."))
    frame, answer = context.pick(facts)
    return Draft(context.frame(frame, **noun_slots(context.name(thing.kind))), text=answer)


def _what_is_there(context: Context) -> Draft:
    """All objects, from left to right."""
    things = clear(context.scene.find(lambda _: True))
    demand(0 < len(things) <= _MOST_LISTED)
    answer = f"I see {join([article(thing.noun) for thing in things])}."
    return Draft(context.frame("what_is_there"), text=answer)


_TEXTS = (_how_many, _is_there, _about_one, _about_one, _what_is_there)


def followup(context: Context) -> Draft:
    """A question that leans on the turn before it."""
    first = context.pick((reference.plain, reference.use, spatial.relation))(context)
    demand(len(first.targets) == 1)
    draft = context.pick(_FOLLOWUPS)(context, first)
    turns = draft.history or ((first.instruction, named(first.targets)),)
    return replace(draft, history=turns)


def _follow_relation(context: Context, first: Draft) -> Draft:
    """'And the one left of it?'"""
    thing, rel, side = spatial.next_object(context, first.targets[0], "it")
    because = f"It is {side} the {first.targets[0].noun}."
    return Draft(context.frame("follow_relation", rel=rel), [thing], because=because)


def _follow_refer(context: Context, first: Draft) -> Draft:
    """'And the book?'"""
    thing = context.askable_thing()
    demand(thing is not first.targets[0])
    noun = clear(unique_noun(context, thing))
    instruction = context.frame("follow_refer", **noun_slots(noun))
    return Draft(instruction, [thing], because=thing.kind.sentence(thing.kind.about))


def _follow_other(context: Context, first: Draft) -> Draft:
    """'And the other one?' where there are two of the kind."""
    kind = first.targets[0].kind
    pair = clear(context.scene.find(lambda other: other.kind is kind))
    demand(len(pair) == 2)
    other = pair[0] if pair[1] is first.targets[0] else pair[1]
    return Draft(context.frame("follow_other"), [other], because=kind.sentence(kind.about))


def _follow_fact(context: Context, first: Draft) -> Draft:
    """'What colour is it?'"""
    thing = first.targets[0]
    facts = [
        ("follow_color", f"It is {thing.color}."),
        ("follow_about", thing.kind.sentence(thing.kind.about)),
        ("follow_why", first.because),
    ]
    if thing.material != "food":
        facts.append(("follow_material", f"It is made of {thing.material}."))
    frame, answer = context.pick(facts)
    return Draft(context.frame(frame), text=answer)


def _follow_again(context: Context, first: Draft) -> Draft:
    """'What colour is the mug?' 'The mug is red.' 'Show it to me.'"""
    thing = first.targets[0]
    clear(context.scene.find_one(lambda other: other.kind is thing.kind))
    asked = _ask_fact(context, thing)
    because = thing.kind.sentence(thing.kind.about)
    history = ((asked.instruction, asked.text),)
    return Draft(context.frame("follow_again"), [thing], because, history=history)


_FOLLOWUPS = (
    *(_follow_relation, _follow_relation, _follow_refer, _follow_refer, _follow_other),
    *(_follow_fact, _follow_again),
)
