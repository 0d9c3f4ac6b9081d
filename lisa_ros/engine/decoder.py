"""The language model's forward pass over fixed-shape buffers of keys and values.

One pass serves the prompt, single decode steps and the check of draft tokens, for one question or a
batch. Every row of the batch has its own length: a token's slot in the KV cache is its position, so
rows need no padding on the left, and what is written behind a row's end is overwritten later.

The arithmetic is that of transformers' `LlamaModel`, which is the oracle in the tests; the pass is
ours because a decode step of a small model is all overhead (measured in docs/performance.md).
Letters in shapes: B rows, T new tokens in each, H hidden size, L layers, P positions, d head width.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROWTH = 256  # the KV cache grows in steps of this many positions
FUSE_BELOW = 256 * 2**20  # bytes: layers up to this size get copies of their weights, laid out anew
MAX_GRAPHS = 32  # CUDA graphs kept of one function; the least recently used are dropped


@dataclass
class ForwardBatch:
    """What one pass feeds: T new tokens in each of B rows."""

    embeds: Tensor
    """(B, T, H)"""
    cache_seqlens: Sequence[int]
    """how many positions each row holds already"""
    tree_depth: Tensor | None = None
    """(B, T) position of each token behind its row's start; None: 0, 1, 2, ... (no tree)"""
    tree_mask: Tensor | None = None
    """(B, T, T) bool, which of the new tokens each new token sees; None: those up to itself"""


