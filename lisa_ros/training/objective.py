"""LISA's loss of a batch of images with dialogues about them, as one module with one `forward`.

One forward, because `fully_shard` gathers a part's weights when that part is called from within
the forward of the module around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import reduce
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lisa_ros.model.losses import LisaLoss, lisa_loss, match_instances
from lisa_ros.model.network import LisaNetwork, label_positions
from lisa_ros.model.processor import Processor
from lisa_ros.training.feature_cache import FeatureCache


@dataclass(frozen=True)
class ImageExample:
    """An image and the dialogues about it, in the model's terms.

    view: what CLIP sees (3,h,w), or what it made of that (P,H); frame: the same for SAM, (3,S,S)
    or (C,g,g). ids: (T,) for each dialogue, learnt: the same in bool. truth (N,H,W) bool, at the
    size of the image, a mask for every [SEG] that is learnt. groups: of each mask, the number of
    its group, within which their order means nothing (LISA++), or nothing at all. keep: where a
    cache is to keep what the frozen encoders will say of the pixels.
    """

    view: Tensor
    frame: Tensor
    ids: tuple[Tensor, ...]
    learnt: tuple[Tensor, ...]
    truth: Tensor
    groups: tuple[int, ...] = ()
    keep: Path | None = None


class Objective(nn.Module):
    """The loss of examples; what is frozen is computed without a gradient, or comes of a cache."""

    def __init__(
        self, network: LisaNetwork, processor: Processor, cache: FeatureCache | None = None
    ) -> None:
        super().__init__()
        self.network, self.processor, self.cache = network, processor, cache
        self.sharded = False  # by `recipe.shard`

    def forward(self, examples: Sequence[ImageExample]) -> tuple[LisaLoss, list[Tensor]]:
        """The loss, and the mask logits (N,H,W) of each image."""
        network = self.network
        # 1. all dialogues in rows, padded on the right, each with the view of its image
        ids = pad_sequence([row for one in examples for row in one.ids], batch_first=True)  # (B, T)
        learnt = pad_sequence([row for one in examples for row in one.learnt], batch_first=True)
        lengths = torch.tensor([len(row) for one in examples for row in one.ids])
        known = torch.arange(ids.shape[1]) < lengths[:, None]
        owner = [index for index, one in enumerate(examples) for _ in one.ids]
        with torch.no_grad():
            views, frames = self._features(examples)  # (I, P, H), each (1, C, g, g)
        # 2. the language model: what it says, and what it prompts SAM with
        states = network(ids, views[owner], known.to(ids.device))  # (B, T + P - 1, H)
        tokens = network.config.image_tokens
        logits = network.lm_head(states[tuple(label_positions(ids, learnt, tokens).T)])
        segs = label_positions(ids, learnt & (ids == network.config.seg_token_id), tokens)
        prompts = network.seg_embeddings(states[tuple(segs.T)])  # (all [SEG], C)
        # 3. masks at the size of their images
        image = torch.tensor(owner, device=ids.device)[segs[:, 0]]
        masks, truth = [], []
        for index, one in enumerate(examples):
            low, _ = network.decode_masks(frames[index], prompts[image == index][None])
            size = tuple(one.truth.shape[1:])
            masks.append(self.processor.full_size_masks(low[0], size))
            order = match_instances(masks[-1], one.truth, one.groups) if one.groups else slice(None)
            truth.append(one.truth[order])
        loss = lisa_loss(logits, ids[:, 1:][learnt[:, 1:]], masks, truth)
        # a batch without masks has a gradient for their parts too: all ranks reduce the same
        parts = (*network.text_hidden_fcs.parameters(), *network.mask_decoder.parameters())
        loss.ce = loss.ce + 0 * sum(p.sum() for p in parts)
        return loss, masks

    def _features(self, examples: Sequence[ImageExample]) -> tuple[Tensor, list[Tensor]]:
        """What CLIP and SAM say of the images, one after the other, as the authors do: SAM's
        encoder is the hungriest part."""
        asked = [one for one in examples if one.view.dim() == 3]
        if self.cache is not None and self.sharded:
            # all ranks gather the encoders' layers together, so all must ask as often
            device = examples[0].view.device
            most = int(reduce(torch.tensor([float(len(asked))], device=device), "max"))
            asked += [self._blank(device)] * (most - len(asked))
        said = [
            (
                self.network.encode_view(one.view[None])[0],
                self.network.encode_frame(one.frame[None]),
            )
            for one in asked
        ]
        found, rest = [], iter(said)
        for one in examples:
            view, frame = (one.view, one.frame[None]) if one.view.dim() == 2 else next(rest)
            if self.cache is not None and one.keep is not None:
                self.cache.keep(one.keep, view, frame[0])
            found.append((view, frame.float()))
        return torch.stack([view for view, _ in found]), [frame for _, frame in found]

    def _blank(self, device: torch.device) -> ImageExample:
        clip, sam = self.processor.clip_size, self.processor.sam_size
        view, frame = torch.zeros(3, clip, clip), torch.zeros(3, sam, sam)
        none = torch.zeros(0, 1, 1)
        return ImageExample(view.to(device), frame.to(device), (), (), none)
