"""What the language model's attention is taught: to lie on the object that a state is about.

Which of the things on a table is the leftmost one shows in the right answer only to a model that
already looks at the right places, so that the answers alone teach it very slowly. In training some
heads are therefore told where to look: at the name of a kind, on all objects of that kind; on the
way to a [SEG], on the object meant; and where there is no such thing, on the very first id. The
network stays a plain Llama: a head may look wherever it likes, the loss is all there is.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from transformers.models.llama.modeling_llama import rotate_half

from lisa_ros.model.network import LisaNetwork
from lisa_tabletop.training.augment import IDS, Views
from lisa_tabletop.training.concepts import coverage
from lisa_tabletop.training.pretrain_towers import view_ids
from lisa_tabletop.training.sequence_packing import Packed

NAMING_LAYERS, CHOOSING_LAYERS = (1, 2), (4, 5, 6, 7)
HEADS = 2  # of each of these layers, the first ones
LEAST = 0.02  # patches that an object must cover to be looked at


def attention_loss(
    network: LisaNetwork,
    packed: Packed,
    layers: tuple[Tensor, ...],
    views: Views,
    kind_shares: Tensor,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the heads' attention, and how often a choosing head looks right first.

    `layers`: the states that enter each layer (`run_packed`); `kind_shares` (B,K,s,s) as
    `view_shares` gives them.
    """
    side = kind_shares.shape[-1]
    everything = torch.arange(IDS, device=views.ids.device).expand(len(views.ids), -1)
    objects = coverage(view_ids(views.ids, side), everything, IDS, side).flatten(2)  # (B,IDS,P)
    objects[:, 0] = 0  # to choose nothing is to look at the first id
    named = looked_at(kind_shares[packed.nouns[:, 0], packed.kinds].flatten(1))
    meant = looked_at(objects[packed.choices[:, 0], packed.chosen])
    naming = attention_logits(network, packed, layers, NAMING_LAYERS, packed.nouns)
    choosing = attention_logits(network, packed, layers, CHOOSING_LAYERS, packed.choices)
    loss = _cross_entropy(naming, named) + _cross_entropy(choosing, meant)
    hits = meant.gather(1, choosing.argmax(-1).T) > 0
    return loss, hits.float().mean()


def looked_at(shares: Tensor) -> Tensor:
    """Where to look, (R,1+P), from the shares (R,P) of patches: the first id where there is none.

    Every row sums to 1.
    """
    there = shares.sum(1, keepdim=True) >= LEAST
    weights = torch.cat([(~there).float(), shares * there], dim=1)
    return weights / weights.sum(1, keepdim=True)


def attention_logits(
    network: LisaNetwork,
    packed: Packed,
    layers: tuple[Tensor, ...],
    chosen: tuple[int, ...],
    places: Tensor,
) -> Tensor:
    """How much some heads at `places` (R,2) attend to the first id and the view: (N,R,1+P)."""
    llama, count = network.language_model, network.config.image_tokens
    cosines, sines = llama.rotary_emb(layers[0], packed.positions)  # (B,L,d)
    view = slice(packed.view, packed.view + count)

    def first_and_view(columns: Tensor) -> Tensor:
        return torch.cat([columns[:, :1], columns[:, view]], dim=1)

    logits = []
    for number in chosen:
        attention = llama.layers[number].self_attn
        states = llama.layers[number].input_layernorm(layers[number])
        width = HEADS * attention.head_dim
        query = functional.linear(states, attention.q_proj.weight[:width])
        key = functional.linear(first_and_view(states), attention.k_proj.weight[:width])
        query = _rotated(query.unflatten(-1, (HEADS, -1)), cosines, sines)
        turns = (first_and_view(cosines), first_and_view(sines))
        key = _rotated(key.unflatten(-1, (HEADS, -1)), *turns)
        alike = torch.einsum("blhd,bkhd->blhk", query, key) * attention.scaling  # all places
        logits.append(alike[tuple(places.T)].transpose(0, 1))  # (heads,R,1+P)
    return torch.cat(logits)


def _rotated(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn vectors (...,heads,d) by the angles (...,d) of their positions."""
    return vectors * cosines[..., None, :] + rotate_half(vectors) * sines[..., None, :]


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean over heads and rows; nothing where there is no row."""
    if not len(wanted):
        return logits.sum()
    return -(wanted * logits.float().log_softmax(-1)).sum(-1).mean()
