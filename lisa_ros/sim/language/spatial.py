"""Questions by place and rank, and those that take two steps."""

from lisa_ros.sim.language import relations
from lisa_ros.sim.language.asking import SIDES, Context, Draft, anchor, reference
from lisa_ros.sim.language.scene import Thing

_ORDINALS = ("first", "second", "third", "fourth")
_OUTERMOST = {
    "leftmost": ("left", "It is farthest to the left."),
    "rightmost": ("right", "It is farthest to the right."),
    "frontmost": ("front", "It is nearest to the camera."),
    "backmost": ("behind", "It is farthest from the camera."),
}


def relation(context: Context) -> Draft | None:
    """Left, right, in front, behind, next to, between, nearest, farthest, n-th, superlative."""
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


def ask_place(context: Context, rel: str) -> str:
    """'What is left of the book?' or 'Find the thing left of the book.'"""
    if context.chance(0.5):
        return context.frame("what_is", rel=rel)
    return context.refer(f"{context.frame('thing')} {rel}")


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
    noun, candidates = _class_of_things(context)
    farthest = context.chance(0.4)
    thing = relations.nearest(candidates, other, farthest)
    if thing is None or len(candidates) < 2:
        return None
    rel = context.frame("farthest" if farthest else "nearest", x=words)
    because = f"It is {'farthest from' if farthest else 'nearest to'} {words}."
    return Draft(context.refer(f"{noun} {rel}"), [thing], because=because)


def _class_of_things(context: Context) -> tuple[str, list[Thing]]:
    """Either everything ('object') or all of one kind that is there several times ('mug')."""
    things = context.scene.things
    kinds = [thing.kind for thing in things]
    several = [thing for thing in things if kinds.count(thing.kind) > 1]
    if several and context.chance(0.5):
        one = context.pick(several)
        return context.name(one), [thing for thing in things if thing.kind is one.kind]
    return context.frame("thing"), list(things)


def _nth(context: Context) -> Draft | None:
    """'the second object from the left'"""
    noun, candidates = _class_of_things(context)
    if len(candidates) < 2:
        return None
    n = 1 + int(context.random.random() * min(len(candidates), len(_ORDINALS)))
    side = context.pick(("left", "right"))
    thing = relations.nth_from(context.scene, candidates, n, side)
    if thing is None:
        return None
    words = context.frame("nth", nth=_ORDINALS[n - 1], noun=noun, side=side)
    because = f"It is the {_ORDINALS[n - 1]} one from the {side}."
    return Draft(context.refer(words), [thing], because=because)


def _superlative(context: Context) -> Draft | None:
    noun, candidates = _class_of_things(context)
    word = context.pick(("tallest", "largest", "smallest", "longest"))
    if word == "tallest":
        thing = relations.most(candidates, lambda one: one.height)
    elif word == "longest":
        thing = relations.longest(candidates)
    else:
        thing = _by_bulk(candidates, -1 if word == "smallest" else 1)
    if thing is None:
        return None
    because = f"It is the {word} one."
    return Draft(context.refer(context.frame(word, noun=noun)), [thing], because=because)


def _by_bulk(candidates: list[Thing], power: int) -> Thing | None:
    """The largest (power 1) or smallest (-1) by volume; the area in the picture must agree."""
    thing = relations.most(candidates, lambda one: one.bulk**power)
    agree = thing is not None and all(one.area**power <= thing.area**power for one in candidates)
    return thing if agree else None


def _outermost(context: Context) -> Draft | None:
    """'the leftmost mug'"""
    noun, candidates = _class_of_things(context)
    word = context.pick(tuple(_OUTERMOST))
    direction, because = _OUTERMOST[word]
    thing = relations.outermost(context.scene, candidates, direction)
    if thing is None:
        return None
    return Draft(context.refer(context.frame(word, noun=noun)), [thing], because=because)


_RELATIONS = (
    *(_kind_on_side, _kind_on_side, _neighbour, _neighbour, _between),
    *(_by_distance, _nth, _superlative, _outermost),
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
    found = _indirect(context)
    if found is None:
        return None
    thing, words, origin = found
    partners = context.knowledge.pairs[thing.kind.key]
    target = context.scene.find_one(lambda one: one.kind.key in partners)
    if target is None or target is origin:
        return None
    return Draft(context.frame("partner", x=words), [target], because=partners[target.kind.key])


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
    found = _indirect(context)
    if found is None:
        return None
    thing, words, origin = found
    target = context.scene.find_one(lambda one: one is not thing and one.color == thing.color)
    if target is None or target is origin:
        return None
    because = f"Both are {thing.color}."
    return Draft(context.frame("same_color", x=words), [target], because=because)


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


_TWO_HOPS = (_partner, _partner, _beside_use, _same_color, _use_at_place)
