"""What the score of a mask says, with and without a calibration in the model's configuration."""

import math
from dataclasses import replace

import pytest
import torch
from engine_samples import drawn_image, speaker

from lisa_ros.engine import Engine
from lisa_ros.engine.request_state import evidence, measure, probability
from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import SCORE_TERMS, LisaConfig

WEIGHTS = {"bias": -0.5, "mask": 0.7, "words": 2.0, "wordless": -1.0}


def calibrated(weights: dict[str, float] | None, certainty: float = 0.003) -> Engine:
    """An engine that says always the same, with logits scaled by `certainty`."""
    lisa = speaker("Sure, it is the red mug [SEG].")
    lisa.network.lm_head.weight.data *= certainty
    return Engine(replace(lisa, config=replace(lisa.config, score_calibration=weights)))


def test_without_a_calibration_the_score_says_how_sharp_the_mask_is():
    [plain] = calibrated(None).segment(drawn_image(), "what is red?").instances
    assert not plain.evidence
    weights = {**dict.fromkeys(SCORE_TERMS, 0.0), "mask": 1.0}
    [same] = calibrated(weights).segment(drawn_image(), "what is red?").instances
    assert same.score == pytest.approx(plain.score, abs=1e-4)


def test_a_calibrated_score_follows_mask_and_words():
    [one] = calibrated(WEIGHTS).segment(drawn_image(), "what is red?").instances
    assert one.evidence["wordless"] == 0
    assert one.evidence["words"] < 0
    assert one.score == pytest.approx(probability(one.evidence, WEIGHTS))
    [bare] = calibrated(WEIGHTS).segment(drawn_image(), "what is red?", mode="mask").instances
    assert (bare.evidence["wordless"], bare.evidence["words"]) == (1, 0)


def test_the_least_certain_word_counts():
    [sure] = calibrated(WEIGHTS, certainty=0.003).segment(drawn_image(), "what is red?").instances
    [unsure] = calibrated(WEIGHTS, certainty=0.002).segment(drawn_image(), "what is red?").instances
    assert unsure.label == sure.label
    assert unsure.score < sure.score


def test_an_instance_is_measured_inside_its_mask():
    logits = torch.full((4, 6), -5.0)
    logits[1, 2], logits[2, 4], logits[0, 0] = 2.0, 1.0, 0.0
    found = measure(logits, "it", 0.5)
    inside = (1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(-1))) / 2
    assert found.score == pytest.approx(inside)
    assert (found.box, found.area) == ((2, 1, 3, 2), 2)
    assert found.mask.sum() == 2 and found.mask[1, 2] and found.mask[2, 4]


def test_probabilities_stay_probabilities():
    for mask in (0.0, 0.5, 1.0):
        for words in (None, 0.0, 1.0):
            terms = evidence(mask, words)
            assert 0 < probability(terms, WEIGHTS) < 1
            assert set(terms) == set(SCORE_TERMS)


def test_half_a_calibration_is_refused(tmp_path):
    config = replace(speaker("It is [SEG].").config, score_calibration=WEIGHTS)
    (tmp_path / "config.json").write_text(config.to_json())
    assert LisaConfig.from_json(tmp_path / "config.json").score_calibration == WEIGHTS
    (tmp_path / "config.json").write_text(config.to_json().replace('"wordless"', '"speechless"'))
    with pytest.raises(CheckpointError, match="wordless"):
        LisaConfig.from_json(tmp_path / "config.json")
