"""LISA's loss of a batch of pictures with dialogues about them, as one module with one `forward`.

One forward, because `fully_shard` gathers a part's weights when that part is called from within
the forward of the module around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from lisa_ros.model.losses import LisaLoss, lisa_loss
from lisa_ros.model.network import LisaNetwork, label_positions
from lisa_ros.model.processor import Processor


@dataclass(frozen=True)
class PictureExample:
    """A picture and the dialogues about it, in the model's terms.

    view: what CLIP sees (3,h,w), or what it made of that (P,H); frame: the same for SAM, (3,S,S)
    or (C,g,g), in which the picture takes `resized` (height, width). ids: (T,) for each dialogue,
    learnt: the same in bool. truth (N,H,W) bool, a mask for every [SEG] that is learnt.
    """

    view: Tensor
    frame: Tensor
    resized: tuple[int, int]
    ids: tuple[Tensor, ...]
    learnt: tuple[Tensor, ...]
    truth: Tensor


class Objective(nn.Module):
    """The loss of examples; what is frozen is computed without a gradient."""

    def __init__(self, network: LisaNetwork, processor: Processor) -> None:
        super().__init__()
        self.network, self.processor = network, processor

    def forward(self, examples: Sequence[PictureExample]) -> tuple[LisaLoss, list[Tensor]]:
        """The loss, and the mask logits (N,H,W) of each picture."""
        network = self.network
        # 1. all dialogues in rows, padded on the right, each with the view of its picture
        ids = pad_sequence([row for one in examples for row in one.ids], batch_first=True)  # (B, T)
        learnt = pad_sequence([row for one in examples for row in one.learnt], batch_first=True)
        lengths = torch.tensor([len(row) for one in examples for row in one.ids])
        known = torch.arange(ids.shape[1]) < lengths[:, None]
        owner = [index for index, one in enumerate(examples) for _ in one.ids]
        with torch.no_grad():
            views = self._views(torch.stack([one.view for one in examples]))  # (I, P, H)
            frames = self._frames([one.frame for one in examples])  # each (1, C, g, g)
        # 2. the language model: what it says, and what it prompts SAM with
        states = network(ids, views[owner], known.to(ids.device))  # (B, T + P - 1, H)
        tokens = network.config.image_tokens
        logits = network.lm_head(states[tuple(label_positions(ids, learnt, tokens).T)])
        segs = label_positions(ids, learnt & (ids == network.config.seg_token_id), tokens)
        prompts = network.seg_embeddings(states[tuple(segs.T)])  # (all [SEG], C)
        # 3. masks at the size of their pictures
        picture = torch.tensor(owner, device=ids.device)[segs[:, 0]]
        masks, truth = [], []
        for index, one in enumerate(examples):
            low, _ = network.decode_masks(frames[index], prompts[picture == index][None])
            size = tuple(one.truth.shape[1:])
            masks.append(self.processor.full_size_masks(low[0], one.resized, size))
            truth.append(one.truth)
        loss = lisa_loss(logits, ids[:, 1:][learnt[:, 1:]], masks, truth)
        # a batch without masks has a gradient for their parts too: all ranks reduce the same
        parts = (*network.text_hidden_fcs.parameters(), *network.mask_decoder.parameters())
        loss.ce = loss.ce + 0 * sum(p.sum() for p in parts)
        return loss, masks

    def _views(self, views: Tensor) -> Tensor:
        return self.network.encode_view(views) if views.dim() == 4 else views

    def _frames(self, frames: Sequence[Tensor]) -> list[Tensor]:
        """One picture after the other, as the authors do: SAM's encoder is the hungriest part."""
        pixels = frames[0].shape[0] == 3
        return [
            (self.network.encode_frame(one[None]) if pixels else one[None]).float()
            for one in frames
        ]
