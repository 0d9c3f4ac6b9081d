"""What training asks: everything but what the test asks, and roughened as speech is."""

import re
from collections import Counter
from itertools import chain

import pytest
from numpy.random import default_rng
from tabletop_questions import EVERYDAY, KNOWLEDGE, TEST, TRAIN, names_of, plain_text, scene, thing

from lisa_tabletop.language.curriculum import (
    TRAINING_TYPES,
    augment_instruction,
    compose_training,
    is_implicit,
)
from lisa_tabletop.language.instructions import SUFFIXES, random_record
from lisa_tabletop.language.nouns import Noun, held_out_vocabulary, training_vocabulary, write_nouns
from lisa_tabletop.language.unheard import rambling_sentences

SENTENCE = "Please show me where the grey hammer is, it is left of the orange bottle."


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    path = tmp_path_factory.mktemp("nouns") / "nouns.txt"
    write_nouns([Noun("carburettor", "carburettors"), Noun("dynamite")], path)
    return training_vocabulary(path)


def trained(vocabulary, scenes=60, **more):
    for seed in range(scenes):
        record = random_record(default_rng(seed))
        yield from compose_training(record, default_rng(seed), 8, vocabulary, **more)


def test_every_type_is_asked_and_answered_about_the_scene(vocabulary):
    questions = list(trained(vocabulary))
    assert {question["type"] for question in questions} == set(TRAINING_TYPES)
    refused = sum(question["answer"].startswith("There is no") for question in questions)
    assert 0.1 < refused / len(questions) < 0.25
    assert all(
        question["answer"].count("[SEG]") == len(question["targets"]) for question in questions
    )


def test_what_is_added_for_a_form_of_answer_stays_whole(vocabulary):
    ends = tuple(chain(SUFFIXES["mask"], SUFFIXES["explain"]))
    asked = [q for q in trained(vocabulary) if q["form"] in ("mask", "explain")]
    assert asked and all(question["instruction"].endswith(ends) for question in asked)


def test_nothing_that_the_test_asks_in_vain_is_heard(vocabulary):
    nouns = held_out_vocabulary().nouns
    secret = {word for noun in nouns for word in (noun.name, noun.plural) if word}
    secret |= {to for to, _ in held_out_vocabulary().uses}
    for question in trained(vocabulary, types={"unheard": 0.8, "aside": 0.2}):
        said = re.sub("[^a-z']", " ", f" {question['instruction']} {question['answer']} ".lower())
        assert not [words for words in secret if f" {words} " in said], question


def test_training_asks_the_everyday_sentences_and_none_of_the_test(vocabulary):
    everyday, test = (
        {plain_text(t) for p in chain(*patterns.uses.values()) for t in p.every_text()}
        for patterns in (EVERYDAY, TEST)
    )
    everyday -= {plain_text(t) for p in chain(*TRAIN.uses.values()) for t in p.every_text()}
    asked = {plain_text(q["instruction"]) for q in trained(vocabulary, types={"use": 1.0})}
    assert len(asked & everyday) > 20 and not asked & test


def test_a_model_that_is_spared_implicit_questions_gets_none(vocabulary):
    plainer = list(trained(vocabulary, implicit=False))
    assert plainer and not any(is_implicit(question) for question in plainer)
    assert any(is_implicit(question) for question in trained(vocabulary))


def test_things_at_the_frame_s_sides_are_asked_for(vocabulary):
    record = scene(thing(1, "mug", "red", "ceramic", 620, 240))
    questions = compose_training(record, default_rng(0), 6, vocabulary, types={"plain": 1.0})
    assert questions and all(question["targets"] == [1] for question in questions)


def test_half_the_sentences_stay_and_the_others_vary(vocabulary):
    random = default_rng(0)
    said = Counter(augment_instruction(SENTENCE, random) for _ in range(500))
    assert len(said) > 150 and said[SENTENCE] > 10
    assert any(text.isupper() for text in said)
    assert any(text == text.lower() and "." not in text and "," not in text for text in said)
    assert any("gray" in text for text in said) and any("it's" in text for text in said)


def test_a_slip_never_makes_one_name_of_another_nor_turns_left_to_right():
    names = {word for kind in KNOWLEDGE.kinds for name in names_of(kind) for word in name.split()}
    random = default_rng(1)
    told_before = set(" ".join(rambling_sentences()).lower().split())
    for _ in range(3000):
        text = augment_instruction(SENTENCE, random).lower().replace(",", "").replace(".", "")
        told = set(text.split()) & (names | set(KNOWLEDGE.colors) | {"left", "right"})
        told -= told_before
        assert told <= {"bottle", "hammer", "grey", "orange", "left", "of"}, text
        assert "right" not in text and "left" in text
    brooks = [augment_instruction("A brook and a palate.", random).lower() for _ in range(3000)]
    assert any("brook" not in text for text in brooks)
    assert not any(re.search(r"\b(book|plate)\b", text) for text in brooks)


def test_a_word_that_nobody_knows_is_not_misspelt():
    random = default_rng(2)
    for _ in range(500):
        text = augment_instruction("Where is the carburettor now?", random, misspell=False)
        assert "carburettor now" in text.lower().replace("now now", "now"), text
