"""Questions that name or describe what they ask for: plain, attribute, plural, use, absent."""

from lisa_ros.sim.language import relations
from lisa_ros.sim.language.asking import (
    MOST_TARGETS,
    Context,
    Draft,
    absent,
    unique_noun,
    use_reason,
)
from lisa_ros.sim.language.scene import Thing


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


def plural(context: Context) -> Draft | None:
    """All of a kind, of a group, of a colour, of a material, or all with a use."""
    if not context.scene.askable:
        return None
    thing = context.pick(context.scene.askable)
    words, targets, because = context.pick(_PLURALS)(context, thing)
    if not targets or len(targets) > MOST_TARGETS or (len(targets) == 1 and context.chance(0.7)):
        return None
    return Draft(context.frame("refer_many", np=words), targets, because=because)


def _all_of_kind(context: Context, thing: Thing):
    name = context.name(thing)
    words = context.frame("all_of", one=name, many=thing.kind.plural(name))
    targets = context.scene.find(lambda other: other.kind is thing.kind)
    return words, targets, thing.kind.sentence(thing.kind.about)


def _all_of_group(context: Context, thing: Thing):
    if not thing.kind.groups:
        return "", None, ""
    group = context.pick(thing.kind.groups)
    words = context.frame("all_of_group", group=group)
    return words, context.scene.find_for(group), f"They belong to the {group}."


def _all_of_color(context: Context, thing: Thing):
    words = context.frame("in_color", color=thing.color)
    targets = context.scene.find(lambda other: other.color == thing.color)
    return words, targets, f"Nothing else is {thing.color}."


def _all_of_material(context: Context, thing: Thing):
    material = thing.material
    if material == "food":
        return "", None, ""
    adjective = context.knowledge.adjectives[material]
    words = context.frame("of_material", material=material, adjective=adjective)
    targets = context.scene.find(lambda other: other.material == material)
    return words, targets, f"Nothing else is made of {material}."


def _all_for_use(context: Context, thing: Thing):
    use = context.pick(tuple(thing.uses))
    words = context.frame("everything", to=context.knowledge.uses[use])
    targets = context.scene.find_for(use)
    return words, targets, use_reason(targets or (), use)


_PLURALS = (
    *(_all_of_kind, _all_of_kind, _all_of_kind),
    *(_all_of_group, _all_of_color, _all_of_material, _all_for_use),
)


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
    if context.chance(0.12):
        return context.frame("use", to=context.knowledge.uses[use])
    return context.pick(context.patterns.uses[use]).render(context.random)


def missing(context: Context) -> Draft | None:
    """Something that is not there: by kind, by colour, by use, by group."""
    return context.pick(_MISSING)(context)


def _missing_kind(context: Context) -> Draft | None:
    kind = context.pick(tuple(context.knowledge.kinds.values()))
    if any(thing.kind is kind for thing in context.scene.things):
        return None
    name = kind.name if context.chance(0.7) else context.pick(kind.names)
    color = f"{context.pick(kind.colors)} " if context.chance(0.3) else ""
    return Draft(context.refer(color + name), refusal=absent(color + kind.name))


def _missing_color(context: Context) -> Draft | None:
    """'the blue mug' where there are mugs, but no blue one."""
    if not context.scene.things:
        return None
    thing = context.pick(context.scene.things)
    there = {other.color for other in context.scene.things if other.kind is thing.kind}
    color = context.pick(thing.kind.colors)
    if color in there:
        return None
    instruction = context.refer(f"{color} {context.name(thing)}")
    return Draft(instruction, refusal=absent(f"{color} {thing.kind.name}"))


def _missing_use(context: Context) -> Draft | None:
    use = context.pick(tuple(context.patterns.uses))
    if context.scene.find_for(use) != []:
        return None
    refusal = f"There is nothing here {context.knowledge.uses[use]}."
    return Draft(use_instruction(context, use), refusal=refusal)


def _missing_group(context: Context) -> Draft | None:
    group = context.pick(tuple(context.knowledge.groups))
    if context.scene.find_for(group) != []:
        return None
    words = context.frame("all_of_group", group=group)
    instruction = context.frame("refer_many", np=words)
    return Draft(instruction, refusal=absent(context.knowledge.groups[group]))


def _missing_anchor(context: Context) -> Draft | None:
    """'What is left of the book?' where there is no book."""
    kind = context.pick(tuple(context.knowledge.kinds.values()))
    if any(thing.kind is kind for thing in context.scene.things):
        return None
    direction = context.pick(tuple(relations.DIRECTIONS))
    rel = context.frame(direction, x=f"the {kind.name}")
    return Draft(context.frame("what_is", rel=rel), refusal=absent(kind.name))


_MISSING = (
    *(_missing_kind, _missing_kind, _missing_color, _missing_color),
    *(_missing_use, _missing_use, _missing_group, _missing_anchor),
)
