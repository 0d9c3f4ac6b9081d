"""Scores that can be acted on: fitted on validation tables, shown as a reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np

from lisa_ros.errors import LisaError
from lisa_ros.evaluation.evaluate import Sample, calibration
from lisa_ros.evaluation.metrics import HIT, calibration_error, score_bins
from lisa_ros.model.checkpoint import CONFIG_FILE, Lisa
from lisa_ros.model.config import SCORE_TERMS, LisaConfig

matplotlib.use("Agg")
from matplotlib import pyplot

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
    _, hits = calibration(samples)
    if len(terms) < LEAST_MASKS or hits.all() or not hits.any():
        raise LisaError(
            f"{len(terms)} masks, {hits.sum()} of them right, are too few to fit a score to: "
            f"it takes {LEAST_MASKS} or more, right ones and wrong ones; use more pictures"
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
    try:
        path.write_text(replace(config, score_calibration=weights).to_json(), encoding="utf-8")
    except OSError as error:
        raise LisaError(f"{path} cannot be written: {error}") from error


def figures(samples: Sequence[Sample]) -> dict[str, float | int | None]:
    """Expected calibration error (10 bins) over all masks, and how well scores tell them apart.

    `separation`: the probability that a right mask has a higher score than a wrong one (AUC).
    """
    scores, hits = calibration(samples)
    good, bad = scores[hits], scores[~hits]
    higher = (good[:, None] > bad).mean() + 0.5 * (good[:, None] == bad).mean()
    return {
        "masks": len(scores),
        "right": int(hits.sum()),
        "calibration_error": calibration_error(scores, hits) if len(scores) else None,
        "separation": float(higher) if len(good) and len(bad) else None,
    }


def draw_reliability(samples: Sequence[Sample], path: Path) -> None:
    """Left: share of right masks by score; right: what a robot keeps with a threshold."""
    scores, hits = calibration(samples)
    if not len(scores):
        raise LisaError("no answer had a mask, so there is no reliability to draw")
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9.2, 3.9))
    bins = score_bins(scores, hits)
    edges = np.arange(len(bins)) / len(bins)
    left.bar(edges, [b[2] for b in bins], 0.096, align="edge", color="#4c78a8", label="right")
    for edge, (count, _, share) in zip(edges, bins, strict=True):
        if count:
            left.text(edge + 0.05, share + 0.015, count, ha="center", fontsize=7)
    left.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--", label="a true score")
    left.set(xlabel="score", ylabel=f"share of masks with IoU > {HIT}", xlim=(0, 1), ylim=(0, 1.08))
    left.set_title(
        f"{len(scores)} masks; expected calibration error {calibration_error(scores, hits):.3f}",
        fontsize=10,
    )
    limits = np.linspace(0, 1, 101)[:-1]
    kept = [scores >= limit for limit in limits]
    curves = {
        "of those, right": [hits[k].mean() if k.any() else np.nan for k in kept],
        "masks kept": [k.mean() for k in kept],
        "right ones kept": [hits[k].sum() / max(1, hits.sum()) for k in kept],
    }
    for label, curve in curves.items():
        right.plot(limits, curve, label=label)
    right.set(xlabel="threshold on the score", xlim=(0, 1), ylim=(0, 1.08))
    right.set_title("acting only on scores above a threshold", fontsize=10)
    for axis in (left, right):
        axis.set_axisbelow(True)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
