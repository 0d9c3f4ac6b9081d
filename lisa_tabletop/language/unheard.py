"""Questions about what is no part of the tabletop's world, and what is no question at all.

"Where is the violin?" is refused whatever lies on the table; "What is the capital of Norway?" is
answered in words. Training and test ask by different nouns and uses, of different classes.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml

from lisa_tabletop.language import reference, relations, spatial
from lisa_tabletop.language.draft import (
    SIDES,
    Context,
    Draft,
    anchor,
    ask_place,
    clear,
    demand,
    named,
    noun_slots,
    there_is_no,
)
from lisa_tabletop.language.nouns import Noun

ASIDES_FILE = Path(__file__).with_name("asides.yaml")


def unheard(context: Context) -> Draft:
    """Something that was never heard of: by name, in all the forms that present things have."""
    return context.pick(_UNHEARD)(context)


def _noun(context: Context) -> Noun:
    """Half of them from the commonest quarter: those are what people say."""
    nouns = context.vocabulary.nouns
    return nouns[int(context.random.random() ** 2 * len(nouns))]


def _refuse(context: Context, frame: str, noun: Noun, words: str, said: str) -> Draft:
    """The frame filled with `words`, which begin with the noun; there is no `said`."""
    slots = noun_slots(words)
    if not noun.plural:
        slots["a"] = words  # "is there rice?"
    return Draft(context.frame(frame, **slots), refusal=there_is_no(said))


def _by_name(context: Context) -> Draft:
    noun = _noun(context)
    return _refuse(context, "refer", noun, noun.name, noun.name)


def _described(context: Context) -> Draft:
    """'the red violin', 'the wooden violin'"""
    noun = _noun(context)
    knowledge = context.knowledge
    if context.chance(0.75):
        words = said = f"{context.pick(knowledge.colors)} {noun.name}"
    else:
        material = context.pick([one for one in knowledge.materials if one != "food"])
        adjective = knowledge.adjectives[material]
        slots = {"material": material, "adjective": adjective, "noun": noun.name}
        words, said = context.frame("material_one", **slots), noun.name
    return _refuse(context, "refer", noun, words, said)


def _ranked(context: Context) -> Draft:
    """'the largest violin', 'the second violin from the left'"""
    noun = _noun(context)
    word = context.pick(
        (*relations.SUPERLATIVES, *relations.OUTERMOST, "nth", "middle", "larger", "smaller")
    )
    slots = {"nth": context.pick(relations.ORDINALS), "side": context.pick(("left", "right"))}
    many = noun.plural or noun.name
    words = context.frame(word, noun=noun.name, many=many, **slots)
    return _refuse(context, "refer", noun, words, noun.name)


def _at_place(context: Context) -> Draft:
    """'the violin left of the book', 'the violin in the bowl', 'the violin nearest to the book'"""
    other, words = clear(anchor(context))
    noun = _noun(context)
    if other.kind.holds and context.chance(0.4):
        place = spatial.place(context, other, words)
    else:
        place = context.frame(context.pick((*SIDES, "next_to", "nearest", "farthest")), x=words)
    return _refuse(context, "refer", noun, f"{noun.name} {place}", noun.name)


def _as_anchor(context: Context) -> Draft:
    """'What is left of the violin?', 'the book in front of the violin'"""
    noun = _noun(context)
    place = context.frame(context.pick((*SIDES, "next_to")), x=f"the {noun.name}")
    if context.scene.askable and context.chance(0.4):
        thing = context.pick(context.scene.askable)
        instruction = context.refer(f"{context.name(thing.kind)} {place}")
    else:
        instruction = ask_place(context, place)
    return Draft(instruction, refusal=there_is_no(noun.name))


def _in_two_steps(context: Context) -> Draft:
    """'What goes with the violin?', 'What has the same colour as the violin?'"""
    noun = _noun(context)
    words = f"the {noun.name}"
    if context.chance(0.4):
        place = context.frame(context.pick((*SIDES, "next_to")), x=words)
        words = context.frame("what_is_x", rel=place)
    frame = context.pick(("partner", "same_color", "same_material"))
    return Draft(context.frame(frame, x=words), refusal=there_is_no(noun.name))


def _all_of(context: Context) -> Draft:
    noun = _noun(context)
    demand(bool(noun.plural))
    words = context.frame("all_of", one=noun.name, many=noun.plural)
    return Draft(context.frame("refer_many", np=words), refusal=there_is_no(noun.name))


def _is_there(context: Context) -> Draft:
    """'Is there a violin?', which is answered in words."""
    noun = _noun(context)
    slots = noun_slots(noun.name)
    return Draft(context.frame("is_there", a=slots["a"] if noun.plural else noun.name), text="No.")


def _follow(context: Context) -> Draft:
    """'And the violin?', after a question about something that is there."""
    first = context.pick((reference.plain, reference.use))(context)
    demand(len(first.targets) == 1)
    noun = _noun(context)
    history = ((first.instruction, named(first.targets)),)
    instruction = context.frame("follow_refer", **noun_slots(noun.name))
    return Draft(instruction, refusal=there_is_no(noun.name), history=history)


def _for_use(context: Context) -> Draft:
    """'My shirt is full of creases. What helps?', 'something to iron a shirt with'"""
    to, sentences = context.pick(context.vocabulary.uses)
    instruction = reference.ask_use(context, to, sentences, general=0.4)
    return Draft(instruction, refusal=f"There is nothing here {to}.")


def _all_for_use(context: Context) -> Draft:
    to, _ = context.pick(context.vocabulary.uses)
    words = context.frame("everything", to=to)
    return Draft(context.frame("refer_many", np=words), refusal=f"There is nothing here {to}.")


def _beside_use(context: Context) -> Draft:
    """'What is left of the thing to iron a shirt with?'"""
    to, _ = context.pick(context.vocabulary.uses)
    words = context.frame("x_by_use", to=to)
    place = context.frame(context.pick((*SIDES, "next_to")), x=words)
    return Draft(ask_place(context, place), refusal=f"There is nothing here {to}.")


_UNHEARD = (
    *(_by_name, _by_name, _by_name, _by_name, _by_name, _by_name, _by_name, _by_name),
    *(_described, _described, _described, _ranked, _at_place, _at_place, _as_anchor, _as_anchor),
    *(_for_use, _for_use, _for_use, _for_use, _for_use, _for_use, _all_for_use, _beside_use),
    *(_all_of, _all_of, _is_there, _follow, _in_two_steps),
)


def aside(context: Context) -> Draft:
    """What is no instruction: another language, small talk, scraps, a rambling story."""
    return context.pick(_ASIDES)(context)


@lru_cache(maxsize=1)
def _asides() -> Mapping:
    return yaml.safe_load(ASIDES_FILE.read_text(encoding="utf-8"))


def _sentence(context: Context) -> Draft:
    answer = context.pick(tuple(_asides()["answers"]))
    return Draft(context.pick(_asides()["answers"][answer]), text=answer)


def _scraps(context: Context) -> Draft:
    """Emoji, words that say nothing alone, signs, or a cat on the keyboard."""
    name = context.pick(tuple(_asides()["scraps"]))
    pieces = _asides()["scraps"][name].split()
    chosen = [context.pick(pieces) for _ in range(1 + int(8 * context.random.random()))]
    not_understood, _ = _asides()["answers"]
    return Draft(("" if name == "letters" else " ").join(chosen), text=not_understood)


def rambling_sentences() -> Sequence[str]:
    """Sentences of stories that have nothing to do with any table."""
    return _asides()["rambling"]


def _rambling(context: Context) -> Draft:
    chosen = [
        context.pick(rambling_sentences()) for _ in range(1 + int(9 * context.random.random()))
    ]
    _, not_here = _asides()["answers"]
    return Draft(" ".join(chosen), text=not_here)


_ASIDES = (_sentence, _sentence, _sentence, _scraps, _rambling)
