"""Weight-only quantisation of the language model's layers, for small GPU memories.

Only the linear maps inside the Llama layers are quantised. `lm_head`, `text_hidden_fcs`, the
projector, CLIP and SAM stay as they are: they are small, and masks suffer first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import nn

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import Quantization
from lisa_ros.model.network import LisaNetwork

_GROUPS = (32, 16)
"""Weights that share one scale in 4-bit formats; the smaller group where rows do not divide."""

_BYTES = {"int8": 1.01, "int4": 0.63}
"""What a quantised weight takes, scales and zero points included."""

_WORKING = 2 * 2**30
"""Bytes to leave free for what is computed."""


def quantize(network: LisaNetwork, quantization: Quantization, device: torch.device) -> None:
    """Quantise a network in place and bring it to a device, layer by layer.

    So the device never holds more than the quantised network and one layer as it was.
    `int8`, `fp8` (float8 e4m3): one scale a row. `int4`: one scale for 32 weights (or 16, see
    `_GROUPS`); packed two to a byte on CUDA in bfloat16, elsewhere one to a byte. All of them
    through torchao. `nf4`: 4-bit NormalFloat with double quantisation through bitsandbytes
    (Dettmers et al., arXiv 2305.14314).
    """
    if quantization not in get_args(Quantization):
        raise CheckpointError(
            f"unknown quantization {quantization!r}; use one of {', '.join(get_args(Quantization))}"
        )
    compress = _nf4 if quantization == "nf4" else _torchao(quantization)
    for layer in network.language_model.layers:
        compress(layer.to(device))
    network.to(device)


def choose(network: LisaNetwork, dtype: torch.dtype, device: torch.device) -> Quantization | None:
    """The mildest method with which a network fits into a GPU's free memory; None: as it is.

    On a processor always None: quantised layers are slower there.
    """
    if device.type != "cuda":
        return None
    layers = sum(p.numel() for p in network.language_model.layers.parameters())
    others = sum(p.numel() for p in network.parameters()) - layers
    room = torch.cuda.mem_get_info(device)[0] - _WORKING - others * dtype.itemsize
    if layers * dtype.itemsize <= room:
        return None
    return "int8" if layers * _BYTES["int8"] <= room else "int4"


def _torchao(quantization: Literal["int8", "fp8", "int4"]) -> Callable[[nn.Module], None]:
    try:
        from torchao.quantization import (
            Float8WeightOnlyConfig,
            Int4WeightOnlyConfig,
            Int8WeightOnlyConfig,
            IntxWeightOnlyConfig,
            MappingType,
            PerGroup,
            quantize_,
        )
    except ImportError as error:
        raise _missing(quantization, "torchao") from error

    def compress(layer: nn.Module) -> None:
        weight = next(layer.parameters())
        if quantization == "int8":
            config = Int8WeightOnlyConfig()
        elif quantization == "fp8":
            config = Float8WeightOnlyConfig()
        elif weight.is_cuda and weight.dtype == torch.bfloat16 and _group(layer) == 32:
            config = Int4WeightOnlyConfig(group_size=32, int4_packing_format="tile_packed_to_4d")
        else:
            config = IntxWeightOnlyConfig(
                weight_dtype=torch.int4,
                granularity=PerGroup(_group(layer)),
                mapping_type=MappingType.ASYMMETRIC,
            )
        quantize_(layer, config)

    return compress


def _group(layer: nn.Module) -> int:
    """How many weights can share a scale in every map of a layer."""
    widths = {m.in_features for m in layer.modules() if isinstance(m, nn.Linear)}
    for group in _GROUPS:
        if all(width % group == 0 for width in widths):
            return group
    raise CheckpointError(
        f"int4 needs layers whose widths {_GROUPS[-1]} divides; these are {sorted(widths)} wide:"
        " use int8, or load without quantization"
    )


def _nf4(layer: nn.Module) -> None:
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise _missing("nf4", "bitsandbytes") from error
    for module in list(layer.modules()):
        for name, child in module.named_children():
            if not isinstance(child, nn.Linear):
                continue
            weight = child.weight
            packed = Linear4bit(
                child.in_features,
                child.out_features,
                bias=child.bias is not None,
                compute_dtype=weight.dtype,
                compress_statistics=True,
                quant_type="nf4",
                device="meta",
            )
            packed.weight = Params4bit(
                weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
            ).to(weight.device)
            packed.bias = child.bias
            setattr(module, name, packed)


def _missing(quantization: str, package: str) -> CheckpointError:
    return CheckpointError(
        f"quantization {quantization} needs the package {package}; install it, or load without"
    )