class KVCache:
    """Keys and values of all layers and rows in one tensor, `data` (L, 2, B, kv heads, P, d)."""

    def __init__(self, layers: int, kv_heads: int, head_dim: int, like: Tensor) -> None:
        """Empty; of `like`'s device and precision."""
        self.data = like.detach().new_zeros(layers, 2, 0, kv_heads, 0, head_dim)

    @property
    def graph_key(self) -> Hashable:
        """What a CUDA graph over this memory depends on.

        The address alone does not tell: a cache that grew may lie where an older one lay.
        """
        return self.data.data_ptr(), tuple(self.data.shape)

    def ensure_capacity(self, rows: int, positions: int) -> None:
        """Make room for `rows` rows of `positions` positions; what is held stays."""
        layers, _, have_rows, heads, have_positions, width = self.data.shape
        if have_rows >= rows and have_positions >= positions:
            return
        rows = max(rows, have_rows)
        positions = max(-(-positions // GROWTH) * GROWTH, have_positions)
        # zeros and not empty: see `clear`
        larger = self.data.new_zeros(layers, 2, rows, heads, positions, width)
        larger[:, :, :have_rows, :, :have_positions] = self.data
        self.data = larger

    def store_prefix(self, row: int, length: int) -> Tensor:
        """A copy of the first positions of a row: (L, 2, kv heads, length, d)."""
        return self.data[:, :, row, :, :length].clone()

    def load_prefix(self, row: int, prefix: Tensor) -> None:
        """Put keys and values that `store_prefix` gave at the beginning of a row."""
        self.data[:, :, row, :, : prefix.shape[3]] = prefix

    def compact_accepted(self, row: int, start: int, path: list[int]) -> None:
        """Close the gaps between the accepted tokens of a tree.

        `path`: their indices behind `start`, ascending; they move to start, start + 1, ...
        """
        if path == list(range(len(path))):
            return
        source = torch.tensor(path, device=self.data.device) + start
        # indexing copies, so that source and target may overlap
        self.data[:, :, row, :, start : start + len(path)] = self.data[:, :, row, :, source]

    def move_row(self, source: int, target: int, length: int) -> None:
        """Copy what row `source` holds to row `target`."""
        self.data[:, :, target, :, :length] = self.data[:, :, source, :, :length]

    def clear(self) -> None:
        """Zero everything: a NaN in an unused slot would spoil later passes, masked or not."""
        self.data.zero_()


class Decoder:
    """Runs a `LlamaModel` and its head, keeping keys and values between the passes."""

    def __init__(self, model: nn.Module, head: nn.Module) -> None:
        """Takes the modules as they are, also quantized or with adapters.

        Of small models the weights are copied: changing them later needs a new decoder.
        """
        self.layers = _LlamaLayers(model)
        self.cache = self.layers.cache
        self.head, self.embed_tokens = head, model.embed_tokens
        self.max_positions = model.config.max_position_embeddings
        self.device = model.embed_tokens.weight.device
        cuda = self.device.type == "cuda"
        # bound to the layers and not to this object: a circle would keep the weights alive
        self.graphed = CudaGraphs(self.layers.run, self.device) if cuda else None

    def embed(self, ids: Sequence[int]) -> Tensor:
        """Embedding rows of token ids, (len(ids), H)."""
        return self.embed_tokens(_to_device(torch.tensor(ids), self.device))

    def forward(self, batch: ForwardBatch) -> Tensor:
        """Feed a batch; returns the states after the final norm, (B, T, H).

        The cache must have the capacity. On a GPU the states are overwritten by the next pass.
        """
        rows, tokens, _ = batch.embeds.shape
        if self.graphed is None:
            span = max(batch.cache_seqlens) + tokens
            slots, positions, mask = self.lay_out(batch, span)
            if rows == 1:
                # one row writes to neighbouring slots, and one token sees all of them: cheaper
                slots = slice(batch.cache_seqlens[0], span)
                mask = None if tokens == 1 else mask
            return self.layers.run(batch.embeds, positions, mask, slots)
        batch, span = pad_to_bucket(batch)
        self.cache.ensure_capacity(rows, span)
        slots, positions, mask = self.lay_out(batch, span)
        key = self.cache.graph_key
        states = self.graphed(batch.embeds, positions, mask, slots, key=key)
        return states[:, :tokens]

    def lay_out(self, batch: ForwardBatch, span: int) -> tuple[Tensor, Tensor, Tensor]:
        """Slots and positions (B, T) of the new tokens, and the mask (B, 1, T, span).

        The mask is True where a token may look.
        """
        tokens = batch.embeds.shape[1]
        start = torch.tensor(batch.cache_seqlens)[:, None]  # (B, 1)
        slots = start + torch.arange(tokens)  # (B, T)
        # a tree's tokens lie side by side in the cache, but branches share their positions
        depth = slots if batch.tree_depth is None else start + batch.tree_depth
        positions = depth.clamp(max=self.max_positions - 1)  # padding may lie behind the last one
        mask = torch.arange(span) <= slots[:, :, None]  # (B, T, span): all that lies before
        if batch.tree_mask is not None:
            mask.scatter_(2, slots[:, None, :].expand(-1, tokens, -1), batch.tree_mask)
        return (
            _to_device(slots, self.device),
            _to_device(positions, self.device),
            _to_device(mask[:, None], self.device),
        )


class _LlamaLayers:
    """The layers of a `LlamaModel` over a KV cache."""

    def __init__(self, model: nn.Module) -> None:
        config = model.config
        fuse = sum(p.nbytes for p in model.layers.parameters()) <= FUSE_BELOW
        self.blocks = [_LlamaBlock(layer, fuse) for layer in model.layers]
        self.norm = _rms_norm(model.norm)
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        self.cos, self.sin = _rotary_tables(model, config.max_position_embeddings)
        self.cache = KVCache(len(self.blocks), self.kv_heads, self.head_dim, model.norm.weight)

    def run(
        self, x: Tensor, positions: Tensor, mask: Tensor | None, slots: Tensor | slice
    ) -> Tensor:
        """x (B, T, H) to states (B, T, H); `slots` is a slice for a single row without a graph."""
        rows, tokens, _ = x.shape
        # 1. where the new keys and values go, and how far a token may look back
        if isinstance(slots, slice):
            place, span = (slice(None), slots), slots.stop
        else:
            place = (torch.arange(rows, device=x.device)[:, None], slots)
            span = mask.shape[-1]
        cos, sin = self.cos[positions][:, :, None], self.sin[positions][:, :, None]  # (B, T, 1, d)
        n_rotary_heads = self.heads + self.kv_heads  # queries and keys are rotated, values are not
        for block, (keys, values) in zip(self.blocks, self.cache.data[:, :, :rows], strict=True):
            # 2. queries, keys and values in one product, and both rotations in one step
            qkv = block.qkv(block.norm(x)).view(rows, tokens, -1, self.head_dim)
            qk = qkv[:, :, :n_rotary_heads]  # (B, T, heads + kv heads, d)
            qk = torch.addcmul(qk * cos, torch.roll(qk, self.head_dim // 2, -1), sin)
            # 3. write first, then attend: a token sees itself through the cache
            keys.transpose(1, 2)[place] = qk[:, :, self.heads :]
            values.transpose(1, 2)[place] = qkv[:, :, n_rotary_heads:]
            attn_out = F.scaled_dot_product_attention(
                qk[:, :, : self.heads].transpose(1, 2),  # (B, heads, T, d)
                keys[:, :, :span],  # (B, kv heads, span, d)
                values[:, :, :span],
                attn_mask=mask,
                enable_gqa=self.kv_heads != self.heads,
            )
            x = x + block.out(attn_out.transpose(1, 2).reshape(rows, tokens, -1))
            # 4. the gated MLP
            gate, up = block.gate_up(block.mlp_norm(x)).chunk(2, dim=-1)
            x = x + block.down(block.activation(gate) * up)
        return self.norm(x)


class _LlamaBlock:
    """The linear maps of one layer, those that read the same input fused."""

    def __init__(self, layer: nn.Module, fuse: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.norm = _rms_norm(layer.input_layernorm)
        self.qkv = fuse_linears([attention.q_proj, attention.k_proj, attention.v_proj], fuse)
        self.out = fuse_linears([attention.o_proj], fuse)
        self.mlp_norm = _rms_norm(layer.post_attention_layernorm)
        self.gate_up = fuse_linears([mlp.gate_proj, mlp.up_proj], fuse)
        self.down = fuse_linears([mlp.down_proj], fuse)
        self.activation = mlp.act_fn


def _rms_norm(norm: nn.Module) -> Callable[[Tensor], Tensor]:
    shape = tuple(norm.weight.shape)
    return partial(
        F.rms_norm, normalized_shape=shape, weight=norm.weight, eps=norm.variance_epsilon
    )


def fuse_linears(maps: Sequence[nn.Module], fuse: bool) -> Callable[[Tensor], Tensor]:
    """One map whose output is theirs, joined; quantized weights and adapters are left alone."""
    plain = all(type(m) is nn.Linear and type(m.weight.data) is Tensor for m in maps)
    if fuse and plain and all(m.bias is None for m in maps):
        weight = torch.cat([m.weight.detach() for m in maps])  # (out, in)
        if weight.device.type == "cpu" and weight.dtype == torch.float32:
            # a few rows times (in, out) take half the time on a processor, many rows the same
            return partial(torch.matmul, other=weight.t().contiguous())
        return partial(F.linear, weight=weight)
    return lambda x: torch.cat([m(x) for m in maps], dim=-1)


def _rotary_tables(model: nn.Module, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (length, d) of the rotary position embedding (Su et al., 2021).

    The first half of the sines is negated, so that turning a vector is: x cos + roll(x, d/2) sin.
    """
    like = model.norm.weight
    positions = torch.arange(length, device=like.device)[None]
    cos, sin = model.rotary_emb(like, positions)  # (1, length, d)
    half = sin.shape[-1] // 2
    return cos[0], torch.cat([-sin[0, :, :half], sin[0, :, half:]], dim=-1)


def pad_to_bucket(batch: ForwardBatch) -> tuple[ForwardBatch, int]:
    """Pad a batch so that few different shapes occur; returns it and how many slots it may see."""
    tokens = batch.embeds.shape[1]
    # single steps are most of all passes and stay narrow; the rest comes in multiples of 32
    width = 1 if tokens == 1 else -(-tokens // 32) * 32
    span = -(-(max(batch.cache_seqlens) + width) // 256) * 256
    spare = width - tokens
    if not spare:
        return batch, span
    embeds = F.pad(batch.embeds, (0, 0, 0, spare))  # (B, width, H)
    depth, tree_mask = batch.tree_depth, batch.tree_mask
    if depth is not None and tree_mask is not None:
        depth = F.pad(depth, (0, spare))
        tree_mask = F.pad(tree_mask, (0, spare, 0, spare))
        tree_mask[:, tokens:, 0] = True  # a softmax over an empty row would be NaN
    return ForwardBatch(embeds, batch.cache_seqlens, depth, tree_mask), span


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Bring a small tensor to the device without waiting for it."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(eq=False)
class _CapturedGraph:
    graph: torch.cuda.CUDAGraph
    inputs: list[Tensor]
    output: Tensor


class CudaGraphs:
    """A function of tensors that costs one launch instead of hundreds.

    It is captured once per shape of its inputs and replayed afterwards. It must not synchronise,
    and must read and write the same memory each time. Its output is overwritten by the next call
    with the same shapes. Each object has a memory pool of its own, so that two may run on two
    streams.
    """

    def __init__(self, function: Callable[..., Tensor], device: torch.device) -> None:
        self.function, self.device = function, device
        self.captured: OrderedDict[Hashable, _CapturedGraph] = OrderedDict()
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(self, *inputs: Tensor, key: Hashable = None) -> Tensor:
        """The function of the inputs; `key` tells apart what their shapes do not: other memory."""
        with torch.cuda.device(self.device):
            name = (key, tuple((t.shape, t.dtype) for t in inputs))
            found = self.captured.get(name)
            if found is None:
                found = self.captured[name] = self._capture(inputs)
                if len(self.captured) > MAX_GRAPHS:
                    self.captured.popitem(last=False)
            self.captured.move_to_end(name)
            for static, given in zip(found.inputs, inputs, strict=True):
                static.copy_(given, non_blocking=True)
            found.graph.replay()
            return found.output

    def _capture(self, inputs: tuple[Tensor, ...]) -> _CapturedGraph:
        static = [t.clone() for t in inputs]
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):  # the first runs choose kernels and allocate their workspaces
            for _ in range(2):
                self.function(*static)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            output = self.function(*static)
        return _CapturedGraph(graph, static, output)
