"""Words that no table of ours holds: where they come from, and how they are asked for."""

import re
from collections import Counter
from itertools import chain

import pytest
from numpy.random import default_rng
from tabletop_questions import KNOWLEDGE, NAMED, SCENES, names_of

from lisa_tabletop.language.instructions import compose, random_record
from lisa_tabletop.language.nouns import (
    WORDNET,
    Noun,
    NounsError,
    held_out_vocabulary,
    read_nouns,
    read_wordnet,
    training_vocabulary,
    write_nouns,
)

HELD_OUT = held_out_vocabulary()
OURS = {name for kind in KNOWLEDGE.kinds for name in names_of(kind)}


def unheard(count=200, split="test", **more):
    record = random_record(default_rng(5))
    return compose(record, default_rng(1), count, split, types={"unheard": 1.0}, **more)


def test_enough_words_are_held_out_and_none_is_a_kind_of_ours():
    names = [noun.name for noun in HELD_OUT.nouns]
    assert len(names) == len(set(names)) >= 290
    assert {"violin", "shoe", "chair"} <= set(names)
    assert not OURS & set(chain.from_iterable((noun.name, noun.plural) for noun in HELD_OUT.nouns))
    assert len(HELD_OUT.uses) >= 50


def test_what_was_never_heard_is_refused_in_every_form():
    forms = Counter()
    for question in unheard(forms=NAMED):
        assert not question["targets"]
        assert question["answer"].startswith("There is no") or question["form"] == "text"
        forms["nothing"] += question["answer"].startswith("There is nothing here ")
        forms["history"] += "history" in question
    assert forms["history"] and forms["nothing"]  # "There is nothing here to iron a shirt with."
    asked = " ".join(question["instruction"] for question in unheard())
    for form in (
        r"\b(red|blue|green) [a-z]+",
        "left side of",
        "any [a-z]+ that you see",
    ):
        assert re.search(form, asked), form


def test_training_is_asked_by_its_own_words(tmp_path):
    write_nouns([Noun("carburettor", "carburettors")], tmp_path / "nouns.txt")
    vocabulary = training_vocabulary(tmp_path / "nouns.txt")
    uses = {to for to, _ in vocabulary.uses}
    assert len(uses) >= 150 and not uses & {to for to, _ in HELD_OUT.uses}
    nouns = {noun.name for noun in vocabulary.nouns}
    assert {"carburettor", "kettle", "key"} <= nouns
    assert not nouns & ({noun.name for noun in HELD_OUT.nouns} | OURS)
    for question in unheard(100, "training", vocabulary=vocabulary, forms=NAMED):
        said = question["instruction"] + question["answer"]
        assert any(words in said for words in nouns | uses), said


@pytest.mark.skipif(not WORDNET.exists(), reason="WordNet (Debian's wordnet-base) isn't here")
def test_wordnet_gives_training_thousands_of_things_of_other_classes():
    common, held_out = read_wordnet()
    names = {noun.name for noun in common}
    assert len(names) > 2000 and {"tree", "computer", "umbrella", "parachute", "pen"} <= names
    secret = {noun.name for noun in (*held_out, *HELD_OUT.nouns)}
    assert not names & secret and not OURS & names
    assert not {word for name in names for word in name.split()} & secret
    assert {noun.name for noun in HELD_OUT.nouns} <= {noun.name for noun in held_out}
    for general in ("container", "tool", "fruit", "toy", "thing", "teaspoon"):
        assert general not in names, general
    assert next(noun for noun in common if noun.name == "mouse").plural == "mice"
    assert next(noun for noun in common if noun.name == "flour").plural == ""


def test_the_list_of_nouns_is_read_back_as_it_was_written(tmp_path):
    nouns = (Noun("violin", "violins"), Noun("gravel"))
    write_nouns(nouns, tmp_path / "nouns.txt")
    assert tuple(read_nouns(tmp_path / "nouns.txt")) == nouns
    assert training_vocabulary(tmp_path / "nouns.txt").nouns[-2:] == nouns
    with pytest.raises(NounsError, match="missing"):
        training_vocabulary(tmp_path / "missing.txt")
    with pytest.raises(NounsError, match="wordnet-base"):
        read_wordnet(tmp_path)


@pytest.mark.parametrize("record", SCENES)
def test_what_is_no_instruction_is_answered_in_words(record):
    questions = compose(record, default_rng(2), 60, types={"aside": 1.0})
    assert len(questions) == 60
    for question in questions:
        assert question["form"] == "text" and not question["targets"]
        assert "[SEG]" not in question["answer"]
