"""`train_joint`: the whole network on images and questions, with LISA's own losses.

Lai et al. (arXiv 2308.00692): cross entropy 1, BCE 2, Dice 0.5; SAM's encoder stays as it is. What
the parts learnt apart is held by small weights on the losses of the stages before.

What the language model has to learn here is to read the views that the tower really writes, so
there are many questions about each image, and masks are drawn for some of the answers only.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_ros.model.losses import BCE_WEIGHT, CE_WEIGHT, DICE_WEIGHT
from lisa_ros.model.network import LisaNetwork
from lisa_tabletop.language.curriculum import TRAINING_TYPES
from lisa_tabletop.training.attention_supervision import attention_loss
from lisa_tabletop.training.augment import clip_pixels, mirrored, photograph, resize_ids, sam_pixels
from lisa_tabletop.training.pretrain_language import (
    ATTENTION_WEIGHT,
    Example,
    PretrainLanguage,
    concepts_meant,
)
from lisa_tabletop.training.pretrain_towers import (
    NAMING_WEIGHT,
    QUALITY_WEIGHT,
    masks_loss,
    naming_error,
    patch_weights,
    view_error,
    view_shares,
)
from lisa_tabletop.training.scenes import HEIGHT, WIDTH
from lisa_tabletop.training.sequence_packing import answer_loss, run_packed

QUESTIONS = 12  # asked about each view, which is encoded once for all of them
MASKS = 2  # drawn for each view of a batch, on average: the time is for questions
# what a small model must get right first is asked more often than the world's own shares say
TYPES = {
    **{**TRAINING_TYPES, "plain": 0.16, "absent": 0.16, "unheard": 0.08, "two_hop": 0.10},
    **{"use": 0.26, "relation": 0.20, "followup": 0.10, "aside": 0.08},
}
HOLD = 0.5  # weight of the losses that tie the two seams to the concept space


class TrainJoint(PretrainLanguage):
    """LISA's loss on rendered images."""

    def prepare(self, random: np.random.Generator) -> Example:
        """A batch of views with their pixels, each with its questions."""
        example = self.draw(random, TYPES, QUESTIONS, pixels=True)
        return replace(example, drawn=example.drawn[: MASKS * self.batch])

    def loss(self, network: LisaNetwork, batch: Example) -> tuple[Tensor, dict[str, Tensor]]:
        views, packed, drawn = mirrored(batch.views), batch.packed, batch.drawn
        # 1. what the tower writes about the image, and the answers of who reads it
        rgb = photograph(views.rgb)
        said = network.encode_view(clip_pixels(rgb, self.config.clip["image_size"])).float()
        states, layers = run_packed(network, packed, said)
        ce, right = answer_loss(network, states, packed)
        prompts = network.seg_embeddings(states[tuple(packed.segs.T)]).float()
        # 2. masks of some of the answers
        size = self.config.sam_vision["image_size"]
        with torch.no_grad():
            frames = network.encode_frame(sam_pixels(rgb, size))
            rows, targets = packed.segs[drawn, 0], packed.targets[drawn]
            small = resize_ids(views.ids, size * HEIGHT // WIDTH, size)
            truth = (small[rows] == targets[:, None, None]).float()[:, None]
        bce, dice, quality, iou = masks_loss(
            network, frames[rows], prompts[drawn, None], truth, truth.new_ones(len(truth), 1)
        )
        # 3. what the stages before taught
        kinds, colors = view_shares(self.concepts, views, self.side)
        weight = patch_weights(views.ids, self.side)
        view, _ = view_error(self.concepts, said, kinds, colors, weight)
        naming, _ = naming_error(self.concepts, said, kinds, colors, weight)
        attention, hit = attention_loss(network, packed, layers, views, kinds)
        aim = functional.mse_loss(prompts, concepts_meant(network, self.concepts, views, packed))
        held = view + NAMING_WEIGHT * naming + aim + ATTENTION_WEIGHT * attention
        loss = CE_WEIGHT * ce + BCE_WEIGHT * bce + DICE_WEIGHT * dice
        loss = loss + HOLD * held + QUALITY_WEIGHT * quality
        logs = {"ce": ce, "right": right, "bce": bce, "dice": dice, "iou": iou, "aim": aim}
        return loss, logs | {"view": view, "hit": hit}


def joint_parts(network: LisaNetwork) -> list[nn.Module]:
    """What the stage teaches: everything but SAM's encoder."""
    return [part for name, part in network.named_children() if name != "image_encoder"]
