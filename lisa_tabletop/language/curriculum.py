"""The questions that training asks: all sentences there are, said as people say them.

    vocabulary = training_vocabulary()   # or training_vocabulary(Path("nouns.txt"))
    questions = compose_training(record, random, 8, vocabulary)

What the test asks is never among them: its sentences, nouns and uses stay unseen.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from numpy.random import Generator

from lisa_tabletop.language.instructions import SUFFIXES, compose
from lisa_tabletop.language.knowledge import load_knowledge, pick
from lisa_tabletop.language.nouns import Vocabulary
from lisa_tabletop.language.unheard import rambling_sentences

# Plain names are learnt at once; what needs several steps of thought is asked more often.
TRAINING_TYPES: Mapping[str, float] = {
    "plain": 0.10,
    "attribute": 0.05,
    "relation": 0.22,
    "use": 0.19,
    "two_hop": 0.20,  # about half of what is drawn is clear enough in a scene
    "plural": 0.05,
    "absent": 0.08,
    "unheard": 0.06,
    "text": 0.02,
    "followup": 0.03,
    "aside": 0.02,
}
IMPLICIT = ("use", "two_hop")  # what does not say which thing it means


def compose_training(
    record: Mapping,
    random: Generator,
    count: int,
    vocabulary: Vocabulary,
    *,
    types: Mapping[str, float] = TRAINING_TYPES,
    implicit: bool = True,
) -> list[dict]:
    """Up to `count` different questions about the whole image of a scene, as `compose` makes them.

    Half of the instructions are roughened as speech and haste do it (`augment_instruction`).
    Without `implicit`, none asks by use or in two steps.
    """
    if not implicit:
        left_out = (*IMPLICIT, "followup")  # whose first turn may be implicit
        types = {name: weight for name, weight in types.items() if name not in left_out}
    questions = compose(
        record, random, count, "training", types=types, vocabulary=vocabulary, whole_frame=True
    )
    if not implicit:
        questions = [question for question in questions if not is_implicit(question)]
    for question in questions:
        if random.random() < 0.5:
            _roughen(question, random)
    return questions


def is_implicit(question: Mapping) -> bool:
    """Whether a question, or a turn before it, asks by use or in two steps."""
    if question["type"] in IMPLICIT or question.get("history"):
        return True
    if question["answer"].startswith("There is nothing here "):
        return True
    return any(use in question["instruction"] for use in load_knowledge().uses.values())


def _roughen(question: dict, random: Generator) -> None:
    """What is added to the instruction to get a form of answer stays as it is."""
    instruction = question["instruction"]
    ends = SUFFIXES.get(question["form"], ("",))
    suffix = next(end for end in ends if instruction.endswith(end))
    words = instruction.removesuffix(suffix)
    spell = question["type"] not in ("unheard", "aside")  # a violin must stay one in the answer
    question["instruction"] = augment_instruction(words, random, misspell=spell) + suffix


_CONTRACTED = {
    **{"I am": "I'm", "I have": "I've", "I would": "I'd", "I will": "I'll", "It is": "It's"},
    **{"What is": "What's", "Where is": "Where's", "Who is": "Who's", "That is": "That's"},
    **{"There is": "There's", "what is": "what's", "where is": "where's", "it is": "it's"},
    **{"can not": "can't", "do not": "don't", "does not": "doesn't", "is not": "isn't"},
    **{"must not": "mustn't", "should not": "shouldn't", "would not": "wouldn't"},
    **{"Let us": "Let's", "We have": "We've", "We are": "We're", "They are": "They're"},
}
_LONG_FORMS = re.compile(rf"\b({'|'.join(_CONTRACTED)})\b(?=[ ,])")
_AMERICAN = {"colour": "color", "Colour": "Color", "grey": "gray", "centre": "center"}
_BRITISH = re.compile("|".join(_AMERICAN))
_FILLERS = (
    *("uh", "um", "er", "well", "so", "okay", "ok", "now", "hey", "hello", "please"),
    *("hi", "hey robot", "robot", "listen", "you know", "I think", "sorry", "excuse me", "uhm"),
)
_REQUESTS = ("could you please", "can you please", "please could you", "would you", "i want you to")
_ORDER = re.compile(
    "(Find|Show|Give|Hand|Bring|Fetch|Pick|Take|Grab|Point|Mark|Segment|Get|Lift|Locate) (?!out)"
)
_DROPPED = {*("the", "a", "an", "me", "please", "you", "that", "this", "is", "are", "do", "for")}
_DROPPED |= {*("of", "my", "i", "to", "so", "it", "and")}
_PUNCTUATION = str.maketrans("", "", ".,?!:;\"'")


def augment_instruction(text: str, random: Generator, *, misspell: bool = True) -> str:
    """The instruction as somebody in haste says or types it; what it means stays.

    Contractions, American spelling, "uh" and "could you please", a short word left out or said
    twice, a slip of the fingers, no capitals and no stops, or nothing but capitals, and a sentence
    before it that has nothing to do with it.
    """
    if not text:
        return text
    chance = random.random(9)
    if chance[0] < 0.35:
        text = _LONG_FORMS.sub(lambda match: _CONTRACTED[match[0]], text)
    if chance[1] < 0.4:
        text = _BRITISH.sub(lambda match: _AMERICAN[match[0]], text)
    if chance[2] < 0.15 and _ORDER.match(text):
        text = f"{pick(random, _REQUESTS)} {_uncapitalised(text)}"
    elif chance[2] > 0.8:
        comma = pick(random, (",", "", "..."))
        text = f"{pick(random, _FILLERS)}{comma} {_uncapitalised(text)}"
    words = text.split(" ")
    if chance[3] < 0.2:
        at = int(random.random() * len(words))
        if words[at].lower() in _DROPPED and len(words) > 3:
            del words[at]
    elif chance[3] > 0.97:
        at = int(random.random() * len(words))
        words.insert(at, words[at])
    if misspell and chance[4] < 0.25:
        at = int(random.random() * len(words))
        words[at] = _misspelt(words[at], random)
    text = " ".join(words)
    if chance[5] < 0.25:
        text = text.lower().translate(_PUNCTUATION)
    elif chance[5] > 0.93:
        text = text.upper()
    elif chance[6] < 0.1:
        text = text[0].upper() + text[1:]
    if chance[7] < 0.05:
        text = f"{pick(random, rambling_sentences())} {text}"
    return text


def _uncapitalised(text: str) -> str:
    return text if text.startswith(("I ", "I'")) else text[0].lower() + text[1:]


def _misspelt(word: str, random: Generator) -> str:
    """Two letters changed over, one left out, or one doubled, within the word."""
    letters = word.rstrip(".,?!")
    if len(letters) < 5 or not letters.isalpha():
        return word
    at = 1 + int(random.random() * (len(letters) - 2))
    slip = random.random()
    if slip < 0.4:
        wrong = letters[:at] + letters[at + 1] + letters[at] + letters[at + 2 :]
    elif slip < 0.75:
        wrong = letters[:at] + letters[at + 1 :]
    else:
        wrong = letters[:at] + letters[at] + letters[at:]
    return word if wrong.lower() in _names() else wrong + word[len(letters) :]


@lru_cache(maxsize=1)
def _names() -> frozenset[str]:
    """Words that a slip must not make of another."""
    knowledge = load_knowledge()
    names = (name for kind in knowledge.kinds.values() for name in kind.names)
    return frozenset((*" ".join(names).split(), *knowledge.colors, *knowledge.materials))
