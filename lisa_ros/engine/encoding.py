"""Runs the two image encoders and keeps what they give on the frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lisa_ros.engine.clock import Clock
from lisa_ros.engine.frames import Frame
from lisa_ros.engine.graphs import Graphed
from lisa_ros.engine.sam_encoder import SamEncoder, best_route
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.processor import ClipView


class Encoder:
    """CLIP for the language model's eyes, SAM for the masks; on a GPU SAM runs beside the rest.

    On a CPU transformers' SAM encoder is used as it is: ours gains less than a third there.
    """

    def __init__(self, lisa: Lisa, clip_view: ClipView) -> None:
        self.processor, self.clip_view = lisa.processor, clip_view
        self.device = lisa.network.lm_head.weight.device
        self.dtype = lisa.network.no_mask_embed.weight.dtype
        self.view, self.frame, self.beside = (
            lisa.network.encode_view,
            lisa.network.encode_frame,
            None,
        )
        if self.device.type == "cuda":
            self.beside = torch.cuda.Stream(self.device)
            sam = SamEncoder(lisa.network.image_encoder, best_route())
            self.view, self.frame = Graphed(self.view), Graphed(sam)

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
        """Fill `frame.sam` of frames that have none; `join` before it is read."""
        pixels, sizes = zip(*(self.processor.sam_pixels(image) for image in images), strict=True)
        batch = torch.stack(pixels).to(self.device)
        if self.beside is not None:
            self.beside.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.beside), clock.stage("sam"):
            features = self.frame(batch).to(self.dtype, copy=True)
        for frame, embedding, size in zip(frames, features, sizes, strict=True):
            frame.sam, frame.resized_hw = embedding, size

    def join(self) -> None:
        """Let the current stream wait for the SAM features that are under way."""
        if self.beside is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.beside)
