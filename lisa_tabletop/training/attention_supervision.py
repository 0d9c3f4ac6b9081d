"""What the language model's attention is taught: to lie on the thing that a state is about.

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

from lisa_ros.model.config import LisaConfig
from lisa_ros.model.network import IMAGE_TOKEN, LisaNetwork
from lisa_tabletop.training.image_batches import Maps, central_square
from lisa_tabletop.training.sequence_packing import Packed

NAMING_LAYERS, CHOOSING_LAYERS = (1,), (3, 4, 5)
HEADS = 2  # of each of these layers, the first ones
LEAST = 0.02  # patches that an object must cover to be looked at


def pointing_loss(
    network: LisaNetwork,
    packed: Packed,
    layers: tuple[Tensor, ...],
    maps: Maps,
    kind_shares: Tensor,
) -> tuple[Tensor, Tensor]:
    """Cross entropy of the heads' attention, and how often a choosing head looks right first.

    `layers`: the states that enter each layer (`run_packed`); `kind_shares` (B,K,s,s) as
    `view_shares` gives them.
    """
    rows = packed.nouns[:, 0]
    named = looked_at(kind_shares[rows, packed.kinds].flatten(1))
    meant = looked_at(_object_shares(maps, packed, network.config))
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
    llama = network.language_model
    cosines, sines = llama.rotary_emb(layers[0], packed.positions)
    keys = _first_and_view(packed)
    rows, columns = places.T
    logits = []
    for number in chosen:
        attention = llama.layers[number].self_attn
        states = llama.layers[number].input_layernorm(layers[number])
        width = HEADS * attention.head_dim
        query = functional.linear(states[rows, columns], attention.q_proj.weight[:width])
        key = functional.linear(states[:, keys], attention.k_proj.weight[:width])
        query = query.unflatten(-1, (HEADS, -1))
        key = key.unflatten(-1, (HEADS, -1))
        query = _rotated(query, cosines[rows, columns], sines[rows, columns])
        key = _rotated(key, cosines[:, keys], sines[:, keys])
        logits.append(torch.einsum("rhd,rkhd->hrk", query, key[rows]) * attention.scaling)
    return torch.cat(logits)


def _first_and_view(packed: Packed) -> list[int]:
    """Columns of the first id and of the view, which are the same in all sequences."""
    return [0, *(packed.ids[0] == IMAGE_TOKEN).nonzero().flatten().tolist()]


def _rotated(vectors: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn vectors (...,heads,d) by the angles (...,d) of their positions."""
    return vectors * cosines[..., None, :] + rotate_half(vectors) * sines[..., None, :]


def _object_shares(maps: Maps, packed: Packed, config: LisaConfig) -> Tensor:
    """How much of each patch of the view the object that a choice is about covers: (K,P)."""
    ids = central_square(maps.ids)[packed.choices[:, 0]]
    patch = ids.shape[1] // (config.clip["image_size"] // config.clip["patch_size"])
    covered = (ids == packed.chosen[:, None, None]) & (packed.chosen > 0)[:, None, None]
    return functional.avg_pool2d(covered.float()[:, None], patch).flatten(1)


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean over heads and rows; nothing where there is no row."""
    if not len(wanted):
        return logits.sum()
    return -(wanted * logits.float().log_softmax(-1)).sum(-1).mean()
