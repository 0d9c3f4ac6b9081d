"""Questions by what rests on or in what: the apple in the bowl, the tray under the mug."""

from lisa_tabletop.language.draft import MOST_TARGETS, Context, Draft, anchor, ask_place, reference
from lisa_tabletop.language.scene import Thing


def resting(context: Context) -> Draft | None:
    """What rests somewhere, one of its kind that does, or what it rests in."""
    upper = [thing for thing in context.scene.askable if thing.on]
    if not upper:
        return None
    thing = context.pick(upper)
    carrier = context.scene.find_one(lambda other: other.id == thing.on)
    if carrier is None:
        return None
    return context.pick((_what_rests, _one_of_kind, _carrier, _kind_of_carrier))(
        context, thing, carrier
    )


def preposition(carrier: Thing) -> str:
    return carrier.kind.holds or "on"


def place(context: Context, carrier: Thing, words: str) -> str:
    """'in the red bowl', 'inside the red bowl'"""
    return context.frame(f"rest_{preposition(carrier)}", x=words)


def _what_rests(context: Context, thing: Thing, carrier: Thing) -> Draft | None:
    """'What is in the bowl?'"""
    words = reference(context, carrier)
    inside = context.scene.find(lambda other: other.on == carrier.id)
    if words is None or not inside or len(inside) > MOST_TARGETS:
        return None
    rel = place(context, carrier, words)
    if len(inside) > 1 or context.chance(0.2):
        instruction = context.frame("refer_many", np=context.frame("all_at_place", rel=rel))
    else:
        instruction = ask_place(context, rel)
    verb = "It is" if len(inside) == 1 else "They are"
    return Draft(instruction, inside, because=f"{verb} {preposition(carrier)} {words}.")


def _one_of_kind(context: Context, thing: Thing, carrier: Thing) -> Draft | None:
    """'the apple in the bowl'"""
    words = reference(context, carrier)
    fits = context.scene.find_one(lambda one: one.kind is thing.kind and one.on == carrier.id)
    if words is None or fits is None:
        return None
    noun = f"{context.name(thing)} {place(context, carrier, words)}"
    return Draft(context.refer(noun), [thing], because=f"It is {preposition(carrier)} {words}.")


def _carrier(context: Context, thing: Thing, carrier: Thing) -> Draft | None:
    """'What does the apple lie in?'"""
    words = reference(context, thing)
    if words is None:
        return None
    because = f"{words.capitalize()} is {preposition(carrier)} it."
    instruction = context.frame("carrier", x=words, prep=preposition(carrier))
    return Draft(instruction, [carrier], because=because)


def _kind_of_carrier(context: Context, thing: Thing, carrier: Thing) -> Draft | None:
    """'the bowl with the apple in it'"""
    words = reference(context, thing)
    if words is None:
        return None
    prep = preposition(carrier)
    noun = context.frame("with_x", noun=context.name(carrier), x=words, prep=prep)
    return Draft(context.refer(noun), [carrier], because=f"{words.capitalize()} is {prep} it.")


def nothing_rests(context: Context) -> Draft | None:
    """'What is in the bowl?' and 'the apple in the bowl' where nothing, no apple, is in it."""
    found = anchor(context) if context.scene.knows_rests else None
    if found is None or not found[0].kind.holds:
        return None
    carrier, words = found
    rel, said = place(context, carrier, words), f"{preposition(carrier)} {words}"
    inside = [thing for thing in context.scene.things if thing.on == carrier.id]
    if not inside and context.chance(0.4):
        return Draft(ask_place(context, rel), refusal=f"There is nothing {said}.")
    kind = context.pick(context.scene.askable).kind
    if context.chance(0.3):
        kind = context.pick(tuple(context.knowledge.kinds.values()))
    if kind is carrier.kind or any(thing.kind is kind for thing in inside):
        return None
    instruction = context.refer(f"{kind.name} {rel}")
    return Draft(instruction, refusal=f"There is no {kind.name} {said}.")
