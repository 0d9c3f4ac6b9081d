"""Questions by place, by what rests on or in what, and those that take two steps."""

from lisa_tabletop.language import relations
from lisa_tabletop.language.draft import (
    MOST_TARGETS,
    SIDES,
    Context,
    Draft,
    Referent,
    anchor,
    ask_place,
    clear,
    demand,
    reference,
)

Place = tuple[Referent, str, str]  # a thing, the relation that leads to it in words, "left of"


def relation(context: Context) -> Draft:
    """Left, right, in front, behind, next to, between, nearest, n-th, superlative, in, on."""
    return context.pick(_RELATIONS)(context)


def _kind_on_side(context: Context) -> Draft:
    """'the mug left of the book'"""
    other, words = clear(anchor(context))
    thing = context.pick(context.scene.askable)
    direction = context.pick(tuple(SIDES))
    alike = [one for one in context.scene.things if one.kind is thing.kind and one is not other]
    demand(relations.on_side(context.scene, alike, other, direction) == [thing])
    noun = f"{context.name(thing.kind)} {context.frame(direction, x=words)}"
    return Draft(context.refer(noun), [thing], because=f"It is {SIDES[direction]} {words}.")


def _neighbour(context: Context) -> Draft:
    """'What is left of the book?'"""
    other, words = clear(anchor(context))
    return _beside(context, other, words, words)


def _beside(context: Context, other: Referent, words: str, said: str) -> Draft:
    """What is next to `other`, which the question calls `words` and the reason `said`."""
    thing, rel, side = next_object(context, other, words)
    return Draft(ask_place(context, rel), [thing], because=f"It is {side} {said}.")


def next_object(context: Context, other: Referent, words: str) -> Place:
    """The object beside `other` on some side."""
    direction = context.pick((*SIDES, "next_to"))
    if direction == "next_to":
        thing = relations.next_to(context.scene, other)
    else:
        thing = relations.neighbour(context.scene, other, direction)
    return clear(thing), context.frame(direction, x=words), SIDES.get(direction, "next to")


def _between(context: Context) -> Draft:
    one, x = clear(anchor(context))
    other, y = clear(anchor(context, avoid=one))
    thing = clear(relations.between(context.scene, one, other))
    rel = context.frame("between", x=x, y=y)
    return Draft(ask_place(context, rel), [thing], because=f"It is between {x} and {y}.")


def _by_distance(context: Context) -> Draft:
    """'the object nearest to the mug', 'the mug farthest from the book'"""
    other, words = clear(anchor(context))
    noun, candidates = relations.one_class(context)
    farthest = context.chance(0.4)
    thing = clear(relations.nearest(candidates, other, farthest))
    demand(len(candidates) > 1)
    rel = context.frame("farthest" if farthest else "nearest", x=words)
    because = f"It is {'farthest from' if farthest else 'nearest to'} {words}."
    return Draft(context.refer(f"{noun} {rel}"), [thing], because=because)


def support_relation(context: Context) -> Draft:
    """What rests somewhere, one of its kind that does, or what it rests in."""
    upper = [thing for thing in context.scene.askable if thing.on]
    demand(bool(upper))
    thing = context.pick(upper)
    carrier = clear(context.scene.find_one(lambda other: other.id == thing.on))
    ask = context.pick((_what_rests, _one_of_kind, _carrier, _kind_of_carrier))
    return ask(context, thing, carrier)


def _preposition(carrier: Referent) -> str:
    return carrier.kind.holds or "on"


def place(context: Context, carrier: Referent, words: str) -> str:
    """'in the red bowl', 'inside the red bowl'"""
    return context.frame(f"rest_{_preposition(carrier)}", x=words)


def _what_rests(context: Context, thing: Referent, carrier: Referent) -> Draft:
    """'What is in the bowl?'"""
    words = clear(reference(context, carrier))
    inside = clear(context.scene.find(lambda other: other.on == carrier.id))
    demand(0 < len(inside) <= MOST_TARGETS)
    rel = place(context, carrier, words)
    if len(inside) > 1 or context.chance(0.2):
        instruction = context.frame("refer_many", np=context.frame("all_at_place", rel=rel))
    else:
        instruction = ask_place(context, rel)
    verb = "It is" if len(inside) == 1 else "They are"
    return Draft(instruction, inside, because=f"{verb} {_preposition(carrier)} {words}.")


def _one_of_kind(context: Context, thing: Referent, carrier: Referent) -> Draft:
    """'the apple in the bowl'"""
    words = clear(reference(context, carrier))
    clear(context.scene.find_one(lambda one: one.kind is thing.kind and one.on == carrier.id))
    noun = f"{context.name(thing.kind)} {place(context, carrier, words)}"
    return Draft(context.refer(noun), [thing], because=f"It is {_preposition(carrier)} {words}.")


def _carrier(context: Context, thing: Referent, carrier: Referent) -> Draft:
    """'What does the apple lie in?'"""
    words, prep = clear(reference(context, thing)), _preposition(carrier)
    instruction = context.frame("carrier", x=words, prep=prep)
    return Draft(instruction, [carrier], because=f"{words.capitalize()} is {prep} it.")


def _kind_of_carrier(context: Context, thing: Referent, carrier: Referent) -> Draft:
    """'the bowl with the apple in it'"""
    words, prep = clear(reference(context, thing)), _preposition(carrier)
    noun = context.frame("with_x", noun=context.name(carrier.kind), x=words, prep=prep)
    return Draft(context.refer(noun), [carrier], because=f"{words.capitalize()} is {prep} it.")


