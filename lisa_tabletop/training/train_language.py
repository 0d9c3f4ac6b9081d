"""`pretrain_language` and `train_joint`: the language model learns to answer.

First about views that are written in the concept space (1), then the whole network on images, with
LISA's own losses (2; Lai et al., arXiv 2308.00692: cross entropy 1, BCE 2, Dice 0.5; SAM's encoder
stays as it is). What the parts learnt apart is held by small weights on the losses of the stages
before. What the language model has to learn there is to read the views that the tower really
writes, so there are many questions about each image, and masks are drawn for some of the answers
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_ros.model.losses import BCE_WEIGHT, CE_WEIGHT, DICE_WEIGHT
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.tokenizer import Tokenizer
from lisa_tabletop.language.curriculum import TRAINING_TYPES, compose_training
from lisa_tabletop.language.nouns import Vocabulary
from lisa_tabletop.training.attention_supervision import attention_loss
from lisa_tabletop.training.augment import (
    Views,
    clip_pixels,
    load_views,
    mirrored,
    object_areas,
    photograph,
    resize_ids,
    sam_pixels,
)
from lisa_tabletop.training.concepts import (
    KIND_INDEX,
    ConceptSpace,
    coverage,
    encode_places,
    loudness,
)
from lisa_tabletop.training.pretrain_towers import (
    NAMING_WEIGHT,
    QUALITY_WEIGHT,
    ViewStage,
    masks_loss,
    naming_error,
    patch_weights,
    view_error,
    view_ids,
    view_shares,
)
from lisa_tabletop.training.scenes import HEIGHT, WIDTH, Scenes, mirror
from lisa_tabletop.training.sequence_packing import Packed, answer_loss, pack, run_packed

# 1. pretrain_language
QUESTIONS = 8  # asked about each view
ATTENTION_WEIGHT = 0.5  # of where the attention lies
DOUBT = 0.6  # share that a view gives at most to another kind than what is there
VIEW_NOISE = 0.25  # of the view's embeddings, which the towers will not produce exactly
# 2. train_joint
JOINT_QUESTIONS = 12  # asked about each view, which is encoded once for all of them
MASKS = 2  # drawn for each view of a batch, on average: the time is for questions
# what a small model must get right first is asked more often than the world's own shares say
JOINT_TYPES = {
    **{**TRAINING_TYPES, "plain": 0.16, "absent": 0.16, "unheard": 0.08, "two_hop": 0.10},
    **{"use": 0.26, "relation": 0.20, "followup": 0.10, "aside": 0.08},
}
HOLD = 0.5  # weight of the losses that tie the two seams to the concept space


@dataclass(frozen=True)
class Example:
    """B views and the packed questions about them; drawn (M,): of which of its masks to be drawn
    (`train_joint`)."""

    views: Views
    packed: Packed
    drawn: Tensor


# 1. pretrain_language


class PretrainLanguage(ViewStage):
    """Cross entropy of the answers, distance of mask prompts from the concepts meant, attention."""

    def __init__(
        self,
        network: LisaNetwork,
        scenes: Scenes,
        tokenizer: Tokenizer,
        vocabulary: Vocabulary,
        batch: int,
        *,
        implicit: bool = True,
    ) -> None:
        """`vocabulary`: what is asked for in vain; `implicit`: questions that do not name what they
        mean are asked, too."""
        super().__init__(network, scenes, batch)
        self.tokenizer, self.vocabulary, self.implicit = tokenizer, vocabulary, implicit

    def prepare(self, random: np.random.Generator) -> Example:
        """Views with their questions packed; nobody looks at their pixels."""
        return self.draw(random, TRAINING_TYPES, QUESTIONS, pixels=False)

    def draw(
        self,
        random: np.random.Generator,
        types: Mapping[str, float],
        questions: int,
        *,
        pixels: bool,
    ) -> Example:
        """A batch of views, and up to `questions` about each of them."""
        chosen = self.scenes.draw(random, self.batch)
        views = load_views(self.scenes, chosen, random, pixels=pixels)
        asked = []
        for view, turned in zip(chosen, views.mirrored.tolist(), strict=True):
            record = self.scenes.record(view)
            record, vocabulary = mirror(record) if turned else record, self.vocabulary
            asked.append(
                compose_training(
                    record, random, questions, vocabulary, types=types, implicit=self.implicit
                )
            )
        packed = pack(asked, self.tokenizer, self.config)
        return Example(views, packed, torch.from_numpy(random.permutation(len(packed.segs))))

    def loss(self, network: LisaNetwork, batch: Example) -> tuple[Tensor, dict[str, Tensor]]:
        views, packed = mirrored(batch.views), batch.packed
        # 1. the view, written in concepts, in doubt and noisy as towers are
        kinds, colors = view_shares(self.concepts, views, self.side)
        with torch.no_grad():
            seen = torch.lerp(kinds, *self._mistaken(views, kinds))
            written = self.concepts.view(loudness(seen), loudness(colors))
            written = written + VIEW_NOISE * torch.randn_like(written)
        # 2. the answers, and the concept that each [SEG] asks for
        states, layers = run_packed(network, packed, written)
        ce, right = answer_loss(network, states, packed)
        prompts = network.seg_embeddings(states[tuple(packed.segs.T)]).float()
        aim = functional.mse_loss(prompts, concepts_meant(network, self.concepts, views, packed))
        # 3. where the attention lies
        attention, hit = attention_loss(network, packed, layers, views, kinds)
        logs = {"ce": ce, "right": right, "aim": aim, "attention": attention, "hit": hit}
        return ce + aim + ATTENTION_WEIGHT * attention, logs

    def _mistaken(self, views: Views, kinds: Tensor) -> tuple[Tensor, Tensor]:
        """Shares as if every object were of another kind, and how much views are in that doubt."""
        count, device = len(kinds), kinds.device
        others = torch.randint(1, len(KIND_INDEX) + 1, views.kinds.shape, device=device)
        others = others * (views.kinds > 0)
        ids = view_ids(views.ids, self.side)
        doubt = DOUBT * (2 * torch.rand(count, 1, 1, 1, device=device) - 1).clamp(min=0)
        return coverage(ids, others, kinds.shape[1], self.side), doubt  # half have no doubt


@torch.no_grad()
def concepts_meant(
    network: LisaNetwork, concepts: ConceptSpace, views: Views, packed: Packed
) -> Tensor:
    """The concept prompts (N,C) of the objects meant: kind, colour and place."""
    rows, identities = packed.segs[:, 0], packed.targets
    _, centres = object_areas(views.ids)
    longer = max(views.ids.shape[1:])  # SAM's square is as wide as the image is long
    matrix = network.shared_image_embedding.positional_embedding
    place = encode_places((centres[rows, identities] + 0.5) / longer * 2 - 1, matrix)
    return concepts.prompt(views.kinds[rows, identities], views.colors[rows, identities], place)


# 2. train_joint


class TrainJoint(PretrainLanguage):
    """LISA's loss on rendered images."""

    def prepare(self, random: np.random.Generator) -> Example:
        """A batch of views with their pixels, each with its questions."""
        example = self.draw(random, JOINT_TYPES, JOINT_QUESTIONS, pixels=True)
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
