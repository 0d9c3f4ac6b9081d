"""gIoU and cIoU as the LISA paper defines them (arXiv 2308.00692, section 4.1), and refusals.

gIoU is the mean of every sample's IoU, where an empty mask for an absent thing counts 1 and any
other mask for it 0; cIoU is the sum of all intersections over the sum of all unions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class SegmentationMeter:
    """Sums over samples; a sample is the union of all masks of one answer."""

    samples: int = 0
    iou_sum: float = 0.0
    intersection: int = 0
    union: int = 0
    refused_rightly: int = 0
    absent: int = 0
    refused_wrongly: int = 0

    def add(self, predicted: np.ndarray, truth: np.ndarray, refused: bool) -> float:
        """Count one answer: masks bool (H,W); return its IoU."""
        intersection = int(np.logical_and(predicted, truth).sum())
        union = int(np.logical_or(predicted, truth).sum())
        iou = 1.0 if union == 0 else intersection / (union + 1e-5)
        self.samples += 1
        self.iou_sum += iou
        self.intersection += intersection
        self.union += union
        if truth.any():
            self.refused_wrongly += refused
        else:
            self.absent += 1
            self.refused_rightly += refused
        return iou

    def report(self) -> dict[str, float | int | None]:
        """gIoU, cIoU and the shares of right and wrong refusals; None where nothing was asked."""
        present = self.samples - self.absent
        return {
            "samples": self.samples,
            "giou": self.iou_sum / self.samples if self.samples else None,
            "ciou": self.intersection / (self.union + 1e-10) if self.samples else None,
            "refusal_accuracy": self.refused_rightly / self.absent if self.absent else None,
            "false_refusals": self.refused_wrongly / present if present else None,
        }
