"""A sheet of answered questions to look at: picture, instruction, answer, mask and truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

import cv2
import matplotlib
import numpy as np

from lisa_ros.learn.evaluation import Sample, union

matplotlib.use("Agg")
from matplotlib import pyplot

COLUMNS, SAMPLES = 5, 40


def contact_sheet(samples: Sequence[Sample], path: Path, seed: int = 0) -> None:
    """Draw `SAMPLES` random samples as they fall: the mask filled, the truth as a white line."""
    random = np.random.default_rng(seed)
    count = min(SAMPLES, len(samples))
    chosen = [samples[i] for i in random.choice(len(samples), count, replace=False)]
    rows = -(-count // COLUMNS)
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(3.6 * COLUMNS, 3.7 * rows), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, sample in zip(axes.flat, chosen, strict=False):
        axis.imshow(_draw(sample))
        asked = "\n".join(wrap(sample.question["instruction"], 46))
        said = "\n".join(wrap(sample.answer.text, 46))
        axis.set_title(f"{asked}\n→ {said}\nIoU {sample.iou:.2f}", fontsize=7.5, loc="left")
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def _draw(sample: Sample) -> np.ndarray:
    picture = sample.view.rgb.copy()
    found = union(sample.answer, picture.shape[:2])
    picture[found] = (0.45 * picture[found] + 0.55 * np.array([255, 40, 160])).astype(np.uint8)
    truth = np.isin(sample.view.instances, sample.question["targets"]).astype(np.uint8)
    lines, _ = cv2.findContours(truth, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, lines, -1, (255, 255, 255), 2)
    return picture
