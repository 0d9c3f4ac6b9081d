"""Questions by place, by what rests on or in what, and those that take two steps."""

from lisa_tabletop.language import relations
from lisa_tabletop.language.draft import (
    MOST_TARGETS,
    SIDES,
    Context,
    Draft,
    Thing,
    anchor,
    ask_place,
    reference,
)


def relation(context: Context) -> Draft | None:
    """Left, right, in front, behind, next to, between, nearest, n-th, superlative, in, on."""
    return context.pick(_RELATIONS)(context)


def _kind_on_side(context: Context) -> Draft | None:
    """'the mug left of the book'"""
    found = anchor(context)
    if found is None:
        return None
    other, words = found
    thing = context.pick(context.scene.askable)
    direction = context.pick(tuple(SIDES))
    alike = [one for one in context.scene.things if one.kind is thing.kind and one is not other]
    targets = relations.on_side(context.scene, alike, other, direction)
    if targets is None or targets != [thing]:
        return None
    noun = f"{context.name(thing)} {context.frame(direction, x=words)}"
    return Draft(context.refer(noun), [thing], because=f"It is {SIDES[direction]} {words}.")


def _neighbour(context: Context) -> Draft | None:
    """'What is left of the book?'"""
    found = anchor(context)
    if found is None:
        return None
    step = next_object(context, *found)
    if step is None:
        return None
    thing, rel, side = step
    return Draft(ask_place(context, rel), [thing], because=f"It is {side} {found[1]}.")


def next_object(context: Context, other: Thing, words: str) -> tuple[Thing, str, str] | None:
    """The object beside `other` on some side: (object, the relation in words, 'left of')."""
    direction = context.pick((*SIDES, "next_to"))
    if direction == "next_to":
        thing = relations.next_to(context.scene, other)
    else:
        thing = relations.neighbour(context.scene, other, direction)
    if thing is None:
        return None
    return thing, context.frame(direction, x=words), SIDES.get(direction, "next to")


def _between(context: Context) -> Draft | None:
    one = anchor(context)
    two = one and anchor(context, avoid=one[0])
    if not one or not two:
        return None
    thing = relations.between(context.scene, one[0], two[0])
    if thing is None:
        return None
    rel = context.frame("between", x=one[1], y=two[1])
    return Draft(ask_place(context, rel), [thing], because=f"It is between {one[1]} and {two[1]}.")


def _by_distance(context: Context) -> Draft | None:
    """'the object nearest to the mug', 'the mug farthest from the book'"""
    found = anchor(context)
    if found is None:
        return None
    other, words = found
    noun, candidates = relations.one_class(context)
    farthest = context.chance(0.4)
    thing = relations.nearest(candidates, other, farthest)
    if thing is None or len(candidates) < 2:
        return None
    rel = context.frame("farthest" if farthest else "nearest", x=words)
    because = f"It is {'farthest from' if farthest else 'nearest to'} {words}."
    return Draft(context.refer(f"{noun} {rel}"), [thing], because=because)


def support_relation(context: Context) -> Draft | None:
    """What rests somewhere, one of its kind that does, or what it rests in."""
    upper = [thing for thing in context.scene.askable if thing.on]
    if not upper:
        return None
    thing = context.pick(upper)
    carrier = context.scene.find_one(lambda other: other.id == thing.on)
    if carrier is None:
        return None
    return context.pick((_what_rests, _one_of_kind, _carrier, _kind_of_carrier))(
        context, thing, carrier
    )


def _preposition(carrier: Thing) -> str:
    return carrier.kind.holds or "on"


def _place(context: Context, carrier: Thing, words: str) -> str:
    """'in the red bowl', 'inside the red bowl'"""
    return context.frame(f"rest_{_preposition(carrier)}", x=words)


def _what_rests(context: Context, thing: Thing, carrier: Thing) -> Draft | None:
    """'What is in the bowl?'"""
    words = reference(context, carrier)
    inside = context.scene.find(lambda other: other.on == carrier.id)
    if words is None or not inside or len(inside) > MOST_TARGETS:
        return None
    rel = _place(context, carrier, words)
    if len(inside) > 1 or context.chance(0.2):
        instruction = context.frame("refer_many", np=context.frame("all_at_place", rel=rel))
    else:
        instruction = ask_place(context, rel)
    verb = "It is" if len(inside) == 1 else "They are"
    return Draft(instruction, inside, because=f"{verb} {_preposition(carrier)} {words}.")


def _one_of_kind(context: Context, thing: Thing, carrier: Thing) -> Draft | None:
    """'the apple in the bowl'"""
    words = reference(context, carrier)
    fits = context.scene.find_one(lambda one: one.kind is thing.kind and one.on == carrier.id)
    if words is None or fits is None:
        return None
    noun = f"{context.name(thing)} {_place(context, carrier, words)}"
    return Draft(context.refer(noun), [thing], because=f"It is {_preposition(carrier)} {words}.")


def _carrier(context: Context, thing: Thing, carrier: Thing) -> Draft | None:
    """'What does the apple lie in?'"""
    words = reference(context, thing)
    if words is None:
        return None
    because = f"{words.capitalize()} is {_preposition(carrier)} it."
    instruction = context.frame("carrier", x=words, prep=_preposition(carrier))
    return Draft(instruction, [carrier], because=because)


def _kind_of_carrier(context: Context, thing: Thing, carrier: Thing) -> Draft | None:
    """'the bowl with the apple in it'"""
    words = reference(context, thing)
    if words is None:
        return None
    prep = _preposition(carrier)
    noun = context.frame("with_x", noun=context.name(carrier), x=words, prep=prep)
    return Draft(context.refer(noun), [carrier], because=f"{words.capitalize()} is {prep} it.")


