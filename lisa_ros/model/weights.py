"""Tensors of files into networks: open shards without reading them, check names, fill.

Pickles are opened with `weights_only=True`, so nothing in them is run, and everything is memory
mapped: a tensor is read when it is copied, one after the other.
"""

from __future__ import annotations

import logging
import pickle
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.network import LisaNetwork

log = logging.getLogger(__name__)

FLOAT32_PARTS = ("image_encoder.neck.", "shared_image_embedding.")
"""SAM's neck overflows in float16; positions as fine as a pixel need a float32 matrix."""

_WORTH_A_BAR = 1 << 30


@dataclass(frozen=True)
class Shard:
    """One file of tensors and how its names become those of a `LisaNetwork`."""

    path: Path
    rename: Callable[[str], str | None] = str
    """None: the tensor is known and not needed"""

    def tensors(self) -> dict[str, Tensor]:
        """The file's tensors under the network's names, memory mapped."""
        renamed = {}
        for name, tensor in open_tensors(self.path).items():
            new = self.rename(name)
            if new is not None:
                renamed[new] = tensor
        return renamed


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; OSError also for what safetensors makes of a full disk."""
    try:
        save_file(dict(tensors), path, {"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error


def open_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or pickle file, memory mapped where its format allows."""
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        # torch's format before 1.6 is no zip file and cannot be mapped
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}") from error
    except Exception as error:  # whatever the bytes led the readers into
        wanted = re.search(r"(?:GLOBAL|global|class) `?([\w.]+\.[\w.]+)", str(error))
        if wanted and isinstance(error, pickle.UnpicklingError):
            raise CheckpointError(
                f"{path} asks to run {wanted[1]} while being read, which weights never need;"
                " it was refused and nothing was run"
            ) from error
        raise CheckpointError(f"{path} is damaged or cut short") from error
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{path} is no table of tensors")
    return content


def empty_network(config: LisaConfig) -> LisaNetwork:
    """A network whose weights take no memory yet; `fill` gives it some."""
    with torch.device("meta"):
        network = LisaNetwork(config)
    # tables that are computed, not stored
    network.language_model.rotary_emb = LlamaRotaryEmbedding(network.language_model.config)
    embeddings = network.vision_tower.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    return network


def check(network: LisaNetwork, shards: Sequence[Shard], source: Path) -> None:
    """Raise CheckpointError unless the shards hold exactly the network's tensors, all fitting."""
    expected = {name: tensor.shape for name, tensor in network.state_dict().items()}
    origin: dict[str, Path] = {}
    for shard in shards:
        tensors = shard.tensors()
        unknown = sorted(tensors.keys() - expected.keys())
        if unknown:
            raise CheckpointError(f"{shard.path} holds tensors that no LISA has: {_some(unknown)}")
        for name, tensor in tensors.items():
            if name in origin:
                raise CheckpointError(f"{shard.path} repeats {name} of {origin[name].name}")
            if tensor.shape != expected[name]:
                raise CheckpointError(
                    f"{shard.path}: {name} is {tuple(tensor.shape)},"
                    f" but the model's sizes ask for {tuple(expected[name])}"
                )
            origin[name] = shard.path
    missing = sorted(expected.keys() - origin.keys())
    if missing:
        raise CheckpointError(f"{source} lacks tensors that every LISA has: {_some(missing)}")


def fill(
    network: LisaNetwork,
    shards: Sequence[Shard],
    dtype: torch.dtype,
    device: torch.device,
    sam_dtype: torch.dtype | None = None,
) -> None:
    """Give an empty network its tensors, shard by shard; `check` has been made."""
    total = sum(shard.path.stat().st_size for shard in shards)
    with _progress(total) as advance:
        for number, shard in enumerate(shards, 1):
            log.info("reading %s (%d of %d)", shard.path, number, len(shards))
            part = {}
            for name, tensor in shard.tensors().items():
                part[name] = tensor.to(device, precision(name, dtype, sam_dtype))
                advance(tensor.nbytes)
            network.load_state_dict(part, strict=False, assign=True)
    network.language_model.rotary_emb.to(device)
    network.vision_tower.embeddings.to(device)


def precision(name: str, dtype: torch.dtype, sam_dtype: torch.dtype | None = None) -> torch.dtype:
    """What a tensor is kept in when the model computes in `dtype`, SAM's encoder in `sam_dtype`."""
    if name.startswith(FLOAT32_PARTS):
        return torch.float32
    return sam_dtype or dtype if name.startswith("image_encoder.") else dtype


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """A bar on the terminal for what takes long enough to look at."""
    if total < _WORTH_A_BAR:
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import DownloadColumn, Progress, TimeRemainingColumn

    columns = (*Progress.get_default_columns()[:2], DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("loading", total=total)
        yield lambda count: bar.advance(task, count)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
