"""What is no instruction about the table gets words or a refusal, never a confident mask."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from lisa_ros.engine.engine import Engine
from lisa_ros.engine.question import Prompts, Question
from lisa_ros.errors import LisaError
from lisa_ros.model.checkpoint import Lisa, load
from lisa_ros.model.config import SHIPPED
from lisa_tabletop.training.nano import nano_config

HARD_INPUTS = yaml.safe_load(
    Path(__file__).with_name("hard_inputs.yaml").read_text(encoding="utf-8")
)
CONFIDENT = 0.5  # a mask's score, as `lisa-ros calibrate` makes it a probability of being right
TABLES = range(8_000_000, 8_000_002)


def confident_masks(
    engine: Engine, images: Sequence[np.ndarray], texts: Iterable[str]
) -> list[tuple[str, float]]:
    """Every input that a mask was given for with confidence, and the best score of its masks."""
    found = []
    for text in texts:
        for number, image in enumerate(images):
            answer = engine.segment(image, text, key=number)
            best = max((instance.score for instance in answer.instances), default=0.0)
            if best >= CONFIDENT:
                found.append((text, best))
    return found


def test_the_table_has_sixty_inputs_of_each_sort():
    assert sum(map(len, HARD_INPUTS.values())) == 60 and len(HARD_INPUTS) == 8
    assert all(len(text.split()) >= 100 for text in HARD_INPUTS["one hundred words"])


def test_what_is_shouted_at_nano_is_asked_in_small_letters_and_what_is_stammered_once(tokenizer):
    """A released LISA hears it as it was typed."""

    def heard(words, **config):
        lisa = Lisa(None, tokenizer, None, replace(nano_config(), **config))
        return Prompts(lisa).ids(Question(None, words))

    assert heard("FIND THE  RED MUG!") == heard("Find the red mug!")
    assert heard("Find the RED mug!") != heard("Find the red mug!")
    assert heard("Find the the The the, the mug!") == heard("Find the mug!")
    assert heard("Find the the the mug!") != heard("Find the mug!")
    released = {"conversation": "llava_v1"}
    assert heard("the " * 9 + "mug", **released) != heard("the mug", **released)
    assert heard("FIND THE RED MUG!", **released) != heard("Find the red mug!", **released)


@pytest.mark.skipif(not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree")
def test_the_shipped_weights_seldom_show_what_nobody_asked_for():
    look_at = pytest.importorskip("lisa_tabletop.evaluation.fixed_test_set").look_at
    try:
        images = [look_at(seed).rgb for seed in TABLES]
    except LisaError as error:
        pytest.skip(str(error))
    engine = Engine(load("nano"))
    wrong = {sort: confident_masks(engine, images, texts) for sort, texts in HARD_INPUTS.items()}
    # 4 of 120 with the shipped weights (`python -m benchmarks.nano_studies nonsense`)
    assert sum(map(len, wrong.values())) <= 7, wrong
