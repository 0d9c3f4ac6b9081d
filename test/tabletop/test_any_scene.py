"""Questions about any scene: well formed, repeatable, quickly made."""

import re
import time

import numpy as np
from corpus import corpus
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.random import default_rng
from tabletop_questions import (
    KNOWLEDGE,
    by_id,
)

from lisa_tabletop.language.instructions import compose, random_record


@st.composite
def records(draw):
    """Scenes of up to nine objects, some hidden, some outside the central square."""
    record = random_record(default_rng(draw(st.integers(0, 2**31))))
    for entry in record["objects"]:
        if draw(st.booleans()):
            entry["center"] = [draw(st.floats(5, 635)), draw(st.floats(5, 475))]
            entry["visible"] = draw(st.floats(0, 1))
            entry["area"] = draw(st.integers(0, 20000))
    return record


@settings(max_examples=100, deadline=None)
@given(records(), st.integers(0, 2**31), st.sampled_from(["train", "test"]))
def test_questions_about_any_scene_are_well_formed(record, seed, split):
    questions = compose(record, default_rng(seed), 10, split)
    assert questions == compose(record, default_rng(seed), 10, split)
    assert len({(q["instruction"], str(q.get("history"))) for q in questions}) == len(questions)
    for question in questions:
        instruction, answer, targets = (question[k] for k in ("instruction", "answer", "targets"))
        assert answer.count("[SEG]") == len(targets) == len(set(targets)) <= 4
        assert "[SEG]" not in instruction and not re.search(r"[{}|()]|  ", instruction + answer)
        assert answer.endswith(".") and instruction == instruction.strip()
        assert targets or question["form"] == "text" or answer.startswith("There is no")
        assert not answer.startswith("There is no") or question["type"] == "absent"
        chosen = [by_id(record, number) for number in targets]
        assert chosen == sorted(chosen, key=lambda entry: entry["center"][0])
        for entry in chosen:
            assert entry["visible"] >= 0.4 and entry["area"] >= 0.0015 * 640 * 480
            assert 80 <= entry["center"][0] <= 560
        if question["form"] in ("name", "explain"):
            said = re.findall(r"the (\w+) ([\w ]+?) \[SEG\]", answer)
            names = [(e["color"], KNOWLEDGE.kinds[e["kind"]].name) for e in chosen]
            assert said == names


def test_the_corpus_is_repeatable_and_as_long_as_asked():
    one, other = (list(corpus(default_rng(7), 50)) for _ in range(2))
    assert one == other and len(one) == 50


class CountingGenerator(np.random.Generator):
    """Counts the numbers drawn."""

    drawn = 0

    def random(self, *arguments, **options):
        self.drawn += 1
        return super().random(*arguments, **options)


def test_composing_takes_few_draws():
    """Eight questions about eight objects take half a millisecond; here the work is counted."""
    makers = (random_record(default_rng(seed), most=16) for seed in range(1000))
    scenes = [record for record in makers if len(record["objects"]) == 8][:40]
    random = CountingGenerator(np.random.PCG64(0))
    start = time.process_time()
    made = sum(len(compose(record, random, 8)) for record in scenes)
    each = 1000 * (time.process_time() - start) / len(scenes)
    print(f"\n{each:.2f} ms of processor time for 8 questions")
    assert made == 8 * len(scenes)
    assert random.drawn < 60 * made
