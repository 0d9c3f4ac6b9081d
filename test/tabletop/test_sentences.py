"""The sentences of the tabletop's language: enough, divided, and telling nothing by their form."""

import re
from collections import Counter
from itertools import chain

from corpus import corpus
from numpy.random import default_rng
from tabletop_questions import (
    EVERYDAY,
    KNOWLEDGE,
    NAMED,
    TEST,
    TRAIN,
    ask,
    names_of,
    plain_text,
)

from lisa_tabletop.language.instructions import compose, random_record
from lisa_tabletop.world.kinds import KINDS, palette


def test_enough_implicit_patterns_divided_into_train_and_test():
    train, test = (sum(map(len, patterns.uses.values())) for patterns in (TRAIN, TEST))
    assert train >= 400 and test >= 100
    assert 0.15 <= test / (train + test) <= 0.25
    for kind in KNOWLEDGE.kinds.values():
        assert sum(len(TRAIN.uses[use]) + len(TEST.uses[use]) for use in kind.uses) >= 20, kind.key
    assert all(TRAIN.uses[use] and TEST.uses[use] for use in KNOWLEDGE.uses)


def test_everyday_sentences_are_many_for_every_kind():
    for kind in KNOWLEDGE.kinds.values():
        new = sum(len(EVERYDAY.uses[use]) - len(TRAIN.uses[use]) for use in kind.uses)
        assert new >= 40, kind.key


def test_no_everyday_sentence_is_nearly_one_of_the_test():
    """Less than six in ten of the words that tell are the same."""
    common = set(re.findall(r"\w+", "the a an i my is it to of and what do with for in on this"))

    def telling(text):
        return set(re.findall(r"[a-z']+", plain_text(text))) - common

    def texts(patterns):
        return {t for p in chain(*patterns.uses.values()) for t in p.every_text()}

    held_out = [telling(text) for text in texts(TEST)]
    for text in texts(EVERYDAY) - texts(TRAIN):
        words = telling(text)
        near = max(len(words & other) / len(words | other) for other in held_out)
        assert near < 0.6, text


def test_no_sentence_stands_twice_or_in_both_splits():
    texts = [
        plain_text(text)
        for patterns in (EVERYDAY, TEST)
        for pattern in chain.from_iterable(patterns.uses.values())
        for text in pattern.every_text()
    ]
    assert len(texts) == len(set(texts))


def test_implicit_patterns_never_name_what_they_ask_for():
    for kind in KNOWLEDGE.kinds.values():
        naming = re.compile(r"\b(" + "|".join([kind.key, *names_of(kind.key)]) + r")\b", re.I)
        uses = {*kind.uses, *chain(*(KNOWLEDGE.materials[m] for m in kind.materials))}
        for pattern in chain(*(EVERYDAY.uses[u] + TEST.uses[u] for u in uses)):
            for text in pattern.every_text():
                assert not naming.search(text), f"'{text}' names {kind.key}"


def test_training_never_uses_a_test_sentence():
    held_out = {
        plain_text(text)
        for name, patterns in chain(TEST.uses.items(), TEST.frames.items())
        for pattern in patterns
        if pattern not in TRAIN.frames.get(name, ())
        for text in pattern.every_text()
        if len(re.sub(r"\{\w+\}", "", text)) > 15  # long enough to be recognised
    }
    patterns = [re.sub(r"\\\{\w+\\\}", ".+", re.escape(text)) for text in held_out]
    unseen = re.compile(f"({'|'.join(patterns)})$")
    test_questions = [plain_text(q["instruction"]) for q in corpus(default_rng(3), 300, "test")]
    assert any(unseen.search(text) for text in test_questions)
    asked = (*corpus(default_rng(4), 1500), *corpus(default_rng(5), 3000, "training"))
    for question in asked:
        text = plain_text(question["instruction"])
        text = text.removesuffix(" please output segmentation mask")
        assert not unseen.search(plain_text(text)), text


def test_test_questions_by_use_are_all_unseen_in_training():
    seen = {plain_text(t) for p in chain(*EVERYDAY.uses.values()) for t in p.every_text()}
    for seed in range(40):
        record = random_record(default_rng(seed))
        for question in ask(record, "use", 10, split="test", seed=seed):
            text = plain_text(question["instruction"])
            assert not any(sentence in text for sentence in seen), text


def test_every_kind_of_the_simulator_is_known_as_it_is_built():
    for name in KINDS:
        known = KNOWLEDGE.kind(name)
        # asked for where it never is, a colour would tell by itself that the thing is absent
        assert set(known.colors) == set(palette(name)), name
        assert set(known.also) == set(palette(name, held_out=True)) - set(known.colors), name
        assert known.materials, name


def test_the_wording_does_not_tell_whether_a_thing_is_there():
    """A form of sentence that asks for what is missing asks for what is there as well."""
    counted = {"absent": Counter(), "present": Counter()}
    things = {name for kind in KNOWLEDGE.kinds for name in names_of(kind)}
    words = sorted(things, key=len, reverse=True)
    noun = re.compile(rf"\b(({'|'.join(KNOWLEDGE.colors)}) )?({'|'.join(words)})\b")
    kinds = {"plain": 0.3, "use": 0.3, "absent": 0.3}
    for seed in range(300):
        record = random_record(default_rng(seed))
        for question in compose(record, default_rng(seed), 8, types=kinds, forms=NAMED):
            form = noun.sub("N", plain_text(question["instruction"]))
            counted["present" if question["targets"] else "absent"][form] += 1
    often = [
        form for form, count in counted["absent"].items() if count >= 5 and "from the" not in form
    ]
    alone = [form for form in often if re.search(r"\bN\b", form) and not counted["present"][form]]
    assert len(often) > 30
    # places, ranks and partners of missing things are other types when the thing is there
    assert len(alone) <= len(often) // 10, alone