def absent_support(context: Context) -> Draft | None:
    """'What is in the bowl?' and 'the apple in the bowl' where nothing, no apple, is in it."""
    found = anchor(context) if context.scene.knows_rests else None
    if found is None or not found[0].kind.holds:
        return None
    carrier, words = found
    rel, said = _place(context, carrier, words), f"{_preposition(carrier)} {words}"
    inside = [thing for thing in context.scene.things if thing.on == carrier.id]
    if not inside and context.chance(0.4):
        return Draft(ask_place(context, rel), refusal=f"There is nothing {said}.")
    kind = context.pick(context.scene.askable).kind
    if context.chance(0.3):
        kind = context.pick(tuple(context.knowledge.kinds.values()))
    if kind is carrier.kind or any(thing.kind is kind for thing in inside):
        return None
    instruction = context.refer(f"{kind.name} {rel}")
    return Draft(instruction, refusal=f"There is no {kind.name} {said}.")


_RELATIONS = (
    *(_kind_on_side, _kind_on_side, _neighbour, _neighbour, _between, _by_distance),
    *(relations.ranked,) * 3,
    *(support_relation,) * 2,
)


def two_hop(context: Context) -> Draft | None:
    """'the thing that belongs with what is left of the book' and its like."""
    return context.pick(_TWO_HOPS)(context)


def _indirect(context: Context) -> tuple[Thing, str, Thing] | None:
    """A thing, how it is called by its place ("what is left of the book"), and the book."""
    found = anchor(context)
    step = found and next_object(context, *found)
    if not step:
        return None
    return step[0], context.frame("what_is_x", rel=step[1]), found[0]


def _partner(context: Context) -> Draft | None:
    """'What belongs with what is left of the book?'"""
    found = _indirect(context)
    return found and _goes_with(context, *found)


def _partner_of_named(context: Context) -> Draft | None:
    """'What belongs with the book?'"""
    found = anchor(context)
    return found and _goes_with(context, *found, found[0])


def _partner_of_ranked(context: Context) -> Draft | None:
    """'What belongs with the largest object?'"""
    first = relations.ranked_noun(context)
    return first and _goes_with(context, first[1], f"the {first[0]}", first[1])


def _goes_with(context: Context, thing: Thing, words: str, origin: Thing) -> Draft | None:
    partners = context.knowledge.pairs[thing.kind.key]
    target = context.scene.find_one(lambda one: one.kind.key in partners)
    if target is None or target is origin:
        return None
    return Draft(context.frame("partner", x=words), [target], because=partners[target.kind.key])


def _beside_ranked(context: Context) -> Draft | None:
    """'What is left of the largest object?'"""
    first = relations.ranked_noun(context)
    step = first and next_object(context, first[1], f"the {first[0]}")
    if not step:
        return None
    thing, rel, side = step
    return Draft(ask_place(context, rel), [thing], because=f"It is {side} the {first[1].noun}.")


def _ranked_for_use(context: Context) -> Draft | None:
    """'the largest thing to drink from'"""
    thing = context.pick(context.scene.askable) if context.scene.askable else None
    use = thing and context.pick(tuple(thing.uses))
    fitting = use and context.scene.find_for(use)
    if not fitting or len(fitting) < 2:
        return None
    noun = f"{context.frame('thing')} {context.knowledge.uses[use]}"
    return relations.ranked(context, (noun, fitting))


def _beside_use(context: Context) -> Draft | None:
    """'What is left of the thing to write with?'"""
    thing = context.pick(context.scene.askable) if context.scene.askable else None
    use = thing and context.pick(tuple(thing.uses))
    if not use or context.scene.find_for(use) != [thing]:
        return None
    words = context.frame("x_by_use", to=context.knowledge.uses[use])
    step = next_object(context, thing, words)
    if step is None:
        return None
    target, rel, side = step
    because = f"It is {side} {reference(context, thing) or words}."
    return Draft(ask_place(context, rel), [target], because=because)


def _same_color(context: Context) -> Draft | None:
    return _same(context, "color", "same_color")


def _same_material(context: Context) -> Draft | None:
    return _same(context, "material", "same_material")


def _same(context: Context, feature: str, frame: str) -> Draft | None:
    """What shares a feature with a thing that is named, or told by its place."""
    named = anchor(context) if context.chance(0.4) else None
    found = (*named, named[0]) if named else _indirect(context)
    if found is None:
        return None
    thing, words, origin = found
    value = getattr(thing, feature)
    target = context.scene.find_one(lambda one: one is not thing and getattr(one, feature) == value)
    if target is None or target is origin or value == "food":
        return None
    because = f"Both are {value}." if feature == "color" else f"Both are made of {value}."
    return Draft(context.frame(frame, x=words), [target], because=because)


def _use_at_place(context: Context) -> Draft | None:
    """'I need something to drink from, the one left of the book.'"""
    found = anchor(context)
    if found is None:
        return None
    other, words = found
    thing = context.pick(context.scene.askable)
    use = context.pick(tuple(thing.uses))
    fitting = context.scene.find_for(use)
    if thing is other or fitting is None or len(fitting) < 2:
        return None
    side = context.pick(tuple(SIDES))
    candidates = [one for one in fitting if one is not other]
    if relations.on_side(context.scene, candidates, other, side) != [thing]:
        return None
    rel = context.frame(side, x=words)
    instruction = context.frame("use_at_place", to=context.knowledge.uses[use], rel=rel)
    because = f"{thing.kind.sentence(thing.uses[use])} It is {SIDES[side]} {words}."
    return Draft(instruction, [thing], because=because)


_TWO_HOPS = (
    *(_partner, _partner_of_named, _partner_of_named, _partner_of_ranked, _beside_use),
    *(_beside_ranked, _same_color, _same_material, _use_at_place, _ranked_for_use),
)
