"""Weight-only quantisation of the language model's layers, for small GPU memories.

Only the linear maps inside the Llama layers are quantised. `lm_head`, `text_hidden_fcs`, the
projector, CLIP and SAM stay as they are: they are small, and masks suffer first.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import nn

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import Quantization
from lisa_ros.model.network import LisaNetwork

_GROUPS = (32, 16)
"""Weights that share one scale in 4-bit formats; the smaller group where rows do not divide."""


def quantize(network: LisaNetwork, quantization: Quantization) -> None:
    """Quantise a network in place, on the device where it lies.

    `int8`: one scale a row. `int4`: one scale for 32 weights (or 16, see `_GROUPS`); packed two to
    a byte on CUDA in bfloat16, elsewhere one to a byte. Both through torchao. `nf4`: 4-bit
    NormalFloat with double quantisation through bitsandbytes (Dettmers et al., arXiv 2305.14314).
    """
    layers = network.language_model.layers
    if quantization == "nf4":
        _nf4(layers)
    elif quantization in ("int8", "int4"):
        _torchao(layers, quantization)
    else:
        raise CheckpointError(
            f"unknown quantization {quantization!r}; use one of {', '.join(get_args(Quantization))}"
        )


def _torchao(layers: nn.Module, quantization: Quantization) -> None:
    try:
        from torchao.quantization import (
            Int4WeightOnlyConfig,
            Int8WeightOnlyConfig,
            IntxWeightOnlyConfig,
            MappingType,
            PerGroup,
            quantize_,
        )
    except ImportError as error:
        raise _missing(quantization, "torchao") from error
    weight = next(layers.parameters())
    if quantization == "int8":
        config = Int8WeightOnlyConfig()
    elif weight.is_cuda and weight.dtype == torch.bfloat16 and _group(layers) == 32:
        config = Int4WeightOnlyConfig(group_size=32, int4_packing_format="tile_packed_to_4d")
    else:
        config = IntxWeightOnlyConfig(
            weight_dtype=torch.int4,
            granularity=PerGroup(_group(layers)),
            mapping_type=MappingType.ASYMMETRIC,
        )
    quantize_(layers, config)


def _group(layers: nn.Module) -> int:
    """How many weights can share a scale in every layer."""
    widths = {m.in_features for m in layers.modules() if isinstance(m, nn.Linear)}
    for group in _GROUPS:
        if all(width % group == 0 for width in widths):
            return group
    raise CheckpointError(
        f"int4 needs layers whose widths {_GROUPS[-1]} divides; these are {sorted(widths)} wide:"
        " use int8, or load without quantization"
    )


def _nf4(layers: nn.Module) -> None:
    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise _missing("nf4", "bitsandbytes") from error
    for module in list(layers.modules()):
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
