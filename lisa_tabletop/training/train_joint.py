"""Stage `join`: the whole network on pictures and questions, with LISA's own losses.

Lai et al. (arXiv 2308.00692): cross entropy 1, BCE 2, Dice 0.5; SAM's encoder stays as it is. What
the parts learnt apart is held by small weights on the losses of the stages before.

What the language model has to learn here is to read the views that the tower really writes, so
there are many questions about each picture, and masks are drawn for some of the answers only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_ros.model.losses import BCE_WEIGHT, CE_WEIGHT, DICE_WEIGHT
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.tokenizer import Tokenizer
from lisa_tabletop.language.instructions import TYPES as WORLD_TYPES
from lisa_tabletop.training.attention_supervision import pointing_loss
from lisa_tabletop.training.concepts import ConceptSpace
from lisa_tabletop.training.image_batches import Pictures, load_pictures
from lisa_tabletop.training.pretrain_language import POINTING, concepts_meant
from lisa_tabletop.training.pretrain_sam import masks_loss, view_shares
from lisa_tabletop.training.pretrain_vision_tower import view_error
from lisa_tabletop.training.questions import questions_about
from lisa_tabletop.training.scenes import Scenes
from lisa_tabletop.training.sequence_packing import Packed, answer_loss, pack, run_packed

QUESTIONS = 6  # asked about each view
MASKS = 2  # drawn for each view of a batch, on average: the time is for questions
# what a small model must get right first is asked more often than the world's own shares say
TYPES = {**WORLD_TYPES, "plain": 0.22, "absent": 0.20, "attribute": 0.10, "relation": 0.20}
HOLD = 0.5  # weight of the losses that tie the two seams to the concept space
QUALITY = 0.1  # weight of the error of SAM's guess at its own IoU


@dataclass(frozen=True)
class Joint:
    """A batch: pictures, the packed questions about them, which of their N masks are drawn (M,)."""

    pictures: Pictures
    packed: Packed
    drawn: Tensor


class Join(nn.Module):
    """LISA's loss on rendered pictures."""

    def __init__(
        self,
        network: LisaNetwork,
        scenes: Scenes,
        tokenizer: Tokenizer,
        batch: int,
        *,
        implicit: bool = True,
    ) -> None:
        """`implicit`: questions that do not name what they mean are asked, too."""
        super().__init__()
        self.implicit = implicit
        config = network.config
        self.scenes, self.tokenizer, self.batch, self.config = scenes, tokenizer, batch, config
        self.concepts = ConceptSpace(config.prompt_size, config.hidden_size)

    def prepare(self, random: np.random.Generator) -> Joint:
        """An augmented batch of views, each with its questions."""
        chosen = random.integers(len(self.scenes), size=self.batch)
        pictures = load_pictures(self.scenes, chosen, self.config, random)
        questions = [
            questions_about(record, random, QUESTIONS, TYPES, implicit=self.implicit)
            for record in pictures.maps.records
        ]
        packed = pack(questions, self.tokenizer, self.config)
        drawn = random.permutation(len(packed.segs))[: MASKS * self.batch]
        return Joint(pictures, packed, torch.from_numpy(drawn))

    def loss(self, network: LisaNetwork, batch: Joint) -> tuple[Tensor, dict[str, Tensor]]:
        maps, packed = batch.pictures.maps, batch.packed
        views = network.encode_view(batch.pictures.clip)
        states, layers = run_packed(network, packed, views)
        ce, right = answer_loss(network, states, packed)
        prompts = network.seg_embeddings(states[tuple(packed.segs.T)])
        rows, targets = packed.segs[batch.drawn, 0], packed.targets[batch.drawn]
        truth = (maps.ids[rows] == targets[:, None, None]).float()
        with torch.no_grad():
            frames = network.encode_frame(batch.pictures.sam)
        bce, dice, quality, iou = masks_loss(network, frames[rows], prompts[batch.drawn], truth)
        kinds, colors = view_shares(self.concepts, maps, self.config)
        view, _ = view_error(self.concepts, views, kinds, colors)
        pointing, hit = pointing_loss(network, packed, layers, maps, kinds)
        aim = functional.mse_loss(prompts, concepts_meant(network, self.concepts, maps, packed))
        loss = CE_WEIGHT * ce + BCE_WEIGHT * bce + DICE_WEIGHT * dice
        loss = loss + HOLD * (view + aim + POINTING * pointing) + QUALITY * quality
        logs = {"ce": ce, "right": right, "bce": bce, "dice": dice, "iou": iou, "aim": aim}
        logs |= {"view": view, "hit": hit}
        return loss, logs


def joined_parts(network: LisaNetwork) -> list[nn.Module]:
    """What the stage teaches: everything but SAM's encoder."""
    return [part for name, part in network.named_children() if name != "image_encoder"]
