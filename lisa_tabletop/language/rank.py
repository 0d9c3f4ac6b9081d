"""Questions by rank: n-th from a side, the middle one, largest, nearest to the camera."""

from collections.abc import Sequence

from lisa_tabletop.language import relations
from lisa_tabletop.language.draft import Context, Draft
from lisa_tabletop.language.scene import Thing

ORDINALS = ("first", "second", "third", "fourth", "fifth")
OUTERMOST = {
    "leftmost": ("left", "It is farthest to the left."),
    "rightmost": ("right", "It is farthest to the right."),
    "frontmost": ("front", "It is nearest to the camera."),
    "backmost": ("behind", "It is farthest from the camera."),
}
SUPERLATIVES = ("tallest", "flattest", "largest", "smallest", "longest")
Class = tuple[str, Sequence[Thing]]  # a noun and all the things that it fits
Ranked = tuple[str, Thing, str]  # the noun with its rank, the one that it fits, the reason


def ranked(context: Context, among: Class | None = None) -> Draft | None:
    """'the second mug from the left', 'the largest red thing'"""
    found = ranked_noun(context, among)
    return found and Draft(context.refer(found[0]), [found[1]], because=found[2])


def ranked_noun(context: Context, among: Class | None = None) -> Ranked | None:
    among = among or one_class(context)
    if len(among[1]) < 2:
        return None
    return context.pick((_nth, _middle, _superlative, _superlative, _outermost, _outermost))(
        context, *among
    )


def one_class(context: Context) -> Class:
    """Everything ("object"), or all of one kind, colour or group that is there several times."""
    things = context.scene.things
    if things and context.chance(0.6):
        noun, found = context.pick((_kind, _kind, _color, _group))(context, context.pick(things))
        if len(found) > 1:
            return noun, found
    return context.frame("thing"), things


def _kind(context: Context, thing: Thing) -> Class:
    return context.name(thing), [one for one in context.scene.things if one.kind is thing.kind]


def _color(context: Context, thing: Thing) -> Class:
    noun = f"{thing.color} {context.frame('thing')}"
    return noun, [one for one in context.scene.things if one.color == thing.color]


def _group(context: Context, thing: Thing) -> Class:
    groups = [group for group in thing.kind.groups if group in ("tools", "containers")]
    if not groups:
        return "", ()
    return context.knowledge.groups[groups[0]], context.scene.find_for(groups[0]) or ()


def _nth(context: Context, noun: str, candidates: Sequence[Thing]) -> Ranked | None:
    n = 1 + int(context.random.random() * min(len(candidates), len(ORDINALS)))
    side = context.pick(("left", "right"))
    thing = relations.nth_from(context.scene, candidates, n, side)
    if thing is None:
        return None
    words = context.frame("nth", nth=ORDINALS[n - 1], noun=noun, side=side)
    return words, thing, f"It is the {ORDINALS[n - 1]} one from the {side}."


def _middle(context: Context, noun: str, candidates: Sequence[Thing]) -> Ranked | None:
    """Of three or five, the one with as many on its left as on its right."""
    if len(candidates) not in (3, 5):
        return None
    thing = relations.nth_from(context.scene, candidates, 1 + len(candidates) // 2, "left")
    words = context.frame("middle", noun=noun)
    return thing and (words, thing, "It has as many on its left as on its right.")


def _superlative(context: Context, noun: str, candidates: Sequence[Thing]) -> Ranked | None:
    word = context.pick(SUPERLATIVES)
    if word == "tallest":
        thing = relations.most(candidates, lambda one: one.height)
    elif word == "flattest":
        thing = relations.most(candidates, lambda one: 1 / one.height)
    elif word == "longest":
        thing = relations.longest(candidates)
    else:
        thing = _by_bulk(candidates, -1 if word == "smallest" else 1)
    return thing and (context.frame(word, noun=noun), thing, f"It is the {word} one.")


def _by_bulk(candidates: Sequence[Thing], power: int) -> Thing | None:
    """The largest (power 1) or smallest (-1) by volume; the area in the picture must agree."""
    thing = relations.most(candidates, lambda one: one.bulk**power)
    agree = thing is not None and all(one.area**power <= thing.area**power for one in candidates)
    return thing if agree else None


def _outermost(context: Context, noun: str, candidates: Sequence[Thing]) -> Ranked | None:
    word = context.pick(tuple(OUTERMOST))
    direction, because = OUTERMOST[word]
    thing = relations.outermost(context.scene, candidates, direction)
    return thing and (context.frame(word, noun=noun), thing, because)
