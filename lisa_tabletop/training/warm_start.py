"""The parts that nano's stages teach, and how a stage begins with what was learnt before."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lisa_ros.errors import LisaError
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.network import LisaNetwork

PARTS = {
    "pretrain_sam": (
        "image_encoder.",
        "mask_decoder.",
        "no_mask_embed.",
        "shared_image_embedding.",
    ),
    "pretrain_vision_tower": ("vision_tower.", "mm_projector."),
    "pretrain_language": ("language_model.", "lm_head.", "text_hidden_fcs."),
}
POSITIONS = "shared_image_embedding.positional_embedding"


def begin_with(network: LisaNetwork, earlier: Lisa, prefixes: tuple[str, ...]) -> str:
    """Take over the tensors whose names begin with `prefixes`, where names and shapes fit.

    Returns a sentence that says how many were taken and names what was not.
    """
    own = _chosen(network.state_dict(), prefixes)
    offered = _chosen(earlier.network.state_dict(), prefixes)
    fitting = {n: t for n, t in offered.items() if n in own and own[n].shape == t.shape}
    network.load_state_dict(fitting, strict=False)
    fresh, unused = own.keys() - fitting.keys(), offered.keys() - fitting.keys() - own.keys()
    sentence = f"{len(fitting)} of {len(own)} tensors begin with those of {earlier.config.name}"
    if fresh:
        sentence += f"; these begin fresh: {', '.join(sorted(fresh))}"
    if unused:
        sentence += f"; these have no place here: {', '.join(sorted(unused))}"
    return sentence


def take_over(network: LisaNetwork, folder: Path) -> None:
    """Begin with what each stage of the run in `folder` has taught its part.

    Raises LisaError where a stage is missing or SAM and the language model do not fit together.
    """
    stages = {name: _stage(folder, name) for name in PARTS}
    sam, language = stages["pretrain_sam"], stages["pretrain_language"]
    if not torch.equal(sam[POSITIONS], language[POSITIONS]):
        raise LisaError(
            f"{folder}: pretrain_sam and pretrain_language began with other positions, so that one"
            " aims where the other does not look; train both with the same --seed"
        )
    for name, prefixes in PARTS.items():
        network.load_state_dict(_chosen(stages[name], prefixes), strict=False)


def _stage(folder: Path, name: str) -> dict[str, Tensor]:
    path = folder / f"{name}.pt"
    if not path.exists():
        raise LisaError(f"{folder} has no {path.name}: run `train-nano --stages {name}` first")
    return torch.load(path, weights_only=True, map_location="cpu")["network"]


def _chosen(tensors: dict[str, Tensor], prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefixes)}
