"""Scores that can be acted on: fitted on questions that a model was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lisa_ros.errors import LisaError, counted
from lisa_ros.evaluation.evaluate import Sample, calibration_error, scores_and_hits
from lisa_ros.model.checkpoint import CONFIG_FILE, Lisa
from lisa_ros.model.config import SCORE_TERMS, LisaConfig
from lisa_ros.writing import write_file

RIDGE = 0.1  # keeps a weight near 0 that the masks say nothing about
LEAST_MASKS = 50  # fewer cannot hold four weights
NEWTON_STEPS = 50


def uncalibrated(lisa: Lisa) -> Lisa:
    """The same model with weights that let the engine collect what a calibration is fitted to."""
    weights = {**dict.fromkeys(SCORE_TERMS, 0.0), "mask": 1.0}
    return replace(lisa, config=replace(lisa.config, score_calibration=weights))


def fit(samples: Sequence[Sample]) -> dict[str, float]:
    """Weights of SCORE_TERMS with which the score is the probability that a mask is right.

    A logistic regression (Platt, 1999) over the masks of `samples`, right where they overlap
    an object that was meant with an IoU above HIT; a little ridge, solved by Newton's method.
    """
    terms = [mask for sample in samples for mask in sample.evidence]
    _, hits = scores_and_hits(samples)
    if len(terms) < LEAST_MASKS or hits.all() or not hits.any():
        raise LisaError(
            f"{counted(len(terms), 'mask')}, {hits.sum()} of them right, are too few to fit a score"
            f" to: it takes {LEAST_MASKS} or more, right ones and wrong ones; use more images"
        )
    inputs = np.array([[mask[name] for name in SCORE_TERMS] for mask in terms])
    weights = np.zeros(len(SCORE_TERMS))
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (chance - hits) + RIDGE * weights
        curve = (inputs * (chance * (1 - chance))[:, None]).T @ inputs
        weights -= np.linalg.solve(curve + RIDGE * np.eye(len(weights)), slope)
    return {name: round(float(w), 4) for name, w in zip(SCORE_TERMS, weights, strict=True)}


def store(weights: dict[str, float], folder: Path) -> None:
    """Write the weights into the configuration of a native checkpoint."""
    path = folder / CONFIG_FILE
    config = LisaConfig.from_json(path)
    write_file(path, replace(config, score_calibration=weights).to_json())


def figures(samples: Sequence[Sample]) -> dict[str, float | int | None]:
    """Expected calibration error (10 bins) over all masks, and how well scores tell them apart.

    `separation`: the probability that a right mask has a higher score than a wrong one (AUC).
    """
    scores, hits = scores_and_hits(samples)
    good, bad = scores[hits], scores[~hits]
    separation = None
    if len(good) and len(bad):
        higher = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
        separation = float(higher)
    return {
        "masks": len(scores),
        "right": int(hits.sum()),
        "calibration_error": calibration_error(scores, hits) if len(scores) else None,
        "separation": separation,
    }
