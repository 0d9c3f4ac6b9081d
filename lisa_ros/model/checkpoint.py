"""Checkpoints: load whatever a folder holds, save the native format, rewrite one as the other.

The native format is `config.json` (a `LisaConfig`), `model.safetensors` (every tensor of a
`LisaNetwork` under its own name) and the tokenizer's files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import Conversation, LisaConfig, Quantization, find
from lisa_ros.model.hf_checkpoint import read_official
from lisa_ros.model.hub import is_official, model_name, read_settings, sha256
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.quantization import MERGEABLE, choose, multiplies_natively, quantize, upcast
from lisa_ros.model.tokenizer import Tokenizer
from lisa_ros.model.weights import Shard, check, empty_network, fill, save_tensors
from lisa_ros.writing import writable_folder, write_file, written_beside

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "conversion.json"
"""Where a converted checkpoint keeps the SHA-256 of every file of weights, read and written."""

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


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

    def read(
        self, dtype: torch.dtype, device: torch.device, sam_dtype: torch.dtype | None = None
    ) -> Lisa:
        """The model with its weights, ready for inference; arguments as those of `load`."""
        fill(self.network, self.shards, dtype, device, sam_dtype)
        self.network.eval().requires_grad_(False)
        return Lisa(self.network, self.tokenizer, Processor(self.config), self.config)


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    sam_dtype: torch.dtype | None = None,
    vision_tower: str | Path | None = None,
    quantization: Quantization | Literal["auto", "none"] | None = None,
    mergeable: bool = False,
) -> Lisa:
    """Load a checkpoint, native or official, ready for inference.

    `path`: a folder, the name of a model that ships with the package (`nano`), or a hub id.
    `dtype`: half precision on a processor without instructions for it is used for the storage of
    the large weights only, see `quantization.upcast`.
    `sam_dtype`: of SAM's image encoder, if it is to be another one.
    `vision_tower`: folder or hub id of the CLIP tower, for official checkpoints.
    `quantization`: see `quantization.quantize`; `auto`: none on a processor, on a GPU the mildest
    with which the model fits into the memory that is free.
    `mergeable`: for fine-tuning, whose adapters are added to the weights in the end.
    Raises CheckpointError; nothing is half loaded.
    """
    known = ("none", "auto", *get_args(Quantization))
    if quantization not in (None, *known):
        raise CheckpointError(f"unknown quantization {quantization!r}; use {', '.join(known)}")
    quantization = None if quantization == "none" else quantization
    source, device = open_checkpoint(path, vision_tower), torch.device(device)
    advice = "use quantization int8 or fp8, or leave it out"
    if quantization == "auto":
        quantization = choose(source.network, dtype, device)
        advice = (
            f"the free memory of {device} holds no milder one; take a larger GPU or a smaller model"
        )
    if mergeable and quantization not in MERGEABLE:
        raise CheckpointError(
            f"what a model learns in {quantization} cannot be merged with its weights: {advice}"
        )
    lisa = source.read(dtype, device if quantization is None else torch.device("cpu"), sam_dtype)
    if quantization is not None:
        quantize(lisa.network, quantization, device)
    elif not multiplies_natively(dtype, device):
        upcast(lisa.network)
    return lisa


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
    rows = config.llama["vocab_size"]
    if tokenizer.size > rows or (official and tokenizer.size != rows):
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, the model {rows} embedding rows;"
            " they do not belong together"
        )
    if tokenizer.seg_id != config.seg_token_id:
        raise CheckpointError(
            f"{folder}: [SEG] is {tokenizer.seg_id} for the tokenizer,"
            f" {config.seg_token_id} in {CONFIG_FILE}"
        )
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
    folder = Path(folder)
    tensors = lisa.network.state_dict() if tensors is None else tensors
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    with written_beside(folder / WEIGHTS_FILE) as weights:
        save_tensors(tensors, weights)
        lisa.tokenizer.save(folder)
        write_file(folder / CONFIG_FILE, lisa.config.to_json())


def convert(
    path: str | Path,
    target: str | Path,
    *,
    vision_tower: str | Path | None = None,
    conversation: Conversation | None = None,
) -> str:
    """Write the checkpoint at `path` into the new folder `target` in the native format.

    Weights keep the precision they are stored in, and go through memory one shard at a time, so a
    robot may convert what it could hardly load. `conversation`: the layout that the model was
    trained with, where it is another than the released default. Raises CheckpointError.
    Gives the kind of the source; of a native one the target is a copy.
    """
    source, target = open_checkpoint(path, vision_tower), Path(target)
    if target.exists() and any(target.iterdir()):
        raise CheckpointError(f"{target} is not empty; name a new folder for the converted model")
    config = (
        source.config if conversation is None else replace(source.config, conversation=conversation)
    )
    writable_folder(target.parent)  # a folder is renamed over an empty one
    with written_beside(target) as folder:
        folder.mkdir()
        _write_safetensors(folder / WEIGHTS_FILE, source.shards)
        source.tokenizer.save(folder)
        write_file(folder / CONFIG_FILE, config.to_json())
        record = {
            "source": {_short(shard.path): sha256(shard.path) for shard in source.shards},
            "written": {WEIGHTS_FILE: sha256(folder / WEIGHTS_FILE)},
        }
        write_file(folder / RECORD_FILE, json.dumps(record, indent=2) + "\n")
    return source.kind


def describe(path: str | Path, vision_tower: str | Path | None = None) -> dict[str, str]:
    """What a checkpoint is, as pairs of a heading and a few words; weights are not read."""
    source = open_checkpoint(path, vision_tower)
    config, counts = source.config, Counter[str]()
    for _, tensor in _all_tensors(source.shards):
        counts[str(tensor.dtype).removeprefix("torch.")] += tensor.numel()
    llama, clip, sam = config.llama, config.clip, config.sam_vision
    return {
        "folder": str(source.folder),
        "format": source.kind,
        "name": config.name,
        "parameters": f"{sum(counts.values()) / 1e6:,.1f} million",
        "stored as": ", ".join(f"{t} ({n / 1e6:,.1f} million)" for t, n in counts.most_common()),
        "language model": f"{llama['num_hidden_layers']} layers of {llama['hidden_size']},"
        f" {llama['vocab_size']} ids, {llama['max_position_embeddings']} positions",
        "sees": f"{clip['image_size']} x {clip['image_size']} pixels"
        f" in {config.image_tokens} positions",
        "segments": f"{sam['image_size']} pixels on the longer side,"
        f" {sam['num_hidden_layers']} layers of {sam['hidden_size']}",
        "[SEG]": f"id {config.seg_token_id}",
        "conversation": config.conversation,
        "files": ", ".join(
            f"{_short(s.path)} ({s.path.stat().st_size / 1e6:,.1f} MB)" for s in source.shards
        ),
    }


def verify(folder: Path) -> bool | None:
    """Whether a converted checkpoint's weights are the very bytes that were written.

    None: it was not converted, there is nothing to compare.
    """
    record = folder / RECORD_FILE
    if not record.exists():
        return None
    written = read_settings(record).get("written")
    if not isinstance(written, dict):
        raise CheckpointError(f"{record} is no record of a conversion")
    return all(sha256(folder / name) == digest for name, digest in written.items())


def _write_safetensors(path: Path, shards: list[Shard]) -> None:
    """Write all tensors of all shards into one file, holding one shard at a time.

    The safetensors package would have to be given everything at once.
    """
    header, offset = {}, 0
    for name, tensor in _all_tensors(shards):
        if tensor.dtype not in _DTYPES:
            raise CheckpointError(f"{name} is stored as {tensor.dtype}, which no LISA is")
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, offset + tensor.nbytes],
        }
        offset += tensor.nbytes
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in _all_tensors(shards):
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)


def _all_tensors(shards: list[Shard]) -> Iterator[tuple[str, Tensor]]:
    for shard in shards:
        yield from shard.tensors().items()


def _short(path: Path) -> str:
    return f"{model_name(path.parent)}/{path.name}"
