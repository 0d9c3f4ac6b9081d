"""Rewrite a checkpoint in the native format, tensor by tensor, and say what a checkpoint is.

The weights go through memory one shard at a time, so a robot may convert what it could hardly load.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lisa_ros.errors import CheckpointError
from lisa_ros.model.checkpoint import CONFIG_FILE, WEIGHTS_FILE, open_checkpoint
from lisa_ros.model.config import Conversation
from lisa_ros.model.hub import model_name, sha256
from lisa_ros.model.weights import Shard
from lisa_ros.writing import writable_folder, write_file, written_beside

RECORD_FILE = "conversion.json"
"""Where a converted checkpoint keeps the SHA-256 of every file of weights, read and written."""

_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}


def convert(
    path: str | Path,
    target: str | Path,
    *,
    vision_tower: str | Path | None = None,
    conversation: Conversation | None = None,
) -> None:
    """Write the checkpoint at `path` into the new folder `target` in the native format.

    Weights keep the precision they are stored in. `conversation`: the layout that the model was
    trained with, where it is another than the released default. Raises CheckpointError.
    """
    source, target = open_checkpoint(path, vision_tower), Path(target)
    if target.exists() and any(target.iterdir()):
        raise CheckpointError(f"{target} is not empty; name a new folder for the converted model")
    config = (
        source.config if conversation is None else replace(source.config, conversation=conversation)
    )
    writable_folder(target.absolute().parent)  # a folder is renamed over an empty one
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
        "files": ", ".join(f"{_short(s.path)} ({_size(s.path)})" for s in source.shards),
    }


def verify(folder: Path) -> bool:
    """Whether a converted checkpoint's weights are the very bytes that were written."""
    record = folder / RECORD_FILE
    if not record.exists():
        raise CheckpointError(
            f"{folder} has no {RECORD_FILE}; it was not converted, nothing to check"
        )
    written = json.loads(record.read_text())["written"]
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


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"
