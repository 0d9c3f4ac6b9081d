"""Checkpoints: load whatever a folder holds, save the native format, say what a folder is.

The native format is `config.json` (a `LisaConfig`), `model.safetensors` (every tensor of a
`LisaNetwork` under its own name) and the tokenizer's files.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import LisaConfig
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import Processor
from lisa_ros.model.tokenizer import Tokenizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SHIPPED = Path(__file__).parent.parent / "weights"


@dataclass
class Lisa:
    """Everything a checkpoint holds, ready to be asked."""

    network: LisaNetwork
    tokenizer: Tokenizer
    processor: Processor
    config: LisaConfig


def load(
    path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    vision_tower: str | Path | None = None,
    quantization: str | None = None,
) -> Lisa:
    """Load a checkpoint: a folder, or the name of a model that ships with the package (`nano`)."""
    folder = find(path)
    config = LisaConfig.from_json(folder / CONFIG_FILE)
    tokenizer = Tokenizer.from_folder(folder)
    _check_vocabulary(config, tokenizer, folder)
    network = empty_network(config)
    assign(network, _read(folder / WEIGHTS_FILE), folder / WEIGHTS_FILE)
    set_precision(network, dtype)
    network.to(device).eval().requires_grad_(False)
    return Lisa(network, tokenizer, Processor(config), config)


def save(lisa: Lisa, folder: str | Path) -> None:
    """Write the native format into `folder`, which is made if need be."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(lisa.config.to_json(), encoding="utf-8")
    lisa.tokenizer.save(folder)
    tensors = {name: t.detach().cpu().contiguous() for name, t in lisa.network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE)


def find(path: str | Path) -> Path:
    """The folder of a model that is named by a path or shipped under that name."""
    for folder in (Path(path), SHIPPED / str(path)):
        if folder.is_dir():
            return folder
    shipped = sorted(f.name for f in SHIPPED.glob("*") if f.is_dir())
    raise CheckpointError(
        f"there is no model folder {path}, and no shipped model of that name"
        f" ({', '.join(shipped) or 'none is installed'})"
    )


def empty_network(config: LisaConfig) -> LisaNetwork:
    """A network whose weights take no memory yet; `assign` gives it some."""
    with torch.device("meta"):
        network = LisaNetwork(config)
    # tables that are computed, not stored
    network.language_model.rotary_emb = LlamaRotaryEmbedding(network.language_model.config)
    embeddings = network.vision_tower.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions)[None]
    return network


def assign(network: nn.Module, tensors: dict[str, Tensor], source: Path) -> None:
    """Give a network its tensors; raise CheckpointError if one lacks, is too many or misfits."""
    expected = network.state_dict()
    missing, unexpected = expected.keys() - tensors.keys(), tensors.keys() - expected.keys()
    for what, names in (("lacks", missing), ("holds unknown", unexpected)):
        if names:
            some = ", ".join(sorted(names)[:3]) + (", ..." if len(names) > 3 else "")
            raise CheckpointError(f"{source} {what} {len(names)} tensors: {some}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{source}: {name} is {tuple(tensor.shape)},"
                f" the sizes of the model ask for {tuple(expected[name].shape)}"
            )
    network.load_state_dict(tensors, strict=True, assign=True)


def set_precision(network: LisaNetwork, dtype: torch.dtype) -> None:
    """Compute in `dtype`, but for what does not bear it."""
    network.to(dtype)
    # SAM's neck overflows in float16; positions as fine as a pixel need a float32 matrix
    network.image_encoder.neck.float()
    network.shared_image_embedding.float()
    network.language_model.rotary_emb.float()


def _read(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent} has no {path.name}") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} is damaged or cut short: {error}") from error


def _check_vocabulary(config: LisaConfig, tokenizer: Tokenizer, folder: Path) -> None:
    rows = config.llama["vocab_size"]
    if tokenizer.size > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.size} ids,"
            f" the model only {rows} embedding rows"
        )
    if tokenizer.seg_id != config.seg_token_id:
        raise CheckpointError(
            f"{folder}: [SEG] is {tokenizer.seg_id} for the tokenizer,"
            f" {config.seg_token_id} in {CONFIG_FILE}"
        )
