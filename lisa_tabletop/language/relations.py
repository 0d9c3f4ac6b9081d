"""Spatial relations, superlatives and ranks, each answered only where a person would not hesitate.

Left, right, front and behind are those of the image (front = lower in it), from the objects'
centres in pixels; sizes are metric. Every function takes all objects in the image into account,
including those that can't be asked for, and returns None where the answer isn't clear by a margin.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import hypot

from lisa_tabletop.language.draft import Context, Draft, Referent, VisibleScene, clear, demand

DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "front": (0, 1), "behind": (0, -1)}
STEP = 0.05  # of the image's shorter side: the least difference along an axis that counts
CLEARLY_NEARER = 1.35  # ratio of distances
NEXT_TO = 0.3  # of the image's shorter side: the largest distance that is still "next to"
CLEARLY_LARGER = 1.2  # ratio of lengths
ORDINALS = ("first", "second", "third", "fourth", "fifth")
OUTERMOST = {
    "leftmost": ("left", "It is farthest to the left."),
    "rightmost": ("right", "It is farthest to the right."),
    "frontmost": ("front", "It is nearest to the camera."),
    "backmost": ("behind", "It is farthest from the camera."),
}
SUPERLATIVES = ("tallest", "flattest", "largest", "smallest", "longest")
Referents = Sequence[Referent]
Class = tuple[str, Referents]  # a noun and all the things that it fits
Ranked = tuple[str, Referent, str]  # the noun with its rank, the one that it fits, the reason


def stands(thing: Referent, anchor: Referent, direction: str, scene: VisibleScene) -> bool | None:
    """Whether `thing` is on that side of `anchor`; None where one could argue."""
    if stacked(thing, anchor):
        return False
    x, y = DIRECTIONS[direction]
    du, dv = thing.u - anchor.u, thing.v - anchor.v
    along, across = du * x + dv * y, abs(du * y) + abs(dv * x)
    step = STEP * min(scene.width, scene.height)
    if along >= step and across <= along:
        return True
    if along <= 0 or across > 2.5 * along:
        return False
    return None


def on_side(
    scene: VisibleScene, candidates: Referents, anchor: Referent, direction: str
) -> list[Referent] | None:
    """Those of `candidates` on that side of `anchor`; None where one is doubtful."""
    found = []
    for thing in candidates:
        side = None if thing is anchor else stands(thing, anchor, direction, scene)
        if side is None and thing is not anchor:
            return None
        if side:
            found.append(thing)
    return found if all(thing.askable for thing in found) else None


def neighbour(scene: VisibleScene, anchor: Referent, direction: str) -> Referent | None:
    """The object directly on that side of `anchor`: nothing else there is nearly as near."""
    side = {t: stands(t, anchor, direction, scene) for t in scene.things if t is not anchor}
    rivals = [thing for thing, there in side.items() if there is not False]
    first = nearest(rivals, anchor)
    return first if first is not None and side[first] else None


def nearest(candidates: Referents, anchor: Referent, farthest: bool = False) -> Referent | None:
    """The candidate clearly nearest to (farthest from) `anchor`, in the image and on the table."""
    others = [thing for thing in candidates if thing is not anchor]
    order = sorted(others, key=lambda thing: pixel_distance(thing, anchor), reverse=farthest)
    if not order or not order[0].askable or stacked(order[0], anchor):
        return None
    first = order[0]
    for other in order[1:]:
        near, far = (other, first) if farthest else (first, other)
        if pixel_distance(far, anchor) < CLEARLY_NEARER * pixel_distance(near, anchor):
            return None
        if metric_distance(far, anchor) <= metric_distance(near, anchor):
            return None
    return first


def next_to(scene: VisibleScene, anchor: Referent) -> Referent | None:
    """The one object beside `anchor`."""
    first = nearest(scene.things, anchor)
    limit = NEXT_TO * min(scene.width, scene.height)
    return first if first is not None and pixel_distance(first, anchor) <= limit else None


def between(scene: VisibleScene, one: Referent, other: Referent) -> Referent | None:
    """The one object clearly between two others, nothing else being nearly there."""
    length = pixel_distance(one, other)
    if length < 4 * STEP * min(scene.width, scene.height):
        return None
    inside = []
    for thing in scene.things:
        if thing is one or thing is other:
            continue
        if stacked(thing, one) or stacked(thing, other):
            return None
        du, dv = (other.u - one.u) / length, (other.v - one.v) / length
        along = ((thing.u - one.u) * du + (thing.v - one.v) * dv) / length
        across = abs((thing.v - one.v) * du - (thing.u - one.u) * dv) / length
        if 0.2 <= along <= 0.8 and across <= 0.25:
            inside.append(thing)
        elif 0 < along < 1 and across < 0.45:
            return None
    return inside[0] if len(inside) == 1 and inside[0].askable else None


def nth_from(scene: VisibleScene, candidates: Referents, n: int, side: str) -> Referent | None:
    """The n-th candidate (1 = first) from the left or right, clearly apart from those beside it."""
    order = sorted(candidates, key=lambda thing: thing.u, reverse=side == "right")
    step = STEP * min(scene.width, scene.height)
    counted = order[: n + 1]
    apart = all(abs(b.u - a.u) >= step for a, b in pairwise(counted))
    if len(order) < n or not apart or not all(thing.askable for thing in order[:n]):
        return None
    return order[n - 1]


def most(candidates: Referents, measure: Callable[[Referent], float]) -> Referent | None:
    """The candidate whose `measure` is clearly above all others'."""
    order = sorted(candidates, key=measure, reverse=True)
    if len(order) < 2 or not order[0].askable:
        return None
    return order[0] if measure(order[0]) >= CLEARLY_LARGER * measure(order[1]) else None


