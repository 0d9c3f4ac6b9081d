"""Checkpoints: load whatever a folder holds, and save the native format.

The native format is `config.json` (a `LisaConfig`), `model.safetensors` (every tensor of a
`LisaNetwork` under its own name) and the tokenizer's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import LisaConfig, Quantization, find
from lisa_ros.model.hf_checkpoint import read_official
from lisa_ros.model.hub import is_official, read_settings
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.quantization import choose, multiplies_natively, quantize, upcast
from lisa_ros.model.tokenizer import Tokenizer
from lisa_ros.model.weights import Shard, check, empty_network, fill, save_tensors
from lisa_ros.writing import writable_folder, write_file, written_beside

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


@dataclass
class Lisa:
    """Everything a checkpoint holds, ready to be asked."""

    network: LisaNetwork
    tokenizer: Tokenizer
    processor: Processor
    config: LisaConfig


@dataclass(frozen=True)
class CheckedFolder:
    """A checkpoint that was looked through and found whole, before its weights are read."""

    folder: Path
    kind: str
    config: LisaConfig
    tokenizer: Tokenizer
    shards: list[Shard]
    network: LisaNetwork
    """without memory for its weights"""


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    sam_dtype: torch.dtype | None = None,
    vision_tower: str | Path | None = None,
    quantization: Quantization | Literal["auto"] | None = None,
) -> Lisa:
    """Load a checkpoint, native or official, ready for inference.

    `path`: a folder, the name of a model that ships with the package (`nano`), or a hub id.
    `dtype`: half precision on a processor without instructions for it is used for the storage of
    the large weights only, see `quantization.upcast`.
    `sam_dtype`: of SAM's image encoder, if it is to be another one.
    `vision_tower`: folder or hub id of the CLIP tower, for official checkpoints.
    `quantization`: see `quantization.quantize`; `auto`: none on a processor, on a GPU the mildest
    with which the model fits into the memory that is free.
    Raises CheckpointError; nothing is half loaded.
    """
    source = open_checkpoint(path, vision_tower)
    network, device = source.network, torch.device(device)
    if quantization == "auto":
        quantization = choose(network, dtype, device)
    place = device if quantization is None else torch.device("cpu")
    fill(network, source.shards, dtype, place, sam_dtype)
    network.eval().requires_grad_(False)
    if quantization is not None:
        quantize(network, quantization, device)
    elif not multiplies_natively(dtype, device):
        upcast(network)
    return Lisa(network, source.tokenizer, Processor(source.config), source.config)


def open_checkpoint(path: str | Path, vision_tower: str | Path | None = None) -> CheckedFolder:
    """Look through a checkpoint without reading its weights; raise CheckpointError if it is bad."""
    folder = find(path)
    official = is_official(read_settings(folder / CONFIG_FILE))
    if official:
        tokenizer = Tokenizer.from_folder(folder)
        config, shards = read_official(folder, vision_tower, tokenizer.seg_id)
    else:
        config, shards = LisaConfig.from_json(folder / CONFIG_FILE), [Shard(folder / WEIGHTS_FILE)]
        tokenizer = Tokenizer.from_folder(folder)
    _check_vocabulary(config, tokenizer, folder, exact=official)
    network = empty_network(config)
    check(network, shards, folder)
    kind = "native" if not official else "official LISA++" if config.mask_instances else "official"
    return CheckedFolder(folder, kind, config, tokenizer, shards, network)


def save(lisa: Lisa, folder: str | Path, tensors: dict[str, Tensor] | None = None) -> None:
    """Write the native format into `folder`, which is made if need be.

    `tensors`: other values than the network's own, under its names. Each file is there whole or not
    at all, the weights last: a folder without them is no model.

    Raises:
        WriteError: something cannot be written; older files stay as they were.
    """
    folder = writable_folder(Path(folder))
    tensors = lisa.network.state_dict() if tensors is None else tensors
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with written_beside(folder / WEIGHTS_FILE) as weights:
        save_tensors(tensors, weights)
        lisa.tokenizer.save(folder)
        write_file(folder / CONFIG_FILE, lisa.config.to_json())


def _check_vocabulary(
    config: LisaConfig, tokenizer: Tokenizer, folder: Path, *, exact: bool
) -> None:
    rows = config.llama["vocab_size"]
    if tokenizer.size > rows or (exact and tokenizer.size != rows):
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, the model {rows} embedding rows;"
            " they do not belong together"
        )
    if tokenizer.seg_id != config.seg_token_id:
        raise CheckpointError(
            f"{folder}: [SEG] is {tokenizer.seg_id} for the tokenizer,"
            f" {config.seg_token_id} in {CONFIG_FILE}"
        )
