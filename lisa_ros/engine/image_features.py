"""Runs the image encoders and the mask decoder; what belongs to an image stays on its frame."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from lisa_ros.engine.clock import Clock
from lisa_ros.engine.frames import Frame
from lisa_ros.engine.graphs import Graphed
from lisa_ros.engine.sam_encoder import SamEncoder, best_route
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.network import LisaNetwork
from lisa_ros.model.processor import ClipView


class Vision:
    """CLIP for the language model's eyes, SAM for the masks; on a GPU SAM runs beside the rest.

    On a CPU transformers' SAM encoder is used as it is: ours gains less than a third there.
    """

    def __init__(self, lisa: Lisa, clip_view: ClipView) -> None:
        network, device = lisa.network, lisa.network.lm_head.weight.device
        self.processor, self.clip_view, self.device = lisa.processor, clip_view, device
        self.dtype = network.dtype
        self.view, self.frame = network.encode_view, network.encode_frame
        self.low_res, self.beside = partial(_low_res_masks, network), None
        if device.type == "cuda":
            self.beside = torch.cuda.Stream(device)
            self.view = Graphed(self.view, device)
            self.frame = Graphed(SamEncoder(network.image_encoder, best_route()), device)
            self.low_res = Graphed(self.low_res, device)

    def encode_views(
        self, frames: Sequence[Frame], images: Sequence[np.ndarray], clock: Clock
    ) -> None:
        """Fill `frame.views` of frames that have none."""
        with clock.stage("clip"):
            views = [self.processor.clip_views(image, self.clip_view) for image in images]
            features = self.view(torch.cat(views).to(self.device)).clone()
            parts = features.split([len(group) for group in views])
            for frame, part in zip(frames, parts, strict=True):
                frame.views = list(part)

    def encode_sam(
        self, frames: Sequence[Frame], images: Sequence[np.ndarray], clock: Clock
    ) -> None:
        """Fill `frame.sam` of frames that have none; on a GPU `join` before it is read."""
        pixels, sizes = zip(*(self.processor.sam_pixels(image) for image in images), strict=True)
        batch = torch.stack(pixels).to(self.device)
        if self.beside is not None:
            self.beside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.beside), clock.stage("sam"):
            features = self.frame(batch).to(self.dtype, copy=True)
        if self.beside is not None:
            features.record_stream(torch.cuda.current_stream(self.device))
        for frame, embedding, size in zip(frames, features, sizes, strict=True):
            frame.sam, frame.resized_hw = embedding, size

    def join(self) -> None:
        """Let the current stream wait for the SAM features that are under way."""
        if self.beside is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.beside)

    def decode_masks(self, frames: Sequence[Frame], states: Tensor, clock: Clock) -> list[Tensor]:
        """Full-size mask logits (H, W) of states (N, H), each about a frame of its own."""
        self.join()
        with clock.stage("mask"):
            low_res = self.low_res(torch.stack([frame.sam for frame in frames]), states)
            return [
                self.processor.full_size_masks(mask, frame.resized_hw, frame.hw)[0]
                for frame, mask in zip(frames, low_res, strict=True)
            ]


def _low_res_masks(network: LisaNetwork, frames: Tensor, states: Tensor) -> Tensor:
    """Frames (N, C, g, g) and the states (N, H) that predict `[SEG]` to logits (N, 1, 4g, 4g)."""
    return network.decode_masks(frames, network.seg_embeddings(states)[:, None])[0]