def longest(candidates: Referents) -> Referent | None:
    """The candidate that is longest, however the others may lie within their boxes."""
    order = sorted(candidates, key=lambda thing: max(thing.size), reverse=True)
    if len(order) < 2 or not order[0].askable:
        return None
    at_most = max(hypot(*thing.size) for thing in order[1:])
    return order[0] if max(order[0].size) > at_most else None


def outermost(scene: VisibleScene, candidates: Referents, direction: str) -> Referent | None:
    """The candidate farthest to that side of the image."""
    x, y = DIRECTIONS[direction]
    order = sorted(candidates, key=lambda thing: thing.u * x + thing.v * y, reverse=True)
    if len(order) < 2 or not order[0].askable:
        return None
    first, second = order[:2]
    ahead = (first.u - second.u) * x + (first.v - second.v) * y
    return first if ahead >= STEP * min(scene.width, scene.height) else None


def stacked(one: Referent, other: Referent) -> bool:
    """Whether one rests on or in the other: then neither is beside the other."""
    return one.on == other.id or other.on == one.id


def pixel_distance(one: Referent, other: Referent) -> float:
    return hypot(one.u - other.u, one.v - other.v)


def metric_distance(one: Referent, other: Referent) -> float:
    return hypot(*(a - b for a, b in zip(one.position, other.position, strict=True)))


def ranked(context: Context, among: Class | None = None) -> Draft:
    """'the second mug from the left', 'the largest red thing'"""
    noun, thing, because = ranked_noun(context, among)
    return Draft(context.refer(noun), [thing], because=because)


def ranked_noun(context: Context, among: Class | None = None) -> Ranked:
    noun, candidates = among or one_class(context)
    demand(len(candidates) > 1)
    rank = context.pick((_nth, _middle, _superlative, _superlative, _outermost, _outermost))
    return rank(context, noun, candidates)


def one_class(context: Context) -> Class:
    """Everything ("object"), or all of one kind, colour or group that is there several times."""
    things = context.scene.things
    if things and context.chance(0.6):
        noun, found = context.pick((_kind, _kind, _color, _group))(context, context.pick(things))
        if len(found) > 1:
            return noun, found
    return context.frame("thing"), things


def _kind(context: Context, thing: Referent) -> Class:
    return context.name(thing.kind), [one for one in context.scene.things if one.kind is thing.kind]


def _color(context: Context, thing: Referent) -> Class:
    noun = f"{thing.color} {context.frame('thing')}"
    return noun, [one for one in context.scene.things if one.color == thing.color]


def _group(context: Context, thing: Referent) -> Class:
    groups = [group for group in thing.kind.groups if group in ("tools", "containers")]
    if not groups:
        return "", ()
    return context.knowledge.groups[groups[0]], context.scene.find_for(groups[0]) or ()


def _nth(context: Context, noun: str, candidates: Referents) -> Ranked:
    n = 1 + int(context.random.random() * min(len(candidates), len(ORDINALS)))
    side = context.pick(("left", "right"))
    thing = clear(nth_from(context.scene, candidates, n, side))
    words = context.frame("nth", nth=ORDINALS[n - 1], noun=noun, side=side)
    return words, thing, f"It is the {ORDINALS[n - 1]} one from the {side}."


def _middle(context: Context, noun: str, candidates: Referents) -> Ranked:
    """Of three or five, the one with as many on its left as on its right."""
    demand(len(candidates) in (3, 5))
    thing = nth_from(context.scene, candidates, 1 + len(candidates) // 2, "left")
    words = context.frame("middle", noun=noun)
    return words, clear(thing), "It has as many on its left as on its right."


def _superlative(context: Context, noun: str, candidates: Referents) -> Ranked:
    word = context.pick(SUPERLATIVES)
    if word == "tallest":
        thing = most(candidates, lambda one: one.height)
    elif word == "flattest":
        thing = most(candidates, lambda one: 1 / one.height)
    elif word == "longest":
        thing = longest(candidates)
    else:
        thing = _by_bulk(candidates, -1 if word == "smallest" else 1)
    thing = clear(thing)
    return context.frame(word, noun=noun), thing, f"It is the {word} one."


def _by_bulk(candidates: Referents, power: int) -> Referent | None:
    """The largest (power 1) or smallest (-1) by volume; the area in the image must agree."""
    thing = most(candidates, lambda one: one.bulk**power)
    agree = thing is not None and all(one.area**power <= thing.area**power for one in candidates)
    return thing if agree else None


def _outermost(context: Context, noun: str, candidates: Referents) -> Ranked:
    word = context.pick(tuple(OUTERMOST))
    direction, because = OUTERMOST[word]
    thing = clear(outermost(context.scene, candidates, direction))
    return context.frame(word, noun=noun), thing, because
