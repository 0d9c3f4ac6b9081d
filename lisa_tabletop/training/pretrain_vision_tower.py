"""Stage `look`: CLIP's tower and the projector learn to say what every patch of the view holds.

The tower is small beside the rest of the network, and what the language model knows of the picture
is what this tower says; so it gets a stage of its own and many more pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_ros.model.network import LisaNetwork
from lisa_tabletop.training.concepts import VIEW_SCALE, ConceptSpace, shares
from lisa_tabletop.training.image_batches import classes_of, clip_pixels, relight
from lisa_tabletop.training.scenes import Scenes

SMALLEST_CUT = 0.75  # of the picture's height: views are cut at random, not only at the centre
NAMING = 0.1  # weight of naming kinds and colours, beside the distance of the embeddings
SHARPNESS = 8.0  # of the names, whose shares lie between 0 and 1
BACKGROUND = 0.15  # weight of a patch without any object beside one that is full of one


@dataclass(frozen=True)
class Looks:
    """B views: pixels (B,3,h,h), shares of kinds and colours per patch (B,K,s,s)."""

    clip: Tensor
    kinds: Tensor
    colors: Tensor


class Look(nn.Module):
    """Distance of the view's embeddings from what the view holds, in the concept space."""

    def __init__(self, network: LisaNetwork, scenes: Scenes, batch: int) -> None:
        super().__init__()
        config = network.config
        self.scenes, self.batch, self.config = scenes, batch, config
        self.side = config.clip["image_size"] // config.clip["patch_size"]
        self.concepts = ConceptSpace(config.prompt_size, config.hidden_size)

    def prepare(self, random: np.random.Generator) -> Looks:
        """Random square cuts of stored views, mirrored and relit."""
        views = [
            self._cut(int(i), random) for i in random.integers(len(self.scenes), size=self.batch)
        ]
        rgb, ids, records = zip(*views, strict=True)
        size = self.config.clip["image_size"]
        pixels = torch.stack(
            [
                functional.interpolate(p[None], (size, size), mode="bilinear", antialias=True)[0]
                for p in rgb
            ]
        )
        ids = torch.stack([_resize_ids(i, self.side * 8) for i in ids])
        kinds, colors = classes_of(list(records))
        return Looks(
            clip_pixels(relight(pixels, random), size),
            shares(ids, kinds, len(self.concepts.view_kind), self.side),
            shares(ids, colors, len(self.concepts.view_color), self.side),
        )

    def _cut(self, index: int, random: np.random.Generator) -> tuple[Tensor, Tensor, dict]:
        rgb, ids = self.scenes.rgb[index], self.scenes.ids[index]
        height, width = ids.shape
        side = int(height * random.uniform(SMALLEST_CUT, 1.0))
        top, left = random.integers(height - side + 1), random.integers(width - side + 1)
        window = (slice(top, top + side), slice(left, left + side))
        rgb, ids = np.array(rgb[window]), np.array(ids[window])
        if random.random() < 0.5:
            rgb, ids = rgb[:, ::-1].copy(), ids[:, ::-1].copy()
        pixels = torch.from_numpy(rgb).permute(2, 0, 1).float()
        return pixels, torch.from_numpy(ids).long(), self.scenes.records[index]

    def loss(self, network: LisaNetwork, batch: Looks) -> tuple[Tensor, dict[str, Tensor]]:
        said = network.encode_view(batch.clip)
        view, objects = view_error(self.concepts, said, batch.kinds, batch.colors)
        naming = naming_error(self.concepts, said, batch.kinds, batch.colors)
        logs = {"view": view, "objects": objects, "naming": naming}
        return view + NAMING * naming, logs


def view_error(
    concepts: ConceptSpace, said: Tensor, kinds: Tensor, colors: Tensor
) -> tuple[Tensor, Tensor]:
    """How far embeddings (B,P,H) are from what the view holds, and how far where there are objects.

    kinds and colors: shares of the patches, (B,K,s,s).
    """
    error = (said - concepts.view(kinds, colors)).square().mean(-1)
    covered, weight = _weights(kinds)
    objects = (error * covered).sum() / covered.sum().clamp(min=1)
    return (error * weight).sum() / weight.sum(), objects


def naming_error(concepts: ConceptSpace, said: Tensor, kinds: Tensor, colors: Tensor) -> Tensor:
    """Cross entropy of the kinds and colours that embeddings (B,P,H) are most like.

    A distance is content with the mean of what a patch may be; this asks which it is.
    """
    total = said.new_zeros(())
    for vectors, shared in ((concepts.view_kind, kinds), (concepts.view_color, colors)):
        alike = said @ vectors.T / (VIEW_SCALE * vectors.square().sum(1))
        wanted = shared.flatten(2).transpose(1, 2)
        total = total - (wanted * (SHARPNESS * alike).log_softmax(-1)).sum(-1)
    _, weight = _weights(kinds)
    return (total * weight).sum() / weight.sum()


def _weights(kinds: Tensor) -> tuple[Tensor, Tensor]:
    """How much of each patch is covered by objects, and what the patch counts, (B,P) each."""
    covered = 1 - kinds[:, 0].flatten(1)
    return covered, BACKGROUND + (1 - BACKGROUND) * covered


def _resize_ids(ids: Tensor, side: int) -> Tensor:
    return functional.interpolate(ids[None, None].float(), (side, side), mode="nearest")[
        0, 0
    ].long()
