"""Weights that are not numbers: the engine says so and never guesses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from engine_samples import drawn_image, engine_saying
from torch import Tensor

from lisa_ros.engine import AnswerStatus, Engine, Question

SCRIPT = "It is the red mug [SEG]."


@contextmanager
def poisoned(weight: Tensor, value: float = float("nan")) -> Iterator[None]:
    """One number of a weight replaced, and put back afterwards."""
    first = (0,) * weight.dim()
    kept = weight[first].item()
    with torch.no_grad():
        weight[first] = value
        try:
            yield
        finally:
            weight[first] = kept


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_saying(SCRIPT)


def weights_of(engine: Engine, part: str) -> Tensor:
    return next(w for name, w in engine.network.named_parameters() if name.startswith(part))


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("lm_head", "token logits"),
        ("mm_projector", "token logits"),
        ("text_hidden_fcs", "mask logits"),
        ("mask_decoder", "mask logits"),
        ("image_encoder", "mask logits"),
    ],
)
@pytest.mark.parametrize("mode", ["auto", "mask"])
def test_poisoned_weights_are_an_error_and_no_answer(engine, part, words, mode) -> None:
    with (
        poisoned(weights_of(engine, part)),
        pytest.raises(FloatingPointError, match=words),
    ):
        engine.segment(drawn_image(), "the mug", mode=mode)


def test_infinite_numbers_count_as_well(engine) -> None:
    with poisoned(weights_of(engine, "lm_head"), float("inf")), pytest.raises(FloatingPointError):
        engine.segment(drawn_image(), "the mug")


def test_nothing_of_it_stays_behind() -> None:
    """What a spoilt answer left in the buffers lies behind the shorter row of the next batch."""
    engine, whole = (engine_saying(SCRIPT, draft_tokens=0) for _ in range(2))
    long, short = "the mug that stands behind the blue book on the shelf", "it"
    with poisoned(weights_of(engine, "mm_projector")), pytest.raises(FloatingPointError):
        engine.segment(drawn_image(), " ".join([long] * 3))
    questions = [Question(drawn_image(), short), Question(drawn_image(), long)]
    answers, expected = engine.segment_batch(questions), whole.segment_batch(questions)
    assert [one.status for one in answers] == [AnswerStatus.OK] * 2
    for one, other in zip(answers, expected, strict=True):
        assert one.text == other.text
        assert (one.instances[0].mask == other.instances[0].mask).all()
