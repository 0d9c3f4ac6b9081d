"""The language model's forward pass over fixed-shape key and value buffers.

One pass serves the prompt, single decode steps and the check of draft tokens, for one question or a
batch. Every row of the batch has its own length: a token's slot in the buffers is its position, so
rows need no padding on the left and what is written behind a row's end is overwritten later.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROUND = 64  # buffers grow in steps of this many positions


@dataclass
class Chunk:
    """What one pass feeds: T new tokens in each of B rows."""

    embeds: Tensor
    """(B, T, H)"""
    start: Tensor
    """(B,) how many positions each row holds already"""
    span: int
    """the largest start + T: slots of the buffers that this pass can see"""
    depth: Tensor | None = None
    """(B, T) position of each token behind `start`; None: 0, 1, 2, ... (no tree)"""
    allowed: Tensor | None = None
    """(B, T, T) bool, which of the new tokens each new token sees; None: those up to itself"""


class Decoder:
    """Runs a `LlamaModel` and its head, keeping keys and values between the passes."""

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        """Takes the modules as they are (also quantised or with adapters); no weight is copied."""
        config = model.config
        self.layers = list(model.layers)
        self.norm = model.norm
        self.head = head
        self.embed_tokens = model.embed_tokens
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.max_positions = config.max_position_embeddings
        weight = model.embed_tokens.weight
        self.dtype, self.device = weight.dtype, weight.device
        positions = torch.arange(self.max_positions, device=self.device)[None]
        cos, sin = model.rotary_emb(torch.empty(0, dtype=self.dtype, device=self.device), positions)
        self.cos, self.sin = cos[0], sin[0]
        self.buffers = self._empty(0, 0)

    def reserve(self, rows: int, positions: int) -> None:
        """Make the buffers hold `rows` questions of `positions` positions; what they hold stays.

        Layout (layers, 2, rows, positions, key/value heads, head width).
        """
        positions = -(-positions // ROUND) * ROUND
        have_rows, have_positions = self.buffers.shape[2:4]
        if have_rows >= rows and have_positions >= positions:
            return
        old, rows, positions = self.buffers, max(rows, have_rows), max(positions, have_positions)
        self.buffers = self._empty(rows, positions)
        self.buffers[:, :, :have_rows, :have_positions] = old

    def _empty(self, rows: int, positions: int) -> Tensor:
        shape = (len(self.layers), 2, rows, positions, self.kv_heads, self.head_dim)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def embed(self, ids: list[int]) -> Tensor:
        """Embedding rows of token ids, (len(ids), H)."""
        return self.embed_tokens(torch.tensor(ids, device=self.device))

    def store_prefix(self, row: int, length: int) -> Tensor:
        """A copy of the first positions of a row: (layers, 2, length, heads, head width)."""
        return self.buffers[:, :, row, :length].clone()

    def load_prefix(self, row: int, prefix: Tensor) -> None:
        """Put keys and values that `store_prefix` gave at the beginning of a row."""
        self.buffers[:, :, row, : prefix.shape[2]] = prefix

    def keep_path(self, row: int, start: int, path: list[int]) -> None:
        """Close the gaps between the accepted tokens of a tree.

        `path`: their indices behind `start`, ascending; they move to start, start + 1, ...
        """
        if path == list(range(len(path))):
            return
        source = torch.tensor(path, device=self.device) + start
        kept = self.buffers[:, :, row, source]
        self.buffers[:, :, row, start : start + len(path)] = kept

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy what row `source` holds to row `target`."""
        self.buffers[:, :, target, :length] = self.buffers[:, :, source, :length]

    def forward(self, chunk: Chunk) -> Tensor:
        """Feed a chunk; returns the states after the final norm, (B, T, H)."""
        x, (rows, tokens, _) = chunk.embeds, chunk.embeds.shape
        steps = torch.arange(tokens, device=x.device)
        slots = chunk.start[:, None] + steps
        depth = steps if chunk.depth is None else chunk.depth
        positions = (chunk.start[:, None] + depth).clamp_(max=self.max_positions - 1)
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
        mask = self._mask(chunk, slots)
        batch = torch.arange(rows, device=x.device)[:, None]
        for layer, (keys, values) in zip(self.layers, self.buffers, strict=True):
            attention = layer.self_attn
            h = layer.input_layernorm(x)
            q = attention.q_proj(h).view(rows, tokens, self.heads, self.head_dim)
            k = attention.k_proj(h).view(rows, tokens, self.kv_heads, self.head_dim)
            v = attention.v_proj(h).view(rows, tokens, self.kv_heads, self.head_dim)
            keys[batch, slots] = _rotate(k, cos, sin)
            values[batch, slots] = v
            seen = F.scaled_dot_product_attention(
                _rotate(q, cos, sin).transpose(1, 2),
                keys[:rows, : chunk.span].transpose(1, 2),
                values[:rows, : chunk.span].transpose(1, 2),
                attn_mask=mask,
                enable_gqa=self.kv_heads != self.heads,
            )
            x = x + attention.o_proj(seen.transpose(1, 2).reshape(rows, tokens, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return self.norm(x)

    def _mask(self, chunk: Chunk, slots: Tensor) -> Tensor | None:
        """(B, 1, T, span) bool, True where a token may look; None where it may look everywhere."""
        rows, tokens = slots.shape
        if rows == 1 and tokens == 1:
            return None
        column = torch.arange(chunk.span, device=slots.device)
        mask = column <= slots[:, :, None]
        if chunk.allowed is not None:
            index = slots[:, None, :].expand(-1, tokens, -1)
            mask = mask.scatter(2, index, chunk.allowed)
        return mask[:, None]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al., 2021); x (B, T, heads, d), cos and sin (B, T, 1, d)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
