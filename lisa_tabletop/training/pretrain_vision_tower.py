"""`pretrain_vision_tower`: CLIP's tower and the projector learn to say what every patch holds.

The tower is small beside the rest of the network, and what the language model knows of the image
is what this tower says; so it gets a stage of its own and many more images.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from lisa_ros.model.network import LisaNetwork
from lisa_tabletop.training.augment import (
    Views,
    clip_pixels,
    cut_out,
    load_views,
    mirrored,
    object_areas,
    photograph,
    resize_ids,
)
from lisa_tabletop.training.concepts import VIEW_SCALE, ConceptSpace, cell_sums, coverage, loudness
from lisa_tabletop.training.scenes import Scenes

NAMING_WEIGHT = 0.1  # of naming kinds and colours, beside the distance of the embeddings
SHARPNESS = 8.0  # of the names, whose shares lie between 0 and 1
BACKGROUND = 0.15  # weight of a patch without any object beside one that is full of one
USUAL_AREA = 0.02  # of the view: objects smaller than that weigh more in each of their patches
MOST_WEIGHT = 4.0
CELLS = 8  # along each side of a patch, in which it is counted what it holds


class PretrainVisionTower(nn.Module):
    """Distance of the view's embeddings from what the view holds, in the concept space."""

    def __init__(self, network: LisaNetwork, scenes: Scenes, batch: int) -> None:
        super().__init__()
        config = network.config
        self.scenes, self.batch = scenes, batch
        self.size = config.clip["image_size"]
        self.side = self.size // config.clip["patch_size"]
        self.concepts = ConceptSpace(config.prompt_size, config.hidden_size)

    def prepare(self, random: np.random.Generator) -> Views:
        """A batch of views."""
        return load_views(self.scenes, self.scenes.draw(random, self.batch), random)

    def loss(self, network: LisaNetwork, batch: Views) -> tuple[Tensor, dict[str, Tensor]]:
        views = cut_out(mirrored(batch))
        said = network.encode_view(clip_pixels(photograph(views.rgb), self.size)).float()
        kinds, colors = view_shares(self.concepts, views, self.side)
        weight = patch_weights(views.ids, self.side)
        view, objects = view_error(self.concepts, said, kinds, colors, weight)
        naming, right = naming_error(self.concepts, said, kinds, colors, weight)
        logs = {"view": view, "objects": objects, "naming": naming, "right": right}
        return view + NAMING_WEIGHT * naming, logs


@torch.no_grad()
def view_shares(concepts: ConceptSpace, views: Views, side: int) -> tuple[Tensor, Tensor]:
    """Kind and colour shares (B,K,side,side) of the patches of the view, which is all of ids."""
    ids = view_ids(views.ids, side)
    return (
        coverage(ids, views.kinds, len(concepts.view_kind), side),
        coverage(ids, views.colors, len(concepts.view_color), side),
    )


def view_ids(ids: Tensor, side: int) -> Tensor:
    """Ids (B,H,W) squashed as the view is, CELLS to a patch: (B,n,n)."""
    return resize_ids(ids, side * CELLS, side * CELLS)


@torch.no_grad()
def patch_weights(ids: Tensor, side: int) -> Tensor:
    """What each patch counts, (B,P): more where there are objects, and most where they are small.

    A book covers twenty patches and a fork five; both are one thing to be asked for.
    """
    small = view_ids(ids, side)
    areas, _ = object_areas(small)
    weights = (USUAL_AREA * small[0].numel() / areas.clamp(min=1)).sqrt().clamp(0.5, MOST_WEIGHT)
    weights[:, 0] = 0
    values = weights.gather(1, small.flatten(1))
    sums = cell_sums(torch.zeros_like(small.flatten(1)), values, small.shape[1:], 1, side)
    return BACKGROUND + sums.flatten(1) / CELLS**2


def view_error(
    concepts: ConceptSpace, said: Tensor, kinds: Tensor, colors: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """How far embeddings (B,P,H) are from what the view holds, and how far where there are objects.

    kinds and colors: shares of the patches, (B,K,s,s); weight (B,P).
    """
    error = (said - concepts.view(loudness(kinds), loudness(colors))).square().mean(-1)
    covered = 1 - kinds[:, 0].flatten(1)
    objects = (error * covered).sum() / covered.sum().clamp(min=1)
    return (error * weight).sum() / weight.sum(), objects


def naming_error(
    concepts: ConceptSpace, said: Tensor, kinds: Tensor, colors: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the kinds and colours that embeddings (B,P,H) are most like; and how often
    the likeliest kind of object is the one that covers most of a patch.

    A distance is content with the mean of what a patch may be; this asks which it is.
    """
    total, alike = said.new_zeros(()), said
    for vectors, shared in ((concepts.view_color, colors), (concepts.view_kind, kinds)):
        alike = said @ vectors.T / (VIEW_SCALE * vectors.square().sum(1))  # (B,P,K)
        wanted = loudness(shared).flatten(2).transpose(1, 2).clamp(min=0)
        wanted = wanted / wanted.sum(-1, keepdim=True)
        total = total - (wanted * (SHARPNESS * alike).log_softmax(-1)).sum(-1)
    objects = kinds[:, 1:].flatten(2)  # (B,K-1,P), after the loop `alike` is that of the kinds
    there = (objects.sum(1) > 0.3).float()
    right = (alike[..., 1:].argmax(-1) == objects.argmax(1)).float()
    return (total * weight).sum() / weight.sum(), (right * there).sum() / there.sum().clamp(min=1)
