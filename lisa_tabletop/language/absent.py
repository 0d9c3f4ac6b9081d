"""Questions about what isn't there. The answer is a sentence that begins with "There is no".

Each maker here uses the frames of its counterpart about what is there, with about the same choice
of words, so that the picture decides and not the sentence.
"""

from lisa_tabletop.language import reference, relations, spatial
from lisa_tabletop.language.draft import (
    SIDES,
    Context,
    Draft,
    anchor,
    ask_place,
    named,
    noun_slots,
    there_is_no,
)
from lisa_tabletop.language.knowledge import Kind


def absent(context: Context) -> Draft | None:
    """Something that is not there: by kind, colour, use, group, place, rank, or in a dialogue."""
    return context.pick(_ABSENT)(context)


def _absent_kind(context: Context) -> Kind | None:
    """A kind that isn't in the picture, at times one of the same group as one that is."""
    kinds = tuple(context.knowledge.kinds.values())
    if context.scene.things and context.chance(0.4):
        like = context.pick(context.scene.things).kind
        partners = context.knowledge.pairs[like.key]
        akin = [k for k in kinds if k.key in partners or set(k.groups) & set(like.groups)]
        kinds = akin or kinds
    kind = context.pick(kinds)
    return None if any(thing.kind is kind for thing in context.scene.things) else kind


def _absent_noun(context: Context, colored: float = 0.6) -> tuple[str, str] | None:
    """What to ask for ("red cup"), and what to say that there is none of ("red mug")."""
    kind = _absent_kind(context)
    if kind is None:
        return None
    name = kind.name if context.chance(0.7) else context.pick(kind.names)
    color = f"{context.pick(kind.colors)} " if context.chance(colored) else ""
    return color + name, color + kind.name


def _kind(context: Context) -> Draft | None:
    nouns = _absent_noun(context)
    return nouns and Draft(context.refer(nouns[0]), refusal=there_is_no(nouns[1]))


def _other_color(context: Context) -> tuple[str, str] | None:
    """The nouns for a kind that is there, in a colour that it doesn't have here."""
    if not context.scene.askable:
        return None
    kind = context.pick(context.scene.askable).kind
    here = {thing.color for thing in context.scene.things if thing.kind is kind}
    colors = [color for color in kind.colors if color not in here]
    near = [color for color in colors if any(t.color == color for t in context.scene.things)]
    if near and context.chance(0.5):  # the colour is in the picture, on another kind
        colors = near
    if not colors:
        return None
    color = context.pick(colors)
    name = kind.name if context.chance(0.7) else context.pick(kind.names)
    return f"{color} {name}", f"{color} {kind.name}"


def _color(context: Context) -> Draft | None:
    """'the blue mug' where there are mugs, but no blue one."""
    nouns = _other_color(context)
    return nouns and Draft(context.refer(nouns[0]), refusal=there_is_no(nouns[1]))


def _use(context: Context) -> Draft | None:
    use = _absent_use(context)
    return use and Draft(
        reference.use_instruction(context, use), refusal=_nothing_for(context, use)
    )


def _absent_use(context: Context) -> str | None:
    """A use of a kind that isn't in the picture, found as that of a present one would be."""
    kind = _absent_kind(context)
    if kind is None:
        return None
    material = context.pick(kind.materials)
    use = context.pick((*kind.uses, *context.knowledge.materials[material]))
    return use if context.scene.find_for(use) == [] else None


def _nothing_for(context: Context, use: str) -> str:
    return f"There is nothing here {context.knowledge.uses[use]}."


def _plural(context: Context) -> Draft | None:
    """'all the mugs', 'everything red', 'everything to eat' where there is none."""
    found = context.pick(_PLURALS)(context)
    return found and Draft(context.frame("refer_many", np=found[0]), refusal=found[1])


def _no_group(context: Context) -> tuple[str, str] | None:
    group = context.pick(tuple(context.knowledge.groups))
    if context.scene.find_for(group) != []:
        return None
    return context.frame("all_of_group", group=group), there_is_no(context.knowledge.groups[group])


def _none_of_kind(context: Context) -> tuple[str, str] | None:
    kind = _absent_kind(context)
    if kind is None:
        return None
    name = kind.name if context.chance(0.7) else context.pick(kind.names)
    return context.frame("all_of", one=name, many=kind.plural(name)), there_is_no(kind.name)


def _none_in_color(context: Context) -> tuple[str, str] | None:
    color = _absent_value(context, "color", context.knowledge.colors)
    return color and (context.frame("in_color", color=color), f"There is nothing {color} here.")


def _none_of_material(context: Context) -> tuple[str, str] | None:
    material = _absent_value(context, "material", tuple(context.knowledge.materials))
    if material is None or material == "food":
        return None
    words = context.frame("of_material", material=material, adjective=_adjective(context, material))
    return words, f"There is nothing made of {material} here."


def _none_for_use(context: Context) -> tuple[str, str] | None:
    use = _absent_use(context)
    words = use and context.frame("everything", to=context.knowledge.uses[use])
    return words and (words, _nothing_for(context, use))


_PLURALS = (
    *(_none_of_kind, _none_of_kind, _none_of_kind),
    *(_no_group, _none_in_color, _none_of_material, _none_for_use),
)


