"""How masks and scores are measured; evaluation.py says of which questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lisa_ros.evaluation.reasonseg import IGNORED, TARGET

HIT = 0.5  # IoU above which a mask shows what was meant


@dataclass(frozen=True)
class Overlap:
    """One answer's masks, taken as one, beside the truth: pixels of both, and of either."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """1 for an empty mask where nothing is meant."""
        return self.intersection / (self.union + 1e-5) + (self.union == 0)


def overlap(predicted: np.ndarray, truth: np.ndarray) -> Overlap:
    """Compare bool (H,W) with the truth uint8 (H,W), whose IGNORED pixels are left out of both."""
    counted = truth != IGNORED
    found, meant = predicted & counted, truth == TARGET
    return Overlap(int((found & meant).sum()), int((found | meant).sum()))


def giou(overlaps: Sequence[Overlap]) -> float:
    """Mean IoU over masks: what the LISA paper (arXiv 2308.00692, section 4.1) calls gIoU."""
    return sum(one.iou for one in overlaps) / len(overlaps)


def ciou(overlaps: Sequence[Overlap]) -> float:
    """All intersections over all unions: the paper's cIoU, in which large objects weigh most."""
    union = sum(one.union for one in overlaps)
    return sum(one.intersection for one in overlaps) / (union + 1e-10)


def instance_ious(masks: Sequence[np.ndarray], instances: np.ndarray) -> np.ndarray:
    """IoU (N,M) of N masks bool (H,W) with M instances bool (M,H,W)."""
    if not len(masks) or not len(instances):
        return np.zeros((len(masks), len(instances)))
    a = np.stack(masks).reshape(len(masks), -1).astype(np.float32)
    b = instances.reshape(len(instances), -1).astype(np.float32)
    both = a @ b.T
    return both / np.maximum(a.sum(1)[:, None] + b.sum(1) - both, 1)


def average_precision(scores: Sequence[Sequence[float]], ious: Sequence[np.ndarray]) -> float:
    """AP of instance masks at IoU 0.5, without classes, as COCO computes it.

    For every question its masks' `scores` (N,) and their `ious` (N,M) with the M objects meant. All
    masks of all questions are ranked together by score; from the top down, a mask is right if an
    object of its question that no mask before it has taken overlaps it by at least HIT (it takes
    the one with the highest IoU). AP is the mean, over the 101 recalls 0, 0.01 .. 1, of the highest
    precision reached at that recall or a higher one. Masks that show nothing meant count against
    it, objects without a mask as well.
    """
    ranked = sorted(
        (-score, question, mask)
        for question, some in enumerate(scores)
        for mask, score in enumerate(some)
    )
    free = [np.array(one, dtype=float) for one in ious]
    right = np.zeros(len(ranked))
    for place, (_, question, mask) in enumerate(ranked):
        row = free[question][mask]
        if row.size and row.max() >= HIT:
            right[place] = 1
            free[question][:, row.argmax()] = -1
    objects = sum(one.shape[1] for one in ious)
    recall = right.cumsum() / objects
    precision = right.cumsum() / np.arange(1, len(ranked) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101) - 1e-9)
    return float(np.mean([best[place] if place < len(best) else 0.0 for place in places]))


def score_bins(
    scores: np.ndarray, right: np.ndarray, bins: int = 10
) -> list[tuple[int, float, float]]:
    """Masks by score in `bins` bins of equal width: how many, mean score, share that is right."""
    which = np.minimum((scores * bins).astype(int), bins - 1)
    members = [which == index for index in range(bins)]
    return [
        (int(m.sum()), float(scores[m].mean()), float(right[m].mean())) if m.any() else (0, 0, 0)
        for m in members
    ]


def calibration_error(scores: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: how far scores and shares that are right lie apart on average."""
    bins = score_bins(scores, right)
    return sum(count * abs(mean - share) for count, mean, share in bins) / max(1, len(scores))
