"""Questions about one thing, by its name, by an attribute, or (unnamed) by its use."""

from lisa_tabletop.language import relations
from lisa_tabletop.language.draft import MOST_TARGETS, Context, Draft, unique_noun, use_reason
from lisa_tabletop.language.scene import Thing


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
