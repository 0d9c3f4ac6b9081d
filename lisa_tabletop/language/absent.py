"""Questions about what isn't there. The answer is a sentence that begins with "There is no".

Each maker here uses the frames of its counterpart about what is there, with about the same choice
of words, so that the image decides and not the sentence.
"""

from collections.abc import Sequence
from contextlib import suppress

from lisa_tabletop.language import reference, relations, spatial
from lisa_tabletop.language.draft import (
    SIDES,
    Context,
    Draft,
    Referent,
    Unclear,
    anchor,
    ask_place,
    clear,
    demand,
    named,
    noun_slots,
    there_is_no,
)
from lisa_tabletop.language.knowledge import Kind


def absent(context: Context) -> Draft:
    """Something that is not there: by kind, colour, use, group, place, rank, or in a dialogue."""
    return context.pick(_MAKERS)(context)


def _absent_kind(context: Context) -> Kind | None:
    """A kind that isn't in the image, at times one of the same group as one that is."""
    kinds = tuple(context.knowledge.kinds.values())
    if context.scene.things and context.chance(0.4):
        like = context.pick(context.scene.things).kind
        partners = context.knowledge.pairs[like.key]
        akin = [k for k in kinds if k.key in partners or set(k.groups) & set(like.groups)]
        kinds = akin or kinds
    kind = context.pick(kinds)
    return None if any(thing.kind is kind for thing in context.scene.things) else kind


def _absent_noun(context: Context, colored: float = 0.6) -> tuple[str, str]:
    """What to ask for ("red cup"), and what to say that there is none of ("red mug")."""
    kind = clear(_absent_kind(context))
    name = context.name(kind)
    color = f"{context.pick(kind.colors)} " if context.chance(colored) else ""
    return color + name, color + kind.name


def _kind(context: Context) -> Draft:
    asked, said = _absent_noun(context)
    return Draft(context.refer(asked), refusal=there_is_no(said))


def _other_color(context: Context) -> tuple[str, str]:
    """The nouns for a kind that is there, in a colour that it doesn't have here."""
    kind = context.askable_thing().kind
    here = {thing.color for thing in context.scene.things if thing.kind is kind}
    colors = [color for color in kind.colors if color not in here]
    near = [color for color in colors if any(t.color == color for t in context.scene.things)]
    if near and context.chance(0.5):  # the colour is in the image, on another kind
        colors = near
    demand(bool(colors))
    color = context.pick(colors)
    name = context.name(kind)
    return f"{color} {name}", f"{color} {kind.name}"


def _color(context: Context) -> Draft:
    """'the blue mug' where there are mugs, but no blue one."""
    asked, said = _other_color(context)
    return Draft(context.refer(asked), refusal=there_is_no(said))


def _use(context: Context) -> Draft:
    use = _absent_use(context)
    return Draft(reference.use_instruction(context, use), refusal=_nothing_for(context, use))


def _absent_use(context: Context) -> str:
    """A use of a kind that isn't in the image, found as that of a present one would be."""
    kind = clear(_absent_kind(context))
    material = context.pick(kind.materials)
    use = context.pick((*kind.uses, *context.knowledge.materials[material]))
    demand(context.scene.find_for(use) == [])
    return use


def _nothing_for(context: Context, use: str) -> str:
    return f"There is nothing here {context.knowledge.uses[use]}."


def _plural(context: Context) -> Draft:
    """'all the mugs', 'everything red', 'everything to eat' where there is none."""
    words, refusal = context.pick(_PLURALS)(context)
    return Draft(context.frame("refer_many", np=words), refusal=refusal)


def _no_group(context: Context) -> tuple[str, str]:
    group = context.pick(tuple(context.knowledge.groups))
    demand(context.scene.find_for(group) == [])
    words = context.frame("all_of_group", group=group)
    return words, there_is_no(context.knowledge.groups[group])


def _none_of_kind(context: Context) -> tuple[str, str]:
    kind = clear(_absent_kind(context))
    name = context.name(kind)
    words = context.frame("all_of", one=name, many=kind.plural(name))
    return words, there_is_no(kind.name)


def _none_in_color(context: Context) -> tuple[str, str]:
    color = _absent_value(context, "color", context.knowledge.colors)
    return context.frame("in_color", color=color), f"There is nothing {color} here."


def _none_of_material(context: Context) -> tuple[str, str]:
    material, adjective = _absent_material(context)
    words = context.frame("of_material", material=material, adjective=adjective)
    return words, f"There is nothing made of {material} here."


def _none_for_use(context: Context) -> tuple[str, str]:
    use = _absent_use(context)
    words = context.frame("everything", to=context.knowledge.uses[use])
    return words, _nothing_for(context, use)


_PLURALS = (
    *(_none_of_kind, _none_of_kind, _none_of_kind),
    *(_no_group, _none_in_color, _none_of_material, _none_for_use),
)


