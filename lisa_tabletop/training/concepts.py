"""Fixed meanings for the two seams of the network, so that its parts can learn apart and then fit.

Two places join LISA's parts: the view's embeddings between CLIP and the language model, and the
mask prompt between the language model and SAM. For training, a point in each space is assigned to
every kind and every colour, once and at random (a seed of its own), and position is written as SAM
writes the position of a clicked point. Then
 - the towers learn to *produce* view embeddings (`pretrain_vision_tower`) and to *obey* mask
   prompts (`pretrain_sam`),
 - the language model learns to *read* view embeddings and to *issue* mask prompts
   (`pretrain_language`),
each without the others, and `train_joint` needs little more than a polish.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lisa_tabletop.world.kinds import KINDS
from lisa_tabletop.world.parts import COLORS

KIND_INDEX = {kind: index + 1 for index, kind in enumerate(KINDS)}  # 0 is "no object"
COLOR_INDEX = {color: index + 1 for index, color in enumerate(COLORS)}
SEED = 20_308
VIEW_SCALE = 0.7


class ConceptSpace(nn.Module):
    """Vectors of kinds and colours for mask prompts (C) and view embeddings (H)."""

    prompt_kind: Tensor
    prompt_color: Tensor
    view_kind: Tensor
    view_color: Tensor
    view_place: Tensor

    def __init__(self, prompt_size: int, hidden_size: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(SEED)
        kinds, colors = len(KIND_INDEX) + 1, len(COLOR_INDEX) + 1
        for name, rows, width in (
            ("prompt_kind", kinds, prompt_size),
            ("prompt_color", colors, prompt_size),
            ("view_kind", kinds, hidden_size),
            ("view_color", colors, hidden_size),
            ("view_place", 2, hidden_size // 2),
        ):
            self.register_buffer(name, torch.randn(rows, width, generator=random))
        self.prompt_kind[0] = 0
        self.prompt_color[0] = 0

    def view(self, kinds: Tensor, colors: Tensor) -> Tensor:
        """What the projector should say, (B,P,H), from the `loudness` of both, (B,K,s,s)."""
        side = kinds.shape[-1]
        with torch.autocast(kinds.device.type, enabled=False):
            what = kinds.flatten(2).transpose(1, 2) @ self.view_kind
            tint = colors.flatten(2).transpose(1, 2) @ self.view_color
            centres = (torch.arange(side, device=kinds.device) + 0.5) / side * 2 - 1
            y, x = torch.meshgrid(centres, centres, indexing="ij")
            angles = 2 * torch.stack([x, y], dim=-1).reshape(-1, 2) @ self.view_place
        place = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return VIEW_SCALE * (what + tint + place)

    def prompt(self, kind: Tensor, color: Tensor, place: Tensor | None) -> Tensor:
        """The mask prompt (...,C) for kinds (...), colours (...) and encoded places (...,C)."""
        what = self.prompt_kind[kind] + self.prompt_color[color]
        return what if place is None else what + place


def encode_places(centres: Tensor, matrix: Tensor) -> Tensor:
    """SAM's encoding (...,C) of points (...,2), x and y in -1..1 over its square image."""
    with torch.autocast(centres.device.type, enabled=False):
        angles = 2 * torch.pi * centres @ matrix
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def coverage(ids: Tensor, table: Tensor, classes: int, side: int) -> Tensor:
    """How much of each cell every class covers: (B,classes,side,side) from ids (B,h,w).

    `table` (B,ids) maps an object's id to its class; h and w must be multiples of `side`.
    """
    labels = table.long().gather(1, ids.flatten(1).long())  # (B,h*w)
    one = torch.ones((), device=ids.device).expand(labels.shape)
    cells = cell_sums(labels, one, ids.shape[1:], classes, side)
    return cells * (side * side / labels.shape[1])


def cell_sums(
    labels: Tensor, values: Tensor, hw: tuple[int, int], classes: int, side: int
) -> Tensor:
    """Sums (B,classes,side,side) of `values` (B,h*w) by cell and label (B,h*w)."""
    height, width = hw
    rows = torch.arange(height, device=labels.device) // (height // side)
    columns = torch.arange(width, device=labels.device) // (width // side)
    cells = (rows[:, None] * side + columns).flatten()  # (h*w,)
    sums = torch.zeros(len(labels), classes * side * side, device=labels.device)
    sums.scatter_add_(1, labels * side * side + cells, values)
    return sums.view(-1, classes, side, side)


def loudness(shares: Tensor) -> Tensor:
    """How loudly a patch speaks of what it holds, (B,K,s,s), from the shares it covers.

    A fork's handle fills a fifth of its patches; the square root lets it be heard over the table.
    """
    objects = shares[:, 1:]
    empty = 1 - objects.sum(1, keepdim=True)
    return torch.cat([empty, objects.clamp(min=0).sqrt()], dim=1)
