"""Writes checkpoints in the released layouts, made from the golden set's weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

PARITY = Path(__file__).parent / "data" / "parity"
GOLDEN = PARITY / "checkpoint"
TOWER = GOLDEN / "clip-vit-tiny"


def golden_tensors() -> dict[str, Tensor]:
    return load_file(GOLDEN / "model.safetensors")


def write_official(
    folder: Path,
    tensors: dict[str, Tensor] | None = None,
    *,
    shards: int = 2,
    settings: dict | None = None,
    added: dict[str, int] | None = None,
) -> Path:
    """A folder as released: pickle shards and their index, tokenizer, config; no CLIP tower."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = golden_tensors() if tensors is None else tensors
    weight_map, names = {}, list(tensors)
    for number in range(shards):
        file = f"pytorch_model-{number + 1:05d}-of-{shards:05d}.bin"
        part = {name: tensors[name] for name in names[number::shards]}
        torch.save(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    config = json.loads((GOLDEN / "config.json").read_text())
    config["vision_tower"] = config["mm_vision_tower"] = "openai/clip-vit-large-patch14"
    (folder / "config.json").write_text(json.dumps(config | (settings or {})))
    shutil.copy(GOLDEN / "tokenizer.model", folder)
    added = added or json.loads((GOLDEN / "added_tokens.json").read_text())
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


def write_tower(folder: Path, image_size: int, *, whole_clip: bool = False) -> Path:
    """A CLIP tower of another image size; `whole_clip`: with its text half, as on the hub."""
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((TOWER / "config.json").read_text()) | {"image_size": image_size}
    tensors = load_file(TOWER / "model.safetensors")
    prefix = "vision_model." if any(n.startswith("vision_model.") for n in tensors) else ""
    position = f"{prefix}embeddings.position_embedding.weight"
    count = (image_size // config["patch_size"]) ** 2 + 1
    rows = torch.arange(count) % len(tensors[position])
    tensors[position] = tensors[position][rows].clone()
    if whole_clip:
        config = {"model_type": "clip", "vision_config": config, "projection_dim": 32}
        tensors = {f"vision_model.{n.removeprefix(prefix)}": t for n, t in tensors.items()}
        tensors |= {
            "text_model.final_layer_norm.weight": torch.ones(8),
            "text_projection.weight": torch.ones(8, 8),
            "visual_projection.weight": torch.ones(32, 48),
            "logit_scale": torch.ones(()),
            "vision_model.embeddings.position_ids": torch.arange(count)[None],
        }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder
