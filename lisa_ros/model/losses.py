"""LISA's training losses: cross entropy of the answer, BCE and Dice of its masks.

Weights and scales after Lai et al. (arXiv 2308.00692) and their released training code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

CE_WEIGHT, BCE_WEIGHT, DICE_WEIGHT = 1.0, 2.0, 0.5
IGNORE = -100
"""Label of an id that is not to be learnt."""


@dataclass
class LisaLoss:
    """The weighted parts and their sum, each a scalar tensor."""

    ce: Tensor
    bce: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        return self.ce + self.bce + self.dice


def lisa_loss(
    logits: Tensor, targets: Tensor, masks: Sequence[Tensor], truth: Sequence[Tensor]
) -> LisaLoss:
    """Combine the losses of a batch.

    logits (M, V) of the states that predict the ids to be learnt, and targets (M,), those ids;
    masks and truth, a picture each: logits (N, H, W) and 0/1 of the same shape. The cross entropy
    is the mean over all targets of the batch, the other two over all its masks, 0 if it has none.
    """
    count = max(1, sum(len(mask) for mask in masks))
    zero = logits.new_zeros((), dtype=torch.float32)
    bce = sum((bce_loss(m, t).sum() for m, t in zip(masks, truth, strict=True)), zero)
    dice = sum((dice_loss(m, t).sum() for m, t in zip(masks, truth, strict=True)), zero)
    return LisaLoss(
        ce=CE_WEIGHT * functional.cross_entropy(logits.float(), targets),
        bce=BCE_WEIGHT * bce / count,
        dice=DICE_WEIGHT * dice / count,
    )


def bce_loss(masks: Tensor, truth: Tensor) -> Tensor:
    """Binary cross entropy of mask logits (N, H, W), the mean over each mask's pixels: (N,)."""
    loss = functional.binary_cross_entropy_with_logits(
        masks.float(), truth.float(), reduction="none"
    )
    return loss.flatten(1).mean(1)


def dice_loss(masks: Tensor, truth: Tensor, scale: float = 1000.0, eps: float = 1e-6) -> Tensor:
    """One minus the Dice coefficient of mask logits (N, H, W): (N,).

    `scale` divides the areas, so that half precision bears them and `eps` gets its weight.
    """
    p, t = masks.float().sigmoid().flatten(1), truth.float().flatten(1)
    overlap = (p / scale * t).sum(1)
    return 1 - (2 * overlap + eps) / (p.sum(1) / scale + t.sum(1) / scale + eps)
