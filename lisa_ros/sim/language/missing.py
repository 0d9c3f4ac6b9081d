"""Questions about what isn't there. The answer is a sentence that begins with "There is no"."""

from lisa_ros.sim.language import relations
from lisa_ros.sim.language.asking import SIDES, Context, Draft, absent, anchor
from lisa_ros.sim.language.reference import use_instruction
from lisa_ros.sim.language.spatial import ask_place


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
    if not context.scene.askable:
        return None
    thing = context.pick(context.scene.askable)
    alike = context.scene.find(lambda other: other.kind is thing.kind)
    color = context.pick(thing.kind.colors)
    if alike is None or any(other.color == color for other in alike):
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


def _missing_at_place(context: Context) -> Draft | None:
    """'the mug left of the book' where the only mug is right of it."""
    found = anchor(context)
    if found is None:
        return None
    other, words = found
    kind = context.pick(context.scene.askable).kind
    alike = context.scene.find(lambda thing: thing.kind is kind and thing is not other)
    side = context.pick(tuple(SIDES))
    if not alike or relations.on_side(context.scene, alike, other, side) != []:
        return None
    rel = context.frame(side, x=words)
    refusal = f"There is no {kind.name} {SIDES[side]} {words}."
    return Draft(context.refer(f"{kind.name} {rel}"), refusal=refusal)


def _missing_neighbour(context: Context) -> Draft | None:
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


def _missing_attribute(context: Context) -> Draft | None:
    """'the blue object' where nothing is blue."""
    color = context.pick(context.knowledge.colors)
    if any(thing.color == color for thing in context.scene.things):
        return None
    noun = f"{color} {context.frame('thing')}"
    return Draft(context.refer(noun), refusal=absent(noun))


_MISSING = (
    *(_missing_kind, _missing_kind, _missing_kind, _missing_color, _missing_color),
    *(_missing_use, _missing_use, _missing_group, _missing_anchor),
    *(_missing_at_place, _missing_neighbour, _missing_attribute),
)
