"""A sheet of answered questions to look at: picture, instruction, answer, mask and truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

import cv2
import matplotlib
import numpy as np

from lisa_ros.engine import Answer
from lisa_ros.evaluation.evaluate import Sample, union
from lisa_ros.evaluation.reasonseg import IGNORED

matplotlib.use("Agg")
from matplotlib import pyplot

COLUMNS, SAMPLES = 5, 40
LINE = 44  # letters of a line above a picture
PINK, WHITE, GREY = np.array([255, 40, 160]), np.array([255, 255, 255]), np.array([128, 128, 128])
RIGHT, WRONG = "#1a7f37", "#b3261e"


def choose(count: int, seed: int = 0) -> set[int]:
    """Which of `count` questions are shown: `SAMPLES` of them at random."""
    random = np.random.default_rng(seed)
    return set(random.choice(count, min(SAMPLES, count), replace=False).tolist())


def contact_sheet(answered: Sequence[tuple[Sample, Answer]], path: Path) -> None:
    """Draw answers, right and wrong as they fall: masks pink, the truth outlined in white."""
    rows = -(-len(answered) // COLUMNS)
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(3.6 * COLUMNS, 3.6 * rows), squeeze=False
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (sample, answer) in zip(axes.flat, answered, strict=False):
        axis.imshow(_picture(sample, answer))
        color = RIGHT if sample.overlap.iou > 0.5 else WRONG
        axis.set_title(_words(sample), fontsize=8.5, loc="left", color=color)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
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


def _picture(sample: Sample, answer: Answer) -> np.ndarray:
    picture = sample.item.rgb().copy()
    truth, instances = sample.item.truth()
    found = union(answer, truth.shape)
    for area, color in ((truth == IGNORED, GREY), (found, PINK)):
        picture[area] = (0.45 * picture[area] + 0.55 * color).astype(np.uint8)
    width = max(1, round(max(truth.shape) / 320))
    for areas, color in (((one.mask for one in answer.instances), PINK), (instances, WHITE)):
        for area in areas:
            lines, _ = cv2.findContours(
                area.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            cv2.drawContours(picture, lines, -1, color.tolist(), width)
    return picture
