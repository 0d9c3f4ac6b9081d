"""What is known about an image: encoded once, asked many times, on a GPU beside the language model.

Letters in shapes: C channels and g side of SAM's feature grid, V views of an image, P positions
that a view takes in the language model, H its hidden size, L layers, d head width.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from lisa_ros.engine.decoder import CudaGraphs
from lisa_ros.engine.sam_encoder import SamEncoder, best_route
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.processor import ClipView


@dataclass(eq=False)
class ImageFeatures:
    """One image's features, as far as they have been computed."""

    hw: tuple[int, int]
    """height and width of the image"""
    sam: Tensor | None = None
    """(C, g, g) SAM embedding"""
    views: list[Tensor] = field(default_factory=list)
    """(P, H) projected CLIP tokens, one tensor per view of the image"""
    prefix_kv: list[Tensor] = field(default_factory=list)
    """keys and values (L, 2, kv heads, length, d) of the prompt up to and with the image, one
    tensor per view"""

    @property
    def nbytes(self) -> int:
        """Bytes that this object keeps alive."""
        tensors = (*self.views, *self.prefix_kv, self.sam)
        return sum(t.nbytes for t in tensors if t is not None)


class ImageFeatureCache:
    """Features by the key of their image; the least recently used go when there are too many."""

    def __init__(self, max_bytes: int) -> None:
        """`max_bytes`: what may stay after each call of `trim`."""
        self.max_bytes = max_bytes
        self.entries: OrderedDict[Hashable, ImageFeatures] = OrderedDict()

    def get(self, key: Hashable | None, hw: tuple[int, int]) -> ImageFeatures:
        """The features under this key, or new ones; without a key they are never kept."""
        if key is None:
            return ImageFeatures(hw)
        features = self.entries.setdefault(key, ImageFeatures(hw))
        if features.hw != hw:  # the caller used a key twice; the size is what we can see of it
            features = self.entries[key] = ImageFeatures(hw)
        self.entries.move_to_end(key)
        return features

    @property
    def nbytes(self) -> int:
        """Bytes of all features together."""
        return sum(features.nbytes for features in self.entries.values())

    def trim(self) -> None:
        """Forget the least recently used until the rest fits."""
        excess = self.nbytes - self.max_bytes
        while excess > 0 and self.entries:
            _, features = self.entries.popitem(last=False)
            excess -= features.nbytes


class StageTimer:
    """Milliseconds per stage. On a GPU they come from events, so that timing waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.started = perf_counter()
        self.stages: dict[str, float] = defaultdict(float)
        self.events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a `with` block to a stage."""
        if self.device.type != "cuda":
            begin = perf_counter()
            yield
            self.stages[name] += 1000 * (perf_counter() - begin)
            return
        first = torch.cuda.Event(enable_timing=True)
        last = torch.cuda.Event(enable_timing=True)
        first.record(torch.cuda.current_stream(self.device))
        yield
        last.record(torch.cuda.current_stream(self.device))
        self.events.append((name, first, last))

    def mark(self, name: str) -> None:
        """Note the time since the question, once."""
        self.stages.setdefault(name, 1000 * (perf_counter() - self.started))

    def timings(self) -> dict[str, float]:
        """All stages so far, and the total."""
        for name, first, last in self.events:
            last.synchronize()
            self.stages[name] += first.elapsed_time(last)
        self.events.clear()
        total = 1000 * (perf_counter() - self.started)
        return {**self.stages, "total": total}


class Vision:
    """CLIP for the language model's eyes, SAM for the masks; on a GPU SAM runs beside the rest."""

    def __init__(self, lisa: Lisa, clip_view: ClipView) -> None:
        network, device = lisa.network, lisa.network.lm_head.weight.device
        self.processor, self.clip_view, self.device = lisa.processor, clip_view, device
        self.dtype = network.dtype
        self.clip_encoder = network.encode_view
        self.sam_encoder = SamEncoder(network.image_encoder, best_route(device))
        # frames (N, C, g, g) and a SAM prompt for each, (N, C), to logits (N, 1, 4g, 4g)
        self.low_res = lambda frames, prompts: network.decode_masks(frames, prompts[:, None])[0]
        self.side_stream = None
        if device.type == "cuda":
            self.side_stream = torch.cuda.Stream(device)
            self.clip_encoder = CudaGraphs(self.clip_encoder, device)
            self.sam_encoder = CudaGraphs(self.sam_encoder, device)
            self.low_res = CudaGraphs(self.low_res, device)

    def encode_views(
        self, entries: Sequence[ImageFeatures], images: Sequence[np.ndarray], timer: StageTimer
    ) -> None:
        """Fill `views` of features that have none."""
        with timer.stage("clip"):
            views = [self.processor.clip_views(image, self.clip_view) for image in images]
            # graphs overwrite their output with the next call, hence the copy
            encoded = self.clip_encoder(torch.cat(views).to(self.device)).clone()  # (sum V, P, H)
            parts = encoded.split([len(group) for group in views])
            for features, part in zip(entries, parts, strict=True):
                features.views = list(part)

    def encode_sam(
        self, entries: Sequence[ImageFeatures], images: Sequence[np.ndarray], timer: StageTimer
    ) -> None:
        """Fill `sam` of features that have none; on a GPU `join` before it is read."""
        pixels = [self.processor.sam_pixels(image) for image in images]
        batch = torch.stack(pixels).to(self.device)  # (B, 3, S, S)
        if self.side_stream is not None:
            self.side_stream.wait_stream(torch.cuda.current_stream(self.device))
            # the allocator must not hand this memory out again while the other stream reads it
            batch.record_stream(self.side_stream)
        with torch.cuda.stream(self.side_stream), timer.stage("sam"):
            encoded = self.sam_encoder(batch).to(self.dtype, copy=True)  # (B, C, g, g)
        if self.side_stream is not None:
            encoded.record_stream(torch.cuda.current_stream(self.device))
        for features, embedding in zip(entries, encoded, strict=True):
            features.sam = embedding

    def join(self) -> None:
        """Let the current stream wait for the SAM features that are under way."""
        if self.side_stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.side_stream)

    def decode_masks(
        self, entries: Sequence[ImageFeatures], prompts: Tensor, timer: StageTimer
    ) -> list[Tensor]:
        """Full-size mask logits (height, width) of SAM prompts (N, C), each with its own image."""
        self.join()
        with timer.stage("mask"):
            low_res = self.low_res(torch.stack([features.sam for features in entries]), prompts)
            return [
                self.processor.full_size_masks(mask, features.hw)[0]
                for features, mask in zip(entries, low_res, strict=True)
            ]
