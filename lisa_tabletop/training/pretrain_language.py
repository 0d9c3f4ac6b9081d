"""Stage `read`: the language model learns to answer about views that say exactly what is there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.tokenizer import Tokenizer
from lisa_tabletop.language.instructions import TYPES as WORLD_TYPES
from lisa_tabletop.training.attention_supervision import pointing_loss
from lisa_tabletop.training.concepts import KIND_INDEX, ConceptSpace, encode_places
from lisa_tabletop.training.image_batches import Maps, load_maps
from lisa_tabletop.training.pretrain_sam import view_shares
from lisa_tabletop.training.questions import questions_about
from lisa_tabletop.training.scenes import Scenes
from lisa_tabletop.training.sequence_packing import Packed, answer_loss, pack, run_packed

QUESTIONS = 8  # asked about each view
# plain names are learnt at once; what needs several steps of thought is asked more often
TYPES = {**WORLD_TYPES, "plain": 0.05, "attribute": 0.06, "relation": 0.28, "two_hop": 0.13}
POINTING = 0.5  # weight of where the attention lies
DOUBT = 0.6  # share that a view gives at most to another kind than what is there
VIEW_NOISE = 0.25  # of the view's embeddings, which the towers will not produce exactly


@dataclass(frozen=True)
class Reading:
    """A batch: what the views hold, and the questions about them.

    The views are in doubt, as towers are: a share `doubt` (B,1,1,1) of every object is taken for
    another kind, `others` (B, ids), and `noise` (B,P,H) is on top.
    """

    maps: Maps
    packed: Packed
    others: Tensor
    doubt: Tensor
    noise: Tensor


class Read(nn.Module):
    """Cross entropy of the answers, distance of mask prompts from the concepts meant, pointing."""

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

    def prepare(self, random: np.random.Generator) -> Reading:
        """Views that can be asked about, with their questions packed."""
        chosen = random.integers(len(self.scenes), size=self.batch)
        maps = load_maps(self.scenes, chosen, random)
        questions = [
            questions_about(record, random, QUESTIONS, TYPES, implicit=self.implicit)
            for record in maps.records
        ]
        packed = pack(questions, self.tokenizer, self.config)
        shape = (self.batch, self.config.image_tokens, self.config.hidden_size)
        noise = VIEW_NOISE * random.standard_normal(shape, dtype=np.float32)
        return Reading(maps, packed, *_doubts(maps, random), torch.from_numpy(noise))

    def loss(self, network: LisaNetwork, batch: Reading) -> tuple[Tensor, dict[str, Tensor]]:
        kinds, colors = view_shares(self.concepts, batch.maps, self.config)
        mistaken = replace(batch.maps, kinds=batch.others)
        others, _ = view_shares(self.concepts, mistaken, self.config)
        seen = torch.lerp(kinds, others, batch.doubt)
        views = self.concepts.view(seen, colors) + batch.noise
        states, layers = run_packed(network, batch.packed, views)
        ce, right = answer_loss(network, states, batch.packed)
        prompts = network.seg_embeddings(states[tuple(batch.packed.segs.T)])
        wanted = concepts_meant(network, self.concepts, batch.maps, batch.packed)
        aim = functional.mse_loss(prompts, wanted)
        pointing, hit = pointing_loss(network, batch.packed, layers, batch.maps, kinds)
        logs = {"ce": ce, "right": right, "aim": aim, "pointing": pointing, "hit": hit}
        return ce + aim + POINTING * pointing, logs


def _doubts(maps: Maps, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Another kind for every object id (B, ids), and in how much doubt each view is (B,1,1,1)."""
    others = 1 + random.integers(len(KIND_INDEX), size=tuple(maps.kinds.shape))
    doubt = DOUBT * np.maximum(0, random.uniform(-1, 1, len(maps.kinds)))  # half of them have none
    there = maps.kinds > 0
    return torch.from_numpy(others) * there, torch.from_numpy(doubt).float().view(-1, 1, 1, 1)


def concepts_meant(
    network: LisaNetwork, concepts: ConceptSpace, maps: Maps, packed: Packed
) -> Tensor:
    """The concept prompts (N,C) of the objects meant: kind, colour and place."""
    rows, identities = packed.segs[:, 0], packed.targets
    centres = object_centres(maps.ids[rows], identities)
    size = network.config.sam_vision["image_size"]
    matrix = network.shared_image_embedding.positional_embedding
    place = encode_places((centres + 0.5) / size * 2 - 1, matrix)
    return concepts.prompt(maps.kinds[rows, identities], maps.colors[rows, identities], place)


def object_centres(ids: Tensor, identities: Tensor) -> Tensor:
    """Mean pixel (N,2) as x, y of object `identities` (N,) in their id pictures (N,H,W)."""
    mask = (ids == identities[:, None, None]).float()
    area = mask.sum((1, 2)).clamp(min=1)
    x = (mask.sum(1) * torch.arange(ids.shape[2], device=ids.device)).sum(1) / area
    y = (mask.sum(2) * torch.arange(ids.shape[1], device=ids.device)).sum(1) / area
    return torch.stack([x, y], dim=1)
