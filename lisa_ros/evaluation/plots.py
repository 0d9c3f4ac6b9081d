"""Images of an evaluation: answers to look at, and how far scores can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import cv2
import matplotlib
import numpy as np

from lisa_ros.engine import Answer
from lisa_ros.errors import LisaError, counted
from lisa_ros.evaluation.evaluate import (
    HIT,
    Sample,
    calibration_error,
    score_bins,
    scores_and_hits,
)
from lisa_ros.evaluation.reasonseg import IGNORED
from lisa_ros.image_files import save_figure
from lisa_ros.node.results.overlay import mark_masks

matplotlib.use("Agg")
from matplotlib import pyplot

COLUMNS, SAMPLES = 5, 40
LINE = 44  # letters of a line above an image
RIGHT, WRONG = "#1a7f37", "#b3261e"


def choose(count: int, seed: int = 0) -> set[int]:
    """Which of `count` questions are shown: `SAMPLES` of them at random."""
    random = np.random.default_rng(seed)
    return set(random.choice(count, min(SAMPLES, count), replace=False).tolist())


def contact_sheet(answered: Sequence[tuple[Sample, Answer]], path: Path) -> None:
    """Draw answers, right and wrong as they fall: masks in colors, the truth outlined in white."""
    rows = -(-len(answered) // COLUMNS)
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(3.6 * COLUMNS, 3.6 * rows), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (sample, answer) in zip(axes.flat, answered, strict=False):
        axis.imshow(_image(sample, answer))
        color = RIGHT if sample.overlap.iou > 0.5 else WRONG
        axis.set_title(_words(sample), fontsize=8.5, loc="left", color=color)
    figure.tight_layout()
    save_figure(figure, path, dpi=80)
    pyplot.close(figure)


def _words(sample: Sample) -> str:
    scores = ", ".join(f"{score:.2f}" for score in sample.scores) or "no mask"
    where = f"{sample.item.split}, {sample.item.kind}"
    lines = [
        *(f"({asked} → {said.replace(' [SEG]', '')})" for asked, said in sample.item.history),
        sample.item.instruction,
        f"→ {sample.text or '(masks alone)'}",
        f"IoU {sample.overlap.iou:.2f}, score {scores}  ({where})",
    ]
    # a dollar sign would begin a formula
    return "\n".join(fill(line.replace("$", r"\$"), LINE) for line in lines)


def _image(sample: Sample, answer: Answer) -> np.ndarray:
    truth, instances = sample.item.truth()
    image = mark_masks(sample.item.rgb(), [one.mask for one in answer.instances])
    image[truth == IGNORED] = image[truth == IGNORED] // 2 + 64  # grey: it does not count
    width = max(1, round(max(image.shape) / 640))
    for area in instances:
        lines, _ = cv2.findContours(area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(image, lines, -1, (255, 255, 255), width)
    return image


def draw_reliability(samples: Sequence[Sample], path: Path) -> None:
    """Left: share of right masks by score; right: what a robot keeps with a threshold."""
    scores, hits = scores_and_hits(samples)
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
        f"{counted(len(scores), 'mask')}; expected calibration error"
        f" {calibration_error(scores, hits):.3f}",
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
    save_figure(figure, path)
    pyplot.close(figure)