def _absent_value(context: Context, feature: str, values: tuple[str, ...]) -> str | None:
    value = context.pick(values)
    return None if any(getattr(t, feature) == value for t in context.scene.things) else value


def _adjective(context: Context, material: str) -> str:
    return context.knowledge.adjectives[material]


def _attribute(context: Context) -> Draft | None:
    """'the blue object' where nothing is blue."""
    color = _absent_value(context, "color", context.knowledge.colors)
    noun = color and f"{color} {context.frame('thing')}"
    return noun and Draft(context.refer(noun), refusal=there_is_no(noun))


def _material(context: Context) -> Draft | None:
    """'the wooden object' where nothing is wooden."""
    material = _absent_value(context, "material", tuple(context.knowledge.materials))
    if material is None or material == "food":
        return None
    noun, adjective = context.frame("thing"), _adjective(context, material)
    words = context.frame("material_one", material=material, adjective=adjective, noun=noun)
    return Draft(context.refer(words), refusal=there_is_no(f"{adjective} {noun}"))


def _anchor(context: Context) -> Draft | None:
    """'What is left of the book?', 'the mug left of the book' where there is no book."""
    nouns = _absent_noun(context)
    if nouns is None or not context.scene.askable:
        return None
    rel = context.frame(context.pick((*SIDES, "next_to", "nearest")), x=f"the {nouns[0]}")
    if context.chance(0.5):
        return Draft(ask_place(context, rel), refusal=there_is_no(nouns[1]))
    noun = context.name(context.pick(context.scene.askable))
    return Draft(context.refer(f"{noun} {rel}"), refusal=there_is_no(nouns[1]))


def _at_place(context: Context) -> Draft | None:
    """'the mug left of the book' where the only mug is right of it, or there is no mug."""
    found = anchor(context)
    if found is None:
        return None
    other, words = found
    kind = context.pick(context.scene.askable).kind
    if context.chance(0.3):
        kind = _absent_kind(context) or kind
    alike = context.scene.find(lambda thing: thing.kind is kind and thing is not other)
    side = context.pick(tuple(SIDES))
    if alike is None or kind is other.kind:
        return None
    if relations.on_side(context.scene, alike, other, side) != []:
        return None
    rel = context.frame(side, x=words)
    refusal = f"There is no {kind.name} {SIDES[side]} {words}."
    return Draft(context.refer(f"{kind.name} {rel}"), refusal=refusal)


def _neighbour(context: Context) -> Draft | None:
    """'What is left of the book?' where nothing is."""
    found = anchor(context)
    if found is None:
        return None
    other, words = found
    side = context.pick(tuple(SIDES))
    if relations.on_side(context.scene, context.scene.things, other, side) != []:
        return None
    rel = context.frame(side, x=words)
    return Draft(ask_place(context, rel), refusal=f"There is nothing {SIDES[side]} {words}.")


def _rank(context: Context) -> Draft | None:
    """'the largest mug' where there is no mug, 'the third mug from the left' where two are."""
    if context.chance(0.5):
        return _nth(context)
    nouns = _absent_noun(context, colored=0.2)
    if nouns is None:
        return None
    word = context.pick((*relations.SUPERLATIVES, *relations.OUTERMOST))
    return Draft(context.refer(context.frame(word, noun=nouns[0])), refusal=there_is_no(nouns[1]))


def _nth(context: Context) -> Draft | None:
    noun, candidates = relations.one_class(context)
    n = len(candidates) + (1 if context.chance(0.7) else 2)
    if not 2 <= n <= len(relations.ORDINALS) or not all(thing.askable for thing in candidates):
        return None
    nth, side = relations.ORDINALS[n - 1], context.pick(("left", "right"))
    words = context.frame("nth", nth=nth, noun=noun, side=side)
    return Draft(context.refer(words), refusal=f"There is no {nth} {noun} here.")


def _partner(context: Context) -> Draft | None:
    """'What belongs with the book?' where nothing does."""
    # most scenes have no partner for most things: asked more often, the sentence would tell
    found = anchor(context) if context.chance(0.3) else None
    if found is None:
        return None
    partners = context.knowledge.pairs[found[0].kind.key]
    if any(thing.kind.key in partners for thing in context.scene.things):
        return None
    refusal = f"There is nothing here that belongs with {found[1]}."
    return Draft(context.frame("partner", x=found[1]), refusal=refusal)


def _followup(context: Context) -> Draft | None:
    """'And the blue mug?', after a question about something that is there."""
    first = context.pick((reference.plain, reference.use))(context)
    nouns = context.pick((_absent_noun, _other_color))(context)
    if first is None or len(first.targets) != 1 or nouns is None:
        return None
    instruction = context.frame("follow_refer", **noun_slots(nouns[0]))
    history = ((first.instruction, named(first.targets)),)
    return Draft(instruction, refusal=there_is_no(nouns[1]), history=history)


_ABSENT = (
    *(_kind, _kind, _kind, _kind, _kind),
    *(_color, _color, _color, _color),
    *(_use, _use, _use, _use),
    *(_plural, _plural, _attribute, _material),
    *(_anchor, _at_place, _neighbour, _rank),
    *(_partner, _followup, spatial.absent_support),
)