def _absent_value(context: Context, feature: str, values: tuple[str, ...]) -> str:
    value = context.pick(values)
    demand(all(getattr(thing, feature) != value for thing in context.scene.things))
    return value


def _absent_material(context: Context) -> tuple[str, str]:
    """A material that nothing is made of, and its adjective."""
    material = _absent_value(context, "material", tuple(context.knowledge.materials))
    demand(material != "food")
    return material, context.knowledge.adjectives[material]


def _attribute(context: Context) -> Draft:
    """'the blue object' where nothing is blue."""
    color = _absent_value(context, "color", context.knowledge.colors)
    noun = f"{color} {context.frame('thing')}"
    return Draft(context.refer(noun), refusal=there_is_no(noun))


def _material(context: Context) -> Draft:
    """'the wooden object' where nothing is wooden."""
    material, adjective = _absent_material(context)
    noun = context.frame("thing")
    words = context.frame("material_one", material=material, adjective=adjective, noun=noun)
    return Draft(context.refer(words), refusal=there_is_no(f"{adjective} {noun}"))


def _anchor(context: Context) -> Draft:
    """'What is left of the book?', 'the mug left of the book' where there is no book."""
    asked, said = _absent_noun(context)
    demand(bool(context.scene.askable))
    rel = context.frame(context.pick((*SIDES, "next_to", "nearest")), x=f"the {asked}")
    if context.chance(0.5):
        return Draft(ask_place(context, rel), refusal=there_is_no(said))
    noun = context.name(context.askable_thing().kind)
    return Draft(context.refer(f"{noun} {rel}"), refusal=there_is_no(said))


def _at_place(context: Context) -> Draft:
    """'the mug left of the book' where the only mug is right of it, or there is no mug."""
    other, words = clear(anchor(context))
    kind = context.askable_thing().kind
    if context.chance(0.3):
        kind = _absent_kind(context) or kind
    alike = context.scene.find(lambda thing: thing.kind is kind and thing is not other)
    side = context.pick(tuple(SIDES))
    demand(kind is not other.kind)
    demand(relations.on_side(context.scene, clear(alike), other, side) == [])
    rel = context.frame(side, x=words)
    refusal = f"There is no {kind.name} {SIDES[side]} {words}."
    return Draft(context.refer(f"{kind.name} {rel}"), refusal=refusal)


def _neighbour(context: Context) -> Draft:
    """'What is left of the book?' where nothing is."""
    other, words = clear(anchor(context))
    side = context.pick(tuple(SIDES))
    demand(relations.on_side(context.scene, context.scene.things, other, side) == [])
    rel = context.frame(side, x=words)
    return Draft(ask_place(context, rel), refusal=f"There is nothing {SIDES[side]} {words}.")


def _rank(context: Context) -> Draft:
    """'the largest mug' where there is no mug, 'the third mug from the left' where two are."""
    if context.chance(0.5):
        return _nth(context)
    asked, said = _absent_noun(context, colored=0.2)
    word = context.pick((*relations.SUPERLATIVES, *relations.OUTERMOST))
    return Draft(context.refer(context.frame(word, noun=asked)), refusal=there_is_no(said))


def _nth(context: Context) -> Draft:
    noun, candidates = relations.one_class(context)
    n = len(candidates) + (1 if context.chance(0.7) else 2)
    demand(2 <= n <= len(relations.ORDINALS) and all(thing.askable for thing in candidates))
    nth, side = relations.ORDINALS[n - 1], context.pick(("left", "right"))
    words = context.frame("nth", nth=nth, noun=noun, side=side)
    return Draft(context.refer(words), refusal=f"There is no {nth} {noun} here.")


def _partner(context: Context) -> Draft:
    """'What belongs with the book?' where nothing does."""
    # most scenes have no partner for most things: asked more often, the sentence would tell
    demand(context.chance(0.3))
    thing, words = clear(anchor(context))
    partners = context.knowledge.pairs[thing.kind.key]
    demand(all(other.kind.key not in partners for other in context.scene.things))
    refusal = f"There is nothing here that belongs with {words}."
    return Draft(context.frame("partner", x=words), refusal=refusal)


def _followup(context: Context) -> Draft:
    """'And the blue mug?', after a question about something that is there."""
    targets: Sequence[Referent] = ()
    with suppress(Unclear):  # what follows is drawn in any case: a seed keeps its questions
        first = context.pick((reference.plain, reference.use))(context)
        targets = first.targets
    asked, said = context.pick((_absent_noun, _other_color))(context)
    demand(len(targets) == 1)
    instruction = context.frame("follow_refer", **noun_slots(asked))
    history = ((first.instruction, named(targets)),)
    return Draft(instruction, refusal=there_is_no(said), history=history)


_MAKERS = (
    *(_kind, _kind, _kind, _kind, _kind),
    *(_color, _color, _color, _color),
    *(_use, _use, _use, _use),
    *(_plural, _plural, _attribute, _material, _anchor, _at_place, _neighbour, _rank),
    *(_partner, _followup, spatial.absent_support),
)
