"""The language model's forward pass over fixed-shape key and value buffers.

One pass serves the prompt, single decode steps and the check of draft tokens, for one question or a
batch. Every row of the batch has its own length: a token's slot in the buffers is its position, so
rows need no padding on the left, and what is written behind a row's end is overwritten later.

The arithmetic is that of transformers' `LlamaModel`, which is the oracle in the tests; the pass is
ours because a decode step of a small model is all overhead (measured in docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lisa_ros.engine.graphs import Graphed

ROUND = 256  # buffers grow in steps of this many positions
FUSE_BELOW = 256 * 2**20  # bytes: layers up to this size get copies of their weights side by side


@dataclass
class Chunk:
    """What one pass feeds: T new tokens in each of B rows."""

    embeds: Tensor
    """(B, T, H)"""
    starts: Sequence[int]
    """how many positions each row holds already"""
    depth: Tensor | None = None
    """(B, T) position of each token behind its row's start; None: 0, 1, 2, ... (no tree)"""
    allowed: Tensor | None = None
    """(B, T, T) bool, which of the new tokens each new token sees; None: those up to itself"""


class Decoder:
    """Runs a `LlamaModel` and its head, keeping keys and values between the passes."""

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        """Takes the modules as they are, also quantised or with adapters.

        Of small models the weights are copied: changing them later needs a new decoder.
        """
        self.layers = _Layers(model)
        self.head, self.embed_tokens = head, model.embed_tokens
        self.max_positions = model.config.max_position_embeddings
        self.device = model.embed_tokens.weight.device
        cuda = self.device.type == "cuda"
        self.graphed = Graphed(self.layers.run, self.device) if cuda else None

    @property
    def buffers(self) -> Tensor:
        """Keys and values: (layers, 2, rows, key/value heads, positions, head width)."""
        return self.layers.buffers

    def reserve(self, rows: int, positions: int) -> None:
        """Make the buffers hold `rows` questions of `positions` positions; what they hold stays."""
        layers, _, have_rows, heads, have_positions, width = self.buffers.shape
        if have_rows >= rows and have_positions >= positions:
            return
        rows = max(rows, have_rows)
        positions = max(-(-positions // ROUND) * ROUND, have_positions)
        grown = self.buffers.new_zeros(layers, 2, rows, heads, positions, width)
        grown[:, :, :have_rows, :, :have_positions] = self.buffers
        self.layers.buffers = grown

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embedding rows of token ids, (len(ids), H)."""
        return self.embed_tokens(_to_device(torch.tensor(ids), self.device))

    def store_prefix(self, row: int, length: int) -> Tensor:
        """A copy of the first positions of a row: (layers, 2, heads, length, head width)."""
        return self.buffers[:, :, row, :, :length].clone()

    def load_prefix(self, row: int, prefix: Tensor) -> None:
        """Put keys and values that `store_prefix` gave at the beginning of a row."""
        self.buffers[:, :, row, :, : prefix.shape[3]] = prefix

    def keep_path(self, row: int, start: int, path: list[int]) -> None:
        """Close the gaps between the accepted tokens of a tree.

        `path`: their indices behind `start`, ascending; they move to start, start + 1, ...
        """
        if path == list(range(len(path))):
            return
        source = torch.tensor(path, device=self.device) + start
        kept = self.buffers[:, :, row, :, source]
        self.buffers[:, :, row, :, start : start + len(path)] = kept

    def clear(self) -> None:
        """Zero the buffers: a NaN in an unused slot would spoil later passes, masked or not."""
        self.buffers.zero_()

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy what row `source` holds to row `target`."""
        self.buffers[:, :, target, :, :length] = self.buffers[:, :, source, :, :length]

    def forward(self, chunk: Chunk) -> Tensor:
        """Feed a chunk; returns the states after the final norm, (B, T, H).

        On a GPU they are overwritten by the next pass.
        """
        rows, tokens, _ = chunk.embeds.shape
        if self.graphed is None:
            span = max(chunk.starts) + tokens
            slots, positions, mask = self.lay_out(chunk, span)
            if rows == 1:
                slots = slice(chunk.starts[0], span)
                mask = None if tokens == 1 else mask
            return self.layers.run(chunk.embeds, positions, mask, slots)
        chunk, span = to_bucket(chunk)
        self.reserve(rows, span)
        slots, positions, mask = self.lay_out(chunk, span)
        memory = self.buffers.data_ptr()
        states = self.graphed(chunk.embeds, positions, mask, slots, key=memory)
        return states[:, :tokens]

    def lay_out(self, chunk: Chunk, span: int) -> tuple[Tensor, Tensor, Tensor]:
        """Slots and positions (B, T) of the new tokens, and the mask (B, 1, T, span).

        The mask is True where a token may look.
        """
        tokens = chunk.embeds.shape[1]
        start = torch.tensor(chunk.starts)[:, None]
        slots = start + torch.arange(tokens)
        depth = slots if chunk.depth is None else start + chunk.depth
        positions = depth.clamp(max=self.max_positions - 1)
        mask = torch.arange(span) <= slots[:, :, None]
        if chunk.allowed is not None:
            mask.scatter_(2, slots[:, None, :].expand(-1, tokens, -1), chunk.allowed)
        return (
            _to_device(slots, self.device),
            _to_device(positions, self.device),
            _to_device(mask[:, None], self.device),
        )


class _Layers:
    """The layers of a `LlamaModel` over the buffers of keys and values."""

    def __init__(self, model: nn.Module) -> None:
        config = model.config
        fuse = sum(p.nbytes for p in model.layers.parameters()) <= FUSE_BELOW
        self.blocks = [_Block(layer, fuse) for layer in model.layers]
        self.norm = _rms_norm(model.norm)
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.cos, self.sin = _rotary_tables(model, config.max_position_embeddings)
        shape = (len(self.blocks), 2, 0, self.kv_heads, 0, self.head_dim)
        self.buffers = model.norm.weight.detach().new_zeros(shape)

    def run(
        self, x: Tensor, positions: Tensor, mask: Tensor | None, slots: Tensor | slice
    ) -> Tensor:
        """x (B, T, H) to states (B, T, H); `slots` is a slice for a single row without a graph."""
        rows, tokens, _ = x.shape
        if isinstance(slots, slice):
            place, span = (slice(None), slots), slots.stop
        else:
            place = (torch.arange(rows, device=x.device)[:, None], slots)
            span = mask.shape[-1]
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]
        turned = self.heads + self.kv_heads  # queries and keys are rotated, values are not
        for block, (keys, values) in zip(self.blocks, self.buffers[:, :, :rows], strict=True):
            qkv = block.qkv(block.norm(x)).view(rows, tokens, -1, self.head_dim)
            qk = qkv[:, :, :turned]
            qk = torch.addcmul(qk * cos, torch.roll(qk, self.head_dim // 2, -1), sin)
            keys.transpose(1, 2)[place] = qk[:, :, self.heads :]
            values.transpose(1, 2)[place] = qkv[:, :, turned:]
            seen = F.scaled_dot_product_attention(
                qk[:, :, : self.heads].transpose(1, 2),
                keys[:, :, :span],
                values[:, :, :span],
                attn_mask=mask,
                enable_gqa=self.kv_heads != self.heads,
            )
            x = x + block.out(seen.transpose(1, 2).reshape(rows, tokens, -1))
            gate, up = block.gate_up(block.mlp_norm(x)).chunk(2, dim=-1)
            x = x + block.down(block.activation(gate) * up)
        return self.norm(x)


class _Block:
    """The maps of one layer, those that read the same input side by side."""

    def __init__(self, layer: nn.Module, fuse: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.norm = _rms_norm(layer.input_layernorm)
        self.qkv = _beside([attention.q_proj, attention.k_proj, attention.v_proj], fuse)
        self.out = attention.o_proj
        self.mlp_norm = _rms_norm(layer.post_attention_layernorm)
        self.gate_up = _beside([mlp.gate_proj, mlp.up_proj], fuse)
        self.down = mlp.down_proj
        self.activation = mlp.act_fn


def _rms_norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    shape = tuple(norm.weight.shape)
    return partial(
        F.rms_norm, normalized_shape=shape, weight=norm.weight, eps=norm.variance_epsilon
    )


def _beside(maps: Sequence[nn.Module], fuse: bool) -> Callable[[Tensor], Tensor]:
    """One map whose output is theirs, joined; quantised weights and adapters are left alone."""
    plain = all(type(m) is nn.Linear and type(m.weight.data) is Tensor for m in maps)
    if fuse and plain and all(m.bias is None for m in maps):
        return partial(F.linear, weight=torch.cat([m.weight.detach() for m in maps]))
    return lambda x: torch.cat([m(x) for m in maps], dim=-1)


def _rotary_tables(model: nn.Module, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, d) of the rotary position embedding (Su et al., 2021).

    The first half of the sines is negated, so that turning a vector is: x cos + roll(x, d/2) sin.
    """
    like = model.norm.weight
    positions = torch.arange(length, device=like.device)[None]
    cos, sin = model.rotary_emb(like, positions)
    half = sin.shape[-1] // 2
    return cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)


def to_bucket(chunk: Chunk) -> tuple[Chunk, int]:
    """Pad a chunk so that few different shapes occur; returns it and how many slots it may see."""
    tokens = chunk.embeds.shape[1]
    wide = 1 if tokens == 1 else -(-tokens // 32) * 32
    span = -(-(max(chunk.starts) + wide) // 256) * 256
    spare = wide - tokens
    if not spare:
        return chunk, span
    embeds = F.pad(chunk.embeds, (0, 0, 0, spare))
    depth, allowed = chunk.depth, chunk.allowed
    if depth is not None and allowed is not None:
        depth = F.pad(depth, (0, spare))
        allowed = F.pad(allowed, (0, spare, 0, spare))
        allowed[:, tokens:, 0] = True  # a row of the mask must not be empty
    return Chunk(embeds, chunk.starts, depth, allowed), span


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a small tensor to the device without waiting for it."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)
