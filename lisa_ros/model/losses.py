"""LISA's training losses: cross entropy of the answer, BCE and Dice of its masks.

Weights and scales after Lai et al. (arXiv 2308.00692) and their released training code; instances
are matched to predicted masks after Yang et al. (LISA++, arXiv 2312.17240).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
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
    masks and truth, an image each: logits (N, H, W) and 0/1 of the same shape. The cross entropy
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


@torch.no_grad()
def match_instances(masks: Tensor, truth: Tensor, groups: Sequence[int]) -> Tensor:
    """Which true mask each predicted one is compared with, where their order means nothing: (N,).

    mask logits (N, H, W), truth 0/1 of the same shape, the number of each one's group. Within a
    group it is the assignment of the least BCE and Dice together, weighed as in the loss.
    """
    order = np.arange(len(masks))
    with torch.autocast(masks.device.type, enabled=False):
        for group in set(groups):
            own = np.flatnonzero(np.array(groups) == group)
            if len(own) < 2:
                continue
            x, t = masks[own].float().flatten(1), truth[own].float().flatten(1)
            bce = functional.softplus(x).mean(1)[:, None] - x @ t.T / x.shape[1]  # (n, n)
            dice = torch.stack([dice_loss(x, one.expand_as(x)) for one in t], dim=1)
            cost = torch.nan_to_num(BCE_WEIGHT * bce + DICE_WEIGHT * dice)
            order[own] = own[assignment(cost.double().cpu().numpy())]
    return torch.from_numpy(order).to(masks.device)


def assignment(cost: np.ndarray) -> np.ndarray:
    """The column of each row, all different, with the least sum of `cost` (N, N): (N,) int.

    The Hungarian method (Kuhn, 1955) by shortest augmenting paths; row and column 0 are nobody's.
    """
    count = len(cost)
    of_row, of_column = np.zeros(count + 1), np.zeros(count + 1)  # potentials
    row_at = np.zeros(count + 1, int)  # of each column, the row that has it
    for row in range(1, count + 1):
        # 1. grow a tree of alternating paths from this row to the nearest free column
        row_at[0], column = row, 0
        least, before = np.full(count + 1, np.inf), np.zeros(count + 1, int)
        reached = np.zeros(count + 1, bool)
        while row_at[column]:
            reached[column] = True
            at = row_at[column]
            slack = np.append(np.inf, cost[at - 1] - of_row[at] - of_column[1:])
            closer = ~reached & (slack < least)
            least[closer], before[closer] = slack[closer], column
            column = int(np.where(reached, np.inf, least).argmin())
            step = least[column]
            of_row[row_at[reached]] += step
            of_column[reached] -= step
            least[~reached] -= step
        # 2. along the path, each column goes to the row before
        while column:
            row_at[column] = row_at[before[column]]
            column = before[column]
    columns = np.empty(count, int)
    columns[row_at[1:] - 1] = np.arange(count)
    return columns
