"""SAM's image encoder with attention that keeps its position tables.

Transformers' module is the oracle in the tests. It rebuilds and re-interpolates the tables of
relative positions on every call and adds up a bias of heads x N x N numbers per layer (537 MB in
bfloat16 at 1024 pixels). Here the tables are built once, and two more routes need no bias at all.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention
from torch.utils._triton import has_triton

Route = Literal["dense", "fold", "flex"]
BLOCK_BYTES = 4 * 2**20  # of a bias that is made at once on a processor: what a cache holds
CACHED_PIXELS = 3 * 512**2  # of an image; several larger ones are encoded one by one on a processor


class SamEncoder:
    """Runs a `SamVisionEncoder`; the weights stay where they are."""

    def __init__(self, encoder: nn.Module, route: Route) -> None:
        """`route`: `dense` adds a bias; `fold` puts it into longer queries and keys; `flex` lets a
        compiled kernel add it on the fly."""
        self.encoder = encoder
        patches = encoder.patch_embed
        side = patches.image_size[0] // patches.patch_size[0]
        self.attentions = [
            _Attention(layer.attn, layer.window_size or side, route) for layer in encoder.layers
        ]

    def __call__(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, S, S) to features (B, C, g, g), both in the encoder's own precision."""
        encoder = self.encoder
        if pixels.device.type == "cpu" and len(pixels) > 1 and pixels[0].numel() > CACHED_PIXELS:
            # what layers hand on would leave the cache: 12 % slower together, with the same bits
            return torch.cat([self(image) for image in pixels.split(1)])
        x = encoder.patch_embed(pixels.to(encoder.patch_embed.projection.weight.dtype))
        if encoder.pos_embed is not None:
            x = x + encoder.pos_embed
        for layer, attention in zip(encoder.layers, self.attentions, strict=True):
            h = layer.layer_norm1(x)
            if layer.window_size:
                windows, padded = layer.window_partition(h, layer.window_size)
                h = layer.window_unpartition(
                    attention(windows), layer.window_size, padded, x.shape[1:3]
                )
            else:
                h = attention(h)
            x = x + h
            x = x + layer.mlp(layer.layer_norm2(x))
        return encoder.neck(x.to(encoder.neck.conv1.weight.dtype))


def best_route(device: torch.device) -> Route:
    """On a GPU no bias in memory, by a compiled kernel where there is a compiler.

    On a processor `dense`, which gives transformers' features to the last bit and was the fastest
    at every size and precision that `lisa-ros bench --study sam` measured (docs/performance.md).
    """
    if device.type != "cuda":
        return "dense"
    return "flex" if has_triton() else "fold"


class _Attention:
    """Attention over s x s tokens with decomposed relative positions (Li et al., MViTv2, 2022)."""

    def __init__(self, attention: nn.Module, side: int, route: Route) -> None:
        self.qkv, self.proj = attention.qkv, attention.proj
        self.heads, self.scale, self.side = attention.num_attention_heads, attention.scale, side
        self.attend = _ROUTES[route]
        self.rel_h = None
        if not attention.use_rel_pos:
            return
        self.rel_h = _relative(attention.rel_pos_h, side)
        self.rel_w = _relative(attention.rel_pos_w, side)
        index = torch.arange(side * side, device=self.rel_h.device)
        rows, columns = F.one_hot(index // side, side), F.one_hot(index % side, side)
        self.one_hot = torch.cat([rows, columns], dim=-1).to(self.rel_h.dtype)

    def __call__(self, x: Tensor) -> Tensor:
        """(B, s, s, D) to (B, s, s, D)."""
        batch, side, _, width = x.shape
        qkv = self.qkv(x).view(batch, side * side, 3, self.heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        if self.rel_h is None:
            seen = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
            return self.proj(seen.transpose(1, 2).reshape(batch, side, side, width))
        # what each query adds for every row and for every column of keys: (B, heads, N, s)
        grid = q.unflatten(2, (side, side))
        by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, self.rel_h).flatten(2, 3)
        by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, self.rel_w).flatten(2, 3)
        seen = self.attend(self, q, k, v, by_row, by_column)
        return self.proj(seen.transpose(1, 2).reshape(batch, side, side, width))


def _dense(own: _Attention, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Block by block of heads and queries: a whole bias would go to memory and back."""
    shape, tokens = v.shape, q.shape[2]
    q, k, v, rows, cols = (x.flatten(0, 1)[:, None] for x in (q, k, v, rows, cols))
    seen = torch.empty_like(q)  # (B * heads, 1, N, d)
    row_bytes = tokens * q.element_size()
    queries = max(1, min(tokens, BLOCK_BYTES // row_bytes))
    heads = max(1, BLOCK_BYTES // (tokens * row_bytes))
    for b, n in product(range(0, len(q), heads), range(0, tokens, queries)):
        block, few = slice(b, b + heads), slice(n, n + queries)
        bias = rows[block, :, few, :, None] + cols[block, :, few, None, :]
        seen[block, :, few] = F.scaled_dot_product_attention(
            q[block, :, few], k[block], v[block], attn_mask=bias.flatten(-2), scale=own.scale
        )
    return seen.view(shape)


def _fold(own: _Attention, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """The bias is a product too: of the offsets with the one-hot row and column of a key."""
    q = torch.cat([q * own.scale, rows, cols], dim=-1)
    k = torch.cat([k, own.one_hot.expand(*k.shape[:2], -1, -1)], dim=-1)
    wide = F.pad(v, (0, 2 * own.side))
    return F.scaled_dot_product_attention(q, k, wide, scale=1.0)[..., : v.shape[-1]]


def _flex(own: _Attention, q: Tensor, k: Tensor, v: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    side = own.side

    def add_offsets(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return score + rows[b, h, i, j // side] + cols[b, h, i, j % side]

    return _compiled_flex_attention()(q, k, v, score_mod=add_offsets, scale=own.scale)


_ROUTES = {"dense": _dense, "fold": _fold, "flex": _flex}


@cache
def _compiled_flex_attention() -> Callable[..., Tensor]:
    return torch.compile(flex_attention, dynamic=False)


def _relative(table: Tensor, side: int) -> Tensor:
    """The vector for each pair of query and key coordinate: (s, s, d) of a table (2 s' - 1, d)."""
    wanted = 2 * side - 1
    if len(table) != wanted:
        table = F.interpolate(table.T[None], size=wanted, mode="linear")[0].T
    steps = torch.arange(side, device=table.device)
    return table.detach()[steps[:, None] - steps + side - 1]