def absent_support(context: Context) -> Draft:
    """'What is in the bowl?' and 'the apple in the bowl' where nothing, no apple, is in it."""
    demand(context.scene.knows_rests)
    carrier, words = clear(anchor(context))
    demand(bool(carrier.kind.holds))
    rel, said = place(context, carrier, words), f"{_preposition(carrier)} {words}"
    inside = [thing for thing in context.scene.things if thing.on == carrier.id]
    if not inside and context.chance(0.4):
        return Draft(ask_place(context, rel), refusal=f"There is nothing {said}.")
    kind = context.pick(context.scene.askable).kind
    if context.chance(0.3):
        kind = context.pick(tuple(context.knowledge.kinds.values()))
    demand(kind is not carrier.kind and all(thing.kind is not kind for thing in inside))
    instruction = context.refer(f"{kind.name} {rel}")
    return Draft(instruction, refusal=f"There is no {kind.name} {said}.")


_RELATIONS = (
    *(_kind_on_side, _kind_on_side, _neighbour, _neighbour, _between, _by_distance),
    *(relations.ranked,) * 3,
    *(support_relation,) * 2,
)


def two_hop(context: Context) -> Draft:
    """'the thing that belongs with what is left of the book' and its like."""
    return context.pick(_TWO_HOPS)(context)


def _indirect(context: Context) -> tuple[Referent, str, Referent]:
    """A thing, how it is called by its place ("what is left of the book"), and the book."""
    other, words = clear(anchor(context))
    thing, rel, _ = next_object(context, other, words)
    return thing, context.frame("what_is_x", rel=rel), other


def _partner(context: Context) -> Draft:
    """'What belongs with what is left of the book?'"""
    return _goes_with(context, *_indirect(context))


def _partner_of_named(context: Context) -> Draft:
    """'What belongs with the book?'"""
    thing, words = clear(anchor(context))
    return _goes_with(context, thing, words, thing)


def _partner_of_ranked(context: Context) -> Draft:
    """'What belongs with the largest object?'"""
    noun, thing, _ = relations.ranked_noun(context)
    return _goes_with(context, thing, f"the {noun}", thing)


def _goes_with(context: Context, thing: Referent, words: str, origin: Referent) -> Draft:
    partners = context.knowledge.pairs[thing.kind.key]
    target = clear(context.scene.find_one(lambda one: one.kind.key in partners))
    demand(target is not origin)
    return Draft(context.frame("partner", x=words), [target], because=partners[target.kind.key])


def _beside_ranked(context: Context) -> Draft:
    """'What is left of the largest object?'"""
    noun, thing, _ = relations.ranked_noun(context)
    return _beside(context, thing, f"the {noun}", f"the {thing.noun}")


def _ranked_for_use(context: Context) -> Draft:
    """'the largest thing to drink from'"""
    use = context.pick(tuple(context.askable_thing().uses))
    fitting = clear(context.scene.find_for(use))
    demand(len(fitting) > 1)
    return relations.ranked(
        context, (f"{context.frame('thing')} {context.knowledge.uses[use]}", fitting)
    )


def _beside_use(context: Context) -> Draft:
    """'What is left of the thing to write with?'"""
    thing = context.askable_thing()
    use = context.pick(tuple(thing.uses))
    demand(context.scene.find_for(use) == [thing])
    words = context.frame("x_by_use", to=context.knowledge.uses[use])
    target, rel, side = next_object(context, thing, words)
    because = f"It is {side} {reference(context, thing) or words}."
    return Draft(ask_place(context, rel), [target], because=because)


def _same_color(context: Context) -> Draft:
    return _same(context, "color", "same_color")


def _same_material(context: Context) -> Draft:
    return _same(context, "material", "same_material")


def _same(context: Context, feature: str, frame: str) -> Draft:
    """What shares a feature with a thing that is named, or told by its place."""
    named = anchor(context) if context.chance(0.4) else None
    thing, words, origin = (*named, named[0]) if named else _indirect(context)
    value = getattr(thing, feature)
    target = clear(
        context.scene.find_one(lambda one: one is not thing and getattr(one, feature) == value)
    )
    demand(target is not origin and value != "food")
    because = f"Both are {value}." if feature == "color" else f"Both are made of {value}."
    return Draft(context.frame(frame, x=words), [target], because=because)


def _use_at_place(context: Context) -> Draft:
    """'I need something to drink from, the one left of the book.'"""
    other, words = clear(anchor(context))
    thing = context.pick(context.scene.askable)
    use = context.pick(tuple(thing.uses))
    fitting = clear(context.scene.find_for(use))
    demand(thing is not other and len(fitting) > 1)
    side = context.pick(tuple(SIDES))
    candidates = [one for one in fitting if one is not other]
    demand(relations.on_side(context.scene, candidates, other, side) == [thing])
    rel = context.frame(side, x=words)
    instruction = context.frame("use_at_place", to=context.knowledge.uses[use], rel=rel)
    because = f"{thing.kind.sentence(thing.uses[use])} It is {SIDES[side]} {words}."
    return Draft(instruction, [thing], because=because)


_TWO_HOPS = (
    *(_partner, _partner_of_named, _partner_of_named, _partner_of_ranked, _beside_use),
    *(_beside_ranked, _same_color, _same_material, _use_at_place, _ranked_for_use),
)
