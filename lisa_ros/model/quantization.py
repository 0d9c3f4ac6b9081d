"""Weights in fewer bytes than they are computed with: quantization, and half precision as storage.

Quantization is for small GPU memories, and weight-only: the linear maps inside the Llama layers.
`lm_head`, `text_hidden_fcs`, the projector, CLIP and SAM stay as they are: they are small, and
masks suffer first.

Half precision as storage is for processors without matrix instructions for it, which multiply such
matrices ten to a hundred times slower than float32 ones (docs/fidelity.md). There the large weights
keep their two bytes and are upcast piece by piece when they are used; all else becomes float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import Quantization
from lisa_ros.model.network import LisaNetwork

_GROUPS = (32, 16)
"""Weights that share one scale in 4-bit formats; the smaller group where rows do not divide."""

_BYTES = {"int8": 1.01, "int4": 0.63}
"""What a quantized weight takes, scales and zero points included."""

MERGEABLE = (None, "int8", "fp8")
"""Formats whose weights can be read back, so that what adapters have learnt is added to them."""

_WORKING = 2 * 2**30
"""Bytes to leave free for what is computed."""


PIECE = 1 << 21
"""Weights that are widened at once: in float32 few enough for a processor's cache."""

_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "avx10_2", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "avx10_2", "amx_fp16", "fp16_arith"),
}
"""x86-64 and then ARM, as torch calls them."""


def quantize(network: LisaNetwork, quantization: Quantization, device: torch.device) -> None:
    """Quantize a network in place and bring it to a device, layer by layer.

    So the device never holds more than the quantized network and one layer as it was.
    `int8`, `fp8` (float8 e4m3): one scale a row. `int4`: one scale for 32 weights (or 16, see
    `_GROUPS`); packed two to a byte on CUDA in bfloat16, elsewhere one to a byte. All of them
    through torchao. `nf4`: 4-bit NormalFloat with double quantization through bitsandbytes
    (Dettmers et al., arXiv 2305.14314).
    """
    compress = _nf4 if quantization == "nf4" else _torchao(quantization)
    for layer in network.language_model.layers:
        compress(layer.to(device))
    network.to(device)


def choose(network: LisaNetwork, dtype: torch.dtype, device: torch.device) -> Quantization | None:
    """The mildest method with which a network fits into a GPU's free memory; None: as it is.

    On a processor always None: quantized layers are slower there.
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


class UpcastLinear(nn.Linear):
    """A linear map whose weight is stored in half precision and used in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) of any precision to (..., out) float32."""
        rows = max(1, PIECE // self.in_features)
        pieces = [F.linear(x.float(), piece.float()) for piece in self.weight.split(rows)]
        y = torch.cat(pieces, dim=-1)
        return y if self.bias is None else y + self.bias


class UpcastEmbedding(nn.Embedding):
    """An embedding whose table is stored in half precision; its rows come out in float32."""

    def forward(self, ids: Tensor) -> Tensor:
        """(...) ids to (..., H) float32."""
        return super().forward(ids).float()


def multiplies_natively(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device multiplies matrices of this precision at full speed."""
    if dtype == torch.float32 or device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in _INSTRUCTIONS[dtype])


def upcast(network: LisaNetwork) -> None:
    """Let a network in half precision compute in float32, in place; its results are float32 too.

    Linear maps and the embedding of words keep their weights as they are. The other tensors, less
    than a hundredth of the bytes, are converted.
    """
    kept = set()
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = UpcastLinear
            kept.add(module.weight)
    words = network.language_model.embed_tokens
    words.__class__ = UpcastEmbedding
    kept.add(words.weight)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor not in kept and tensor.is_floating_point():
            tensor.data = tensor.data.float()
