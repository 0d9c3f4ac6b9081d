"""Questions about one thing by its name, an attribute, or (unnamed) its use, and about several.

Several are all of a kind, a group, a colour, a material, a use, or a place.
"""

from collections.abc import Sequence

from lisa_tabletop.language import relations
from lisa_tabletop.language.draft import (
    MOST_TARGETS,
    SIDES,
    Context,
    Draft,
    Referent,
    clear,
    demand,
    reference,
    unique_noun,
    use_reason,
)
from lisa_tabletop.language.knowledge import Pattern

# what is asked for, what it is, why it is all
Selection = tuple[str, Sequence[Referent] | None, str]


def plain(context: Context) -> Draft:
    """'Please segment the red mug.'"""
    thing = context.askable_thing()
    noun = clear(unique_noun(context, thing))
    return Draft(context.refer(noun), [thing], because=thing.kind.sentence(thing.kind.about))


def attribute(context: Context) -> Draft:
    """By colour, by material, or by the size among two of a kind."""
    thing = context.askable_thing()
    return context.pick((_by_color, _by_material, _by_size))(context, thing)


def _by_color(context: Context, thing: Referent) -> Draft:
    clear(context.scene.find_one(lambda other: other.color == thing.color))
    noun = f"{thing.color} {context.frame('thing')}"
    return Draft(context.refer(noun), [thing], because=f"It is the only {thing.color} thing.")


def _by_material(context: Context, thing: Referent) -> Draft:
    material = thing.material
    demand(material != "food")  # nobody asks for the thing made of food
    alike = [other for other in context.scene.things if other.material == material]
    if len(alike) == 1 and context.chance(0.5):
        noun = context.frame("thing")
    else:
        demand(sum(other.kind is thing.kind for other in alike) == 1)
        noun = context.name(thing.kind)
    adjective = context.knowledge.adjectives[material]
    words = context.frame("material_one", material=material, adjective=adjective, noun=noun)
    return Draft(context.refer(words), [thing], because=f"It is made of {material}.")


def _by_size(context: Context, thing: Referent) -> Draft:
    pair = clear(context.scene.find(lambda other: other.kind is thing.kind))
    demand(len(pair) == 2)
    larger = clear(relations.most(pair, lambda other: other.bulk))
    # the image must not contradict the sizes: the language model sees nothing else
    demand(larger is relations.most(pair, lambda other: other.area))
    word = "larger" if larger is thing else "smaller"
    name = context.name(thing.kind)
    noun = context.frame(word, noun=name, many=thing.kind.plural(name))
    return Draft(context.refer(noun), [thing], because=f"It is {word} than the other one.")


def use(context: Context) -> Draft:
    """By use, property or situation; the thing isn't named."""
    use = context.pick(tuple(context.askable_thing().uses))
    targets = clear(context.scene.find_for(use))
    demand(len(targets) <= MOST_TARGETS)
    demand(len(targets) == 1 or not context.chance(0.5))
    return Draft(use_instruction(context, use), targets, because=use_reason(targets, use))


def use_instruction(context: Context, use: str) -> str:
    """One of the hand-written sentences for `use`, at times a general frame."""
    return ask_use(context, context.knowledge.uses[use], context.patterns.uses[use], general=0.15)


def ask_use(context: Context, to: str, sentences: Sequence[Pattern], general: float) -> str:
    """One of the sentences that ask by a use, with the share `general` a frame with `to` in it."""
    if context.chance(general):
        return context.frame("use", to=to)
    sentence = context.pick(sentences).render(context.random)
    if context.chance(0.07):
        return f"{context.frame('use_lead')} {sentence}"
    if context.chance(0.07):
        return f"{sentence} {context.frame('use_end')}"
    return sentence


def plural(context: Context) -> Draft:
    """All of a kind, of a group, of a colour, of a material, or all with a use."""
    thing = context.askable_thing()
    words, targets, because = context.pick(_PLURALS)(context, thing)
    demand(bool(targets) and len(targets) <= MOST_TARGETS)
    demand(len(targets) > 1 or not context.chance(0.85))
    return Draft(context.frame("refer_many", np=words), targets, because=because)


def _all_of_kind(context: Context, thing: Referent) -> Selection:
    name = context.name(thing.kind)
    words = context.frame("all_of", one=name, many=thing.kind.plural(name))
    targets = context.scene.find(lambda other: other.kind is thing.kind)
    return words, targets, thing.kind.sentence(thing.kind.about)


def _all_of_group(context: Context, thing: Referent) -> Selection:
    demand(bool(thing.kind.groups))
    group = context.pick(thing.kind.groups)
    words = context.frame("all_of_group", group=group)
    return words, context.scene.find_for(group), f"They belong to the {group}."


def _all_of_color(context: Context, thing: Referent) -> Selection:
    words = context.frame("in_color", color=thing.color)
    targets = context.scene.find(lambda other: other.color == thing.color)
    return words, targets, f"Nothing else is {thing.color}."


def _all_of_material(context: Context, thing: Referent) -> Selection:
    material = thing.material
    demand(material != "food")
    adjective = context.knowledge.adjectives[material]
    words = context.frame("of_material", material=material, adjective=adjective)
    targets = context.scene.find(lambda other: other.material == material)
    return words, targets, f"Nothing else is made of {material}."


def _all_for_use(context: Context, thing: Referent) -> Selection:
    use = context.pick(tuple(thing.uses))
    words = context.frame("everything", to=context.knowledge.uses[use])
    targets = context.scene.find_for(use)
    return words, targets, use_reason(targets or (), use)


def _all_at_place(context: Context, thing: Referent) -> Selection:
    """'everything left of the book'"""
    name = clear(reference(context, thing))
    side = context.pick(tuple(SIDES))
    targets = relations.on_side(context.scene, context.scene.things, thing, side)
    words = context.frame("all_at_place", rel=context.frame(side, x=name))
    return words, targets, f"Nothing else is {SIDES[side]} {name}."


_PLURALS = (
    *(_all_of_kind, _all_of_kind, _all_of_kind),
    *(_all_of_group, _all_of_color, _all_of_material, _all_for_use, _all_at_place),
)
