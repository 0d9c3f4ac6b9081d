"""Questions about several things at once: all of a kind, a group, a colour, a use, a place."""

from lisa_tabletop.language import relations
from lisa_tabletop.language.draft import MOST_TARGETS, SIDES, Context, Draft, reference, use_reason
from lisa_tabletop.language.scene import Thing

# What is asked for in words, what it is (None where unclear), and why it is all of it.
Selection = tuple[str, list[Thing] | None, str]
_NOTHING: Selection = ("", None, "")


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
