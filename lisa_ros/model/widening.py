"""Half precision on processors that only store it: weights stay narrow, sums are in float32.

Without matrix instructions for bfloat16 or float16 a processor multiplies such matrices ten to a
hundred times slower than float32 ones (docs/fidelity.md). There the large weights keep their two
bytes and are widened piece by piece at the moment of use; everything else becomes float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lisa_ros.model.network import LisaNetwork

PIECE = 1 << 21
"""Weights that are widened at once: in float32 few enough for a processor's cache."""

_INSTRUCTIONS = {
    torch.bfloat16: ("avx512_bf16", "avx10_2", "amx_bf16", "bf16"),
    torch.float16: ("avx512_fp16", "avx10_2", "amx_fp16", "fp16_arith"),
}
"""x86-64 and then ARM, as torch calls them."""


class NarrowLinear(nn.Linear):
    """A linear map whose weight is stored in half precision and used in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) of any precision to (..., out) float32."""
        rows = max(1, PIECE // self.in_features)
        pieces = [F.linear(x.float(), piece.float()) for piece in self.weight.split(rows)]
        y = torch.cat(pieces, dim=-1)
        return y if self.bias is None else y + self.bias


class NarrowEmbedding(nn.Embedding):
    """An embedding whose table is stored in half precision; its rows come out in float32."""

    def forward(self, ids: Tensor) -> Tensor:
        """(...) ids to (..., H) float32."""
        return super().forward(ids).float()


def multiplies(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a device multiplies matrices of this precision at full speed."""
    if dtype == torch.float32 or device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in _INSTRUCTIONS[dtype])


def widen(network: LisaNetwork) -> None:
    """Let a network in half precision compute in float32, in place; its results are float32 too.

    Linear maps and the embedding of words keep their weights as they are. The other tensors, less
    than a hundredth of the bytes, are converted.
    """
    kept = set()
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = NarrowLinear
            kept.add(module.weight)
    words = network.language_model.embed_tokens
    words.__class__ = NarrowEmbedding
    kept.add(words.weight)
    for tensor in (*network.parameters(), *network.buffers()):
        if tensor not in kept and tensor.is_floating_point():
            tensor.data = tensor.data.float()
