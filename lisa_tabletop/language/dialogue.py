"""Questions with an answer in words only, and questions that follow an earlier turn."""

from dataclasses import replace

from lisa_tabletop.language import reference, spatial
from lisa_tabletop.language.draft import Context, Draft, Thing, join, named, noun_slots, unique_noun
from lisa_tabletop.language.knowledge import article

_MOST_LISTED = 5


def text(context: Context) -> Draft | None:
    """How many, what colour, what material, what about, is there, is it, what is there at all."""
    return context.pick(_TEXTS)(context)


def _how_many(context: Context) -> Draft | None:
    if not context.scene.askable:
        return None
    thing = context.pick(context.scene.askable)
    alike = context.scene.find(lambda other: other.kind is thing.kind)
    if alike is None:
        return None
    many = thing.kind.plural(thing.kind.name)
    n = len(alike)
    answer = f"There is 1 {thing.kind.name}." if n == 1 else f"There are {n} {many}."
    return Draft(context.frame("how_many", many=many), text=answer)


def _is_there(context: Context) -> Draft | None:
    kind = context.pick(tuple(context.knowledge.kinds.values()))
    if context.chance(0.5) and context.scene.askable:
        kind = context.pick(context.scene.askable).kind
    alike = context.scene.find(lambda other: other.kind is kind)
    if alike is None:
        return None
    instruction = context.frame("is_there", a=article(kind.name))
    return Draft(instruction, text="Yes." if alike else "No.")


def _about_one(context: Context) -> Draft | None:
    """Colour, material, or purpose of one object."""
    if not context.scene.askable:
        return None
    thing = context.pick(context.scene.askable)
    # naming the colour would give the answer away, so the thing must be alone of its kind
    if context.scene.find_one(lambda other: other.kind is thing.kind) is None:
        return None
    return _is_it(context, thing) if context.chance(0.25) else _ask_fact(context, thing)


def _is_it(context: Context, thing: Thing) -> Draft:
    """'Is the mug red?'"""
    color = thing.color if context.chance(0.5) else context.pick(context.knowledge.colors)
    instruction = context.frame("is_it", color=color, **noun_slots(context.name(thing)))
    return Draft(instruction, text="Yes." if color == thing.color else "No.")


def _ask_fact(context: Context, thing: Thing) -> Draft:
    """'What colour is the mug?'"""
    frame, answer = context.pick(_facts(thing))
    return Draft(context.frame(frame, **noun_slots(context.name(thing))), text=answer)


def _facts(thing: Thing) -> list[tuple[str, str]]:
    facts = [
        ("what_color", f"The {thing.kind.name} is {thing.color}."),
        ("what_about", thing.kind.sentence(thing.kind.about)),
    ]
    if thing.material != "food":
        facts.append(("what_material", f"The {thing.kind.name} is made of {thing.material}."))
    return facts


def _what_is_there(context: Context) -> Draft | None:
    """All objects, from left to right."""
    things = context.scene.find(lambda _: True)
    if not things or len(things) > _MOST_LISTED:
        return None
    return Draft(
        context.frame("what_is_there"),
        text=f"I see {join([article(thing.noun) for thing in things])}.",
    )


_TEXTS = (_how_many, _is_there, _about_one, _about_one, _what_is_there)


def followup(context: Context) -> Draft | None:
    """A question that leans on the turn before it."""
    first = context.pick((reference.plain, reference.use, spatial.relation))(context)
    if first is None or len(first.targets) != 1:
        return None
    draft = context.pick(_FOLLOWUPS)(context, first)
    if draft is None:
        return None
    turns = draft.history or ((first.instruction, named(first.targets)),)
    return replace(draft, history=turns)


def _follow_relation(context: Context, first: Draft) -> Draft | None:
    """'And the one left of it?'"""
    step = spatial.next_object(context, first.targets[0], "it")
    if step is None:
        return None
    thing, rel, side = step
    because = f"It is {side} the {first.targets[0].noun}."
    return Draft(context.frame("follow_relation", rel=rel), [thing], because=because)


def _follow_refer(context: Context, first: Draft) -> Draft | None:
    """'And the book?'"""
    thing = context.pick(context.scene.askable)
    noun = None if thing is first.targets[0] else unique_noun(context, thing)
    if noun is None:
        return None
    instruction = context.frame("follow_refer", **noun_slots(noun))
    return Draft(instruction, [thing], because=thing.kind.sentence(thing.kind.about))


def _follow_other(context: Context, first: Draft) -> Draft | None:
    """'And the other one?' where there are two of the kind."""
    kind = first.targets[0].kind
    pair = context.scene.find(lambda other: other.kind is kind)
    if pair is None or len(pair) != 2:
        return None
    other = pair[0] if pair[1] is first.targets[0] else pair[1]
    return Draft(context.frame("follow_other"), [other], because=kind.sentence(kind.about))


def _follow_fact(context: Context, first: Draft) -> Draft | None:
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


def _follow_again(context: Context, first: Draft) -> Draft | None:
    """'What colour is the mug?' 'The mug is red.' 'Show it to me.'"""
    thing = first.targets[0]
    if context.scene.find_one(lambda other: other.kind is thing.kind) is None:
        return None
    asked = _ask_fact(context, thing)
    because = thing.kind.sentence(thing.kind.about)
    history = ((asked.instruction, asked.text),)
    return Draft(context.frame("follow_again"), [thing], because, history=history)


_FOLLOWUPS = (
    *(_follow_relation, _follow_relation, _follow_refer, _follow_refer, _follow_other),
    *(_follow_fact, _follow_again),
)
