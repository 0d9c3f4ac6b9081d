"""Fixed meanings for the two seams of the network, so that its parts can learn apart and then fit.

Two places join LISA's parts: the view's embeddings between CLIP and the language model, and the
mask prompt between the language model and SAM. For training, a point in each space is assigned to
every kind and every colour, once and at random (a seed of its own), and position is written as SAM
writes the position of a clicked point. Then
 - the towers learn to *produce* view embeddings and to *obey* mask prompts (stage `see`),
 - the language model learns to *read* view embeddings and to *issue* mask prompts (stage `read`),
each without the other, and the join needs little more than a polish.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_tabletop.world.kinds import KINDS
from lisa_tabletop.world.parts import COLORS

KIND_INDEX = {kind: index + 1 for index, kind in enumerate(KINDS)}  # 0 is "no object"
FIRST_KINDS = 20  # what later kinds get is drawn after all else, so that earlier weights can go on
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
        kinds, colors = FIRST_KINDS + 1, len(COLOR_INDEX) + 1
        for name, rows, width in (
            ("prompt_kind", kinds, prompt_size),
            ("prompt_color", colors, prompt_size),
            ("view_kind", kinds, hidden_size),
            ("view_color", colors, hidden_size),
            ("view_place", 2, hidden_size // 2),
        ):
            self.register_buffer(name, torch.randn(rows, width, generator=random))
        for _ in range(len(KIND_INDEX) - FIRST_KINDS):
            for name in ("prompt_kind", "view_kind"):
                rows = getattr(self, name)
                row = torch.randn(1, rows.shape[1], generator=random)
                setattr(self, name, torch.cat([rows, row]))
        self.prompt_kind[0] = 0
        self.prompt_color[0] = 0

    def view(self, kinds: Tensor, colors: Tensor) -> Tensor:
        """What the projector should say, (B,P,H), from shares of kinds and colours (B,K,s,s)."""
        side = kinds.shape[-1]
        what = kinds.flatten(2).transpose(1, 2) @ self.view_kind
        tint = colors.flatten(2).transpose(1, 2) @ self.view_color
        centres = (torch.arange(side, device=kinds.device) + 0.5) / side * 2 - 1
        y, x = torch.meshgrid(centres, centres, indexing="ij")
        angles = 2 * torch.stack([x, y], dim=-1).reshape(-1, 2) @ self.view_place
        place = torch.cat([angles.sin(), angles.cos()], dim=-1)
        return VIEW_SCALE * (what + tint + place)

    def prompt(self, kind: Tensor, color: Tensor, place: Tensor | None) -> Tensor:
        """The mask prompt (N,C) for kinds (N,), colours (N,) and encoded places (N,C) or none."""
        what = self.prompt_kind[kind] + self.prompt_color[color]
        return what if place is None else what + place


def encode_places(centres: Tensor, matrix: Tensor) -> Tensor:
    """SAM's encoding (N,C) of points (N,2), x and y in -1..1 over its square picture."""
    angles = 2 * torch.pi * centres @ matrix
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def shares(ids: Tensor, table: Tensor, classes: int, side: int) -> Tensor:
    """How much of each cell every class covers: (B,classes,side,side) from ids (B,h,w).

    `table` (B, ids) maps an object's id to its class; h and w must be multiples of `side`.
    """
    labels = table.gather(1, ids.flatten(1)).view_as(ids)
    one_hot = functional.one_hot(labels, classes).permute(0, 3, 1, 2).float()
    return functional.avg_pool2d(one_hot, (ids.shape[1] // side, ids.shape[2] // side))
