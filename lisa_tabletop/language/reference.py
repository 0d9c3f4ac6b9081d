"""Questions about one thing by its name, an attribute, or (unnamed) its use, and about several.

Several are all of a kind, a group, a colour, a material, a use, or a place.
"""

from lisa_tabletop.language import relations
from lisa_tabletop.language.draft import (
    MOST_TARGETS,
    SIDES,
    Context,
    Draft,
    Thing,
    reference,
    unique_noun,
    use_reason,
)

# What is asked for in words, what it is (None where unclear), and why it is all of it.
Selection = tuple[str, list[Thing] | None, str]
_NOTHING: Selection = ("", None, "")


def plain(context: Context) -> Draft | None:
    """'Please segment the red mug.'"""
    if not context.scene.askable:
        return None
    thing = context.pick(context.scene.askable)
    noun = unique_noun(context, thing)
    if noun is None:
        return None
    return Draft(context.refer(noun), [thing], because=thing.kind.sentence(thing.kind.about))


def attribute(context: Context) -> Draft | None:
    """By colour, by material, or by the size among two of a kind."""
    if not context.scene.askable:
        return None
    thing = context.pick(context.scene.askable)
    return context.pick((_by_color, _by_material, _by_size))(context, thing)


def _by_color(context: Context, thing: Thing) -> Draft | None:
    if context.scene.find_one(lambda other: other.color == thing.color) is None:
        return None
    noun = f"{thing.color} {context.frame('thing')}"
    because = f"It is the only {thing.color} thing."
    return Draft(context.refer(noun), [thing], because=because)


def _by_material(context: Context, thing: Thing) -> Draft | None:
    material = thing.material
    if material == "food":  # nobody asks for the thing made of food
        return None
    alike = [other for other in context.scene.things if other.material == material]
    if len(alike) == 1 and context.chance(0.5):
        noun = context.frame("thing")
    elif sum(other.kind is thing.kind for other in alike) == 1:
        noun = context.name(thing)
    else:
        return None
    adjective = context.knowledge.adjectives[material]
    words = context.frame("material_one", material=material, adjective=adjective, noun=noun)
    return Draft(context.refer(words), [thing], because=f"It is made of {material}.")


def _by_size(context: Context, thing: Thing) -> Draft | None:
    pair = context.scene.find(lambda other: other.kind is thing.kind)
    if pair is None or len(pair) != 2:
        return None
    larger = relations.most(pair, lambda other: other.bulk)
    # the picture must not contradict the sizes: the language model sees nothing else
    if larger is None or larger is not relations.most(pair, lambda other: other.area):
        return None
    word = "larger" if larger is thing else "smaller"
    name = context.name(thing)
    noun = context.frame(word, noun=name, many=thing.kind.plural(name))
    because = f"It is {word} than the other one."
    return Draft(context.refer(noun), [thing], because=because)


def use(context: Context) -> Draft | None:
    """By use, property or situation; the thing isn't named."""
    if not context.scene.askable:
        return None
    thing = context.pick(context.scene.askable)
    use = context.pick(tuple(thing.uses))
    targets = context.scene.find_for(use)
    if targets is None or len(targets) > MOST_TARGETS:
        return None
    if len(targets) > 1 and context.chance(0.5):
        return None
    return Draft(use_instruction(context, use), targets, because=use_reason(targets, use))


def use_instruction(context: Context, use: str) -> str:
    """One of the hand-written sentences for `use`, at times a general frame."""
    if context.chance(0.15):
        return context.frame("use", to=context.knowledge.uses[use])
    sentence = context.pick(context.patterns.uses[use]).render(context.random)
    if context.chance(0.07):
        return f"{context.frame('use_lead')} {sentence}"
    if context.chance(0.07):
        return f"{sentence} {context.frame('use_end')}"
    return sentence


def plural(context: Context) -> Draft | None:
    """All of a kind, of a group, of a colour, of a material, or all with a use."""
    if not context.scene.askable:
        return None
    thing = context.pick(context.scene.askable)
    words, targets, because = context.pick(_PLURALS)(context, thing)
    if not targets or len(targets) > MOST_TARGETS or (len(targets) == 1 and context.chance(0.85)):
        return None
    return Draft(context.frame("refer_many", np=words), targets, because=because)


def _all_of_kind(context: Context, thing: Thing) -> Selection:
    name = context.name(thing)
    words = context.frame("all_of", one=name, many=thing.kind.plural(name))
    targets = context.scene.find(lambda other: other.kind is thing.kind)
    return words, targets, thing.kind.sentence(thing.kind.about)


def _all_of_group(context: Context, thing: Thing) -> Selection:
    if not thing.kind.groups:
        return _NOTHING
    group = context.pick(thing.kind.groups)
    words = context.frame("all_of_group", group=group)
    return words, context.scene.find_for(group), f"They belong to the {group}."


def _all_of_color(context: Context, thing: Thing) -> Selection:
    words = context.frame("in_color", color=thing.color)
    targets = context.scene.find(lambda other: other.color == thing.color)
    return words, targets, f"Nothing else is {thing.color}."


def _all_of_material(context: Context, thing: Thing) -> Selection:
    material = thing.material
    if material == "food":
        return _NOTHING
    adjective = context.knowledge.adjectives[material]
    words = context.frame("of_material", material=material, adjective=adjective)
    targets = context.scene.find(lambda other: other.material == material)
    return words, targets, f"Nothing else is made of {material}."


def _all_for_use(context: Context, thing: Thing) -> Selection:
    use = context.pick(tuple(thing.uses))
    words = context.frame("everything", to=context.knowledge.uses[use])
    targets = context.scene.find_for(use)
    return words, targets, use_reason(targets or (), use)


def _all_at_place(context: Context, thing: Thing) -> Selection:
    """'everything left of the book'"""
    name = reference(context, thing)
    if name is None:
        return _NOTHING
    side = context.pick(tuple(SIDES))
    targets = relations.on_side(context.scene, context.scene.things, thing, side)
    place = context.frame(side, x=name)
    return (
        context.frame("all_at_place", rel=place),
        targets,
        f"Nothing else is {SIDES[side]} {name}.",
    )


_PLURALS = (
    *(_all_of_kind, _all_of_kind, _all_of_kind),
    *(_all_of_group, _all_of_color, _all_of_material, _all_for_use, _all_at_place),
)
