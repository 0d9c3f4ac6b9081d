"""A LISA that has not been trained yet: LLaVA's language model, SAM, CLIP, and a [SEG] to learn.

As LISA's authors begin (arXiv 2308.00692): [SEG] and the marks around the image are added to the
vocabulary, their rows and the projection of [SEG] are drawn at random.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from lisa_ros.errors import CheckpointError
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.config import SEG
from lisa_ros.model.hf_checkpoint import config_of, find_tower, rename, rename_sam, rename_tower
from lisa_ros.model.hub import read_settings, shard_files
from lisa_ros.model.processor import Processor
from lisa_ros.model.tokenizer import Tokenizer
from lisa_ros.model.weights import Shard, empty_network, precision

ROW_STD = 0.02  # of rows added to the tables of words, transformers' own for Llama


def from_llava(
    llava: Path,
    sam: Path,
    vision_tower: Path | None = None,
    *,
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> Lisa:
    """Put a LISA together from LLaVA's folder and SAM's file (`sam_vit_h_4b8939.pth`).

    Raises:
        CheckpointError: something is missing or does not fit.
    """
    torch.manual_seed(seed)
    # 1. words, in the order in which the authors add them
    tokenizer = Tokenizer.from_folder(llava, (SEG, "<im_start>", "<im_end>"))
    # 2. all tensors there are, and those that nobody has trained
    if not sam.is_file():
        raise CheckpointError(f"there is no file {sam} with SAM's weights")
    settings = read_settings(llava / "config.json")
    tower = find_tower(llava, settings, vision_tower)
    shards = [Shard(path, rename) for path in shard_files(llava)]
    shards += [Shard(sam, rename_sam), *(Shard(path, rename_tower) for path in shard_files(tower))]
    tensors: dict[str, Tensor] = {}
    for shard in shards:
        tensors |= shard.tensors()
    _add_parts(tensors, tokenizer, llava)
    # 3. a network of their sizes that holds them
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    config = config_of(llava, settings, shapes, tower, tokenizer.seg_id)
    network = empty_network(config)
    expected = network.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise CheckpointError(f"{llava} with its SAM and CLIP lacks {name}")
        if tensors[name].shape != tensor.shape:
            raise CheckpointError(
                f"{llava}: {name} is {tuple(tensors[name].shape)}, not {tuple(tensor.shape)}"
            )
    network.load_state_dict(
        {name: tensors[name].to(precision(name, dtype)) for name in expected}, assign=True
    )
    network.eval().requires_grad_(False)
    return Lisa(network, tokenizer, Processor(config), config)


def _add_parts(tensors: dict[str, Tensor], tokenizer: Tokenizer, folder: Path) -> None:
    """Rows for the new words, and the projection of [SEG]."""
    for name in ("language_model.embed_tokens.weight", "lm_head.weight"):
        if name not in tensors:
            raise CheckpointError(f"{folder} lacks {name.removeprefix('language_model.')}")
        table = tensors[name]
        rows = torch.randn(max(0, tokenizer.size - len(table)), table.shape[1]) * ROW_STD
        tensors[name] = torch.cat([table, rows.to(table.dtype)])
    hidden, prompt = table.shape[1], tensors["mask_decoder.mask_tokens.weight"].shape[1]
    fresh = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, prompt))
    tensors |= {f"text_hidden_fcs.{name}": t.detach() for name, t in fresh.state_dict().items()}
