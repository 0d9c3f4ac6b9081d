"""Instructions about a tabletop scene and their answers, composed from a scene's record.

    from numpy.random import default_rng
    questions = compose(record, default_rng(0), count=8)

Everything that the language knows is data: kinds and uses in knowledge.yaml, sentences in
patterns/. The code decides only what is true of a scene and clear enough to be asked.
"""

from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise

from numpy.random import Generator

from lisa_tabletop.language import absent, dialogue, reference, spatial, unheard
from lisa_tabletop.language.draft import Context, Draft, Unclear, named, read_scene
from lisa_tabletop.language.knowledge import (
    Kind,
    Patterns,
    load_knowledge,
    load_patterns,
    pick,
)
from lisa_tabletop.language.nouns import Vocabulary, held_out_vocabulary

# How each type of question is made, and how often it is asked where the caller doesn't say
# (0: only where he does).
_MAKERS = {
    "plain": (reference.plain, 0.18),
    "attribute": (reference.attribute, 0.08),
    "relation": (spatial.relation, 0.18),
    "use": (reference.use, 0.20),
    "two_hop": (spatial.two_hop, 0.07),
    "plural": (reference.plural, 0.08),
    "absent": (absent.absent, 0.14),
    "text": (dialogue.text, 0.03),
    "followup": (dialogue.followup, 0.04),
    "unheard": (unheard.unheard, 0),
    "aside": (unheard.aside, 0),
}
TYPES: Mapping[str, float] = {name: weight for name, (_, weight) in _MAKERS.items() if weight}

# The forms of an answer, with what is added to the instruction to get them.
FORMS: Mapping[str, float] = {"name": 0.70, "mask": 0.18, "explain": 0.12}
SUFFIXES: Mapping[str, tuple[str, ...]] = {
    "name": ("",),
    "mask": (" Please respond with segmentation mask.", " Please output segmentation mask."),
    "explain": (" Please output segmentation mask and explain why.",),
}
_ATTEMPTS = 12  # at a question of the type drawn: most drafts fail because they wouldn't be clear
_DRAWS = 4  # of a type, for each question asked for


def compose(
    record: Mapping,
    random: Generator,
    count: int,
    split: str = "train",
    *,
    types: Mapping[str, float] = TYPES,
    forms: Mapping[str, float] = FORMS,
    vocabulary: Vocabulary | None = None,
    patterns: Patterns | None = None,
    whole_frame: bool = False,
) -> list[dict]:
    """Up to `count` different questions about the scene of `record` (formats: docs/benchmark.md).

    Args:
        split: "train" or "test" sentences, or "training": all that training hears.
        types, forms: how often each is drawn (weights; what is left out is never drawn).
        vocabulary: what "unheard" questions ask for, else the words that training never hears.
        patterns: other sentences than those of the split.
        whole_frame: objects outside of the image's central square may be asked for, too.

    A question has the keys instruction, answer, targets, type, form ("name", "mask", "explain",
    or "text" where no mask is asked for), and in a dialogue history: [[instruction, answer], ...].
    Fewer than `count` come back where the scene offers no more. Raises KnowledgeError (a LisaError)
    for a kind without an entry in knowledge.yaml.
    """
    knowledge = load_knowledge()
    scene = read_scene(record, knowledge, whole_frame=whole_frame)
    words = vocabulary or held_out_vocabulary()
    context = Context(scene, knowledge, patterns or load_patterns(split), random, words)
    questions: list[dict] = []
    asked: set[tuple] = set()
    for _ in range(_DRAWS * count):
        if len(questions) == count:
            break
        name = _draw(random, types)
        draft = _new_draft(context, name, asked)
        if draft is not None:
            asked.add((draft.instruction, draft.history))
            questions.append(_question(draft, name, random, forms))
    return questions


def _new_draft(context: Context, name: str, asked: set[tuple]) -> Draft | None:
    """A question of that type that isn't among those asked already; None after many attempts."""
    maker = _MAKERS[name][0]
    for _ in range(_ATTEMPTS):
        with suppress(Unclear):
            draft = maker(context)
            if (draft.instruction, draft.history) not in asked:
                return draft
    return None


def _question(draft: Draft, name: str, random: Generator, forms: Mapping[str, float]) -> dict:
    form = "text" if draft.text else _draw(random, forms)
    suffix = "" if form == "text" else pick(random, SUFFIXES[form])
    question = {
        "instruction": _vary(draft.instruction, random) + suffix,
        "answer": _answer(draft, form),
        "targets": [thing.id for thing in draft.targets],
        "type": name,
        "form": form,
    }
    if draft.history:
        question["history"] = [list(turn) for turn in draft.history]
    return question


def _answer(draft: Draft, form: str) -> str:
    if draft.text or draft.refusal:
        return draft.text or draft.refusal
    if form == "mask":
        return " ".join(["[SEG]"] * len(draft.targets)) + "."
    answer = named(draft.targets)
    return f"{answer} {draft.because}" if form == "explain" else answer


def _vary(instruction: str, random: Generator) -> str:
    """People don't always type capitals and full stops."""
    if random.random() < 0.15:
        instruction = instruction[0].swapcase() + instruction[1:]
    if random.random() < 0.12:
        instruction = instruction.rstrip(".?")
    return instruction


def _draw(random: Generator, weights: Mapping[str, float]) -> str:
    """One of the keys, by weight."""
    left = random.random() * sum(weights.values())
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    return name


def random_record(random: Generator, most: int = 9) -> dict:
    """The record of an invented scene: 1 to `most` objects in the image's central square."""
    knowledge = load_knowledge()
    kinds = tuple(knowledge.kinds.values())
    number = 1 + int(random.random() * most)
    objects = [_random_object(random, pick(random, kinds), i + 1) for i in range(number)]
    for upper, carrier in pairwise(objects):
        if random.random() < 0.5 and knowledge.kind(carrier["kind"]).holds:
            _rest(upper, carrier)
    return {"seed": -1, "width": 640, "height": 480, "objects": objects}


def _random_object(random: Generator, kind: Kind, number: int) -> dict:
    low, high = kind.size
    longest = low + (high - low) * random.random()
    u, v = 90 + 460 * random.random(), 40 + 400 * random.random()
    side = 900 * longest
    return {
        "id": number,
        "kind": kind.key,
        "color": pick(random, (*kind.colors, *kind.also)),
        "material": pick(random, kind.materials),
        "size": [longest, longest * (0.3 + 0.7 * random.random()), longest * 0.6],
        "position": [(u - 320) / 900, (240 - v) / 900, longest * 0.3],
        "center": [u, v],
        "box": [u - side / 2, v - side / 2, side, side],
        "area": side * side / 2,
        "visible": 1.0,
        "on": 0,
    }


def _rest(upper: dict, carrier: dict) -> None:
    """Put one object in or on another, in the middle of it."""
    dx, dy = (a - b for a, b in zip(carrier["center"], upper["center"], strict=True))
    x, y, width, height = upper["box"]
    upper["box"] = [x + dx, y + dy, width, height]
    upper["on"], upper["center"] = carrier["id"], list(carrier["center"])
    upper["position"] = [*carrier["position"][:2], upper["position"][2] + carrier["size"][2]]
