"""What is no instruction about the table gets words or a refusal, never a confident mask."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from lisa_ros.engine.engine import Engine
from lisa_ros.errors import LisaError
from lisa_ros.model.checkpoint import load
from lisa_ros.model.config import SHIPPED

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


@pytest.mark.skipif(not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree")
def test_the_shipped_weights_seldom_show_what_nobody_asked_for():
    look_at = pytest.importorskip("lisa_tabletop.evaluation.fixed_test_set").look_at
    try:
        images = [look_at(seed).rgb for seed in TABLES]
    except LisaError as error:
        pytest.skip(str(error))
    engine = Engine(load("nano"))
    wrong = {sort: confident_masks(engine, images, texts) for sort, texts in HARD_INPUTS.items()}
    # the weights of the third run: 31 of 120
    assert sum(map(len, wrong.values())) <= 36, wrong
