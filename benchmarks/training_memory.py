"""How much memory a GPU needs to train a LISA: bytes counted on a network without weights.

    python -m benchmarks.training_memory [--write docs/training.md]

The network has the real shapes and lies on torch's meta device: no byte of it exists, but every
tensor that autograd would keep for the backward pass is asked for its size. Weights, gradients and
moments are counted from the parameters as the recipe sets them up.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.generated_tables import put_into_page
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.weights import empty_network, precision
from lisa_ros.text_tables import markdown_table
from lisa_ros.training.recipe import add_trained_parts
from lisa_ros.training.recipe_file import Recipe

GB = 1e9
IDS = 90  # of a dialogue about a thing, the system's words included; three dialogues a picture
CLIP = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
        "num_attention_heads": 16, "image_size": 224, "patch_size": 14}  # fmt: skip
SAM = {"image_size": 1024, "patch_size": 16, "hidden_size": 1280, "num_hidden_layers": 32,
       "num_attention_heads": 16, "mlp_dim": 5120, "output_channels": 256, "window_size": 14,
       "global_attn_indexes": [7, 15, 23, 31]}  # fmt: skip
ROOM = 0.92  # of a GPU's memory: CUDA itself and fragments take the rest
SAM_AT_WORK = 1.5e9  # one picture at 1024 through SAM's encoder without gradients, in bfloat16
DECODER = {"hidden_size": 256, "mlp_dim": 2048, "num_hidden_layers": 2, "num_attention_heads": 8}
LLAMA = {
    "LISA-7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32004},
    "LISA-13B": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40,
                 "num_attention_heads": 40, "num_key_value_heads": 40, "vocab_size": 32003},
}  # fmt: skip


def meta_network(name: str, layers: int | None = None) -> LisaNetwork:
    """The network in bfloat16 with what is trained in float32, as `recipe.run` has it."""
    llama = LLAMA[name] | ({"num_hidden_layers": layers} if layers else {})
    config = LisaConfig(name, llama, CLIP, SAM, DECODER, "linear", "llava_v1", True, 32000)
    network = empty_network(config)
    for key, parameter in network.named_parameters():
        parameter.data = parameter.data.to(precision(key, torch.bfloat16))
    network.requires_grad_(False)
    with torch.device("meta"):
        add_trained_parts(network, Recipe())
    return network


def sizes(network: LisaNetwork) -> dict[str, float]:
    """Bytes of weights (those of sharded layers apart), gradients and Adam's moments."""
    layers = {
        id(p)
        for tower in (network.language_model, network.vision_tower.encoder, network.image_encoder)
        for layer in tower.layers
        for p in layer.parameters()
    }
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    weights = {id(p): p.numel() * p.element_size() for p in network.parameters()}
    largest = max(
        sum(p.numel() * p.element_size() for p in layer.parameters())
        for layer in network.language_model.layers
    )
    return {
        "weights": sum(weights.values()),
        "root": sum(size for key, size in weights.items() if key not in layers),
        "layer": largest,
        "gradients": 4 * trained,
        "moments": 8 * trained,
        "trained": trained,
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def kept_of_a_layer(name: str, pictures: int) -> float:
    """What autograd keeps of one layer of the language model, each storage once, on meta."""
    network, kept = meta_network(name, layers=1), {}
    known = {p.untyped_storage()._cdata for p in network.parameters()}
    batch, length = 3 * pictures, IDS + network.config.image_tokens - 1

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.device.type == "meta" and storage._cdata not in known:
            kept[storage._cdata] = tensor
        return tensor

    shape = (batch, length, network.config.hidden_size)
    embeds = torch.empty(shape, device="meta", requires_grad=True)
    turns = torch.empty(1, length, LLAMA[name]["hidden_size"] // LLAMA[name]["num_attention_heads"],
                        device="meta", dtype=torch.bfloat16)  # fmt: skip
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda one: one),
        torch.autocast("cpu", torch.bfloat16),
    ):
        network.language_model.layers[0](embeds, position_embeddings=(turns, turns))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def plan(name: str, ranks: int, pictures: int) -> dict[str, float]:
    """Bytes on one of `ranks` GPUs; sharded where there are several."""
    network = meta_network(name)
    counted, llama = sizes(network), LLAMA[name]
    # checkpointed: what goes into each layer (float32), and all of the layer that is gone through
    length = IDS + network.config.image_tokens - 1
    inputs = llama["num_hidden_layers"] * 3 * pictures * length * llama["hidden_size"] * 4
    state = (counted["weights"] + counted["gradients"] + counted["moments"]) / ranks
    # gathered: the root's weights and gradients, the layer at work and the next one
    gathered = 0 if ranks == 1 else counted["root"] + counted["gradients"] + 2 * counted["layer"]
    activations = inputs + kept_of_a_layer(name, pictures) + SAM_AT_WORK
    return {"state": state, "gathered": gathered, "activations": activations,
            "together": state + gathered + activations}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="a page with a place for `training memory`")
    page = parser.parse_args().write
    for name in LLAMA:
        counted = sizes(meta_network(name))
        print(f"{name}: {counted['parameters'] / 1e6:,.0f} million parameters,"
              f" {counted['trained'] / 1e6:,.1f} trained; weights {counted['weights'] / GB:.1f} GB,"
              f" gradients {counted['gradients'] / GB:.1f}, moments {counted['moments'] / GB:.1f}"
              f" GB")  # fmt: skip
    rows = []
    for name in LLAMA:
        for ranks, pictures in ((1, 1), (1, 2), (4, 1), (8, 1), (8, 2)):
            found = plan(name, ranks, pictures)
            fits = [f"{size} GB" for size in (24, 48, 80) if found["together"] / GB < ROOM * size]
            cells = [f"{value / GB:.1f}" for value in found.values()]
            rows.append([name, str(ranks), str(pictures), *cells, *(fits[:1] or ["–"])])
    head = ["model", "GPUs", "pictures", "state", "gathered", "activations", "together", "fits"]
    table = markdown_table(head, rows)
    print(f"\n{table}")
    if page:
        put_into_page(page, "training memory", table)


if __name__ == "__main__":
    main()
