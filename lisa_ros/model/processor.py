"""Images in, masks out: the two preprocessings of LISA and the way back to full size.

Both branches resize 8-bit images with Pillow, whose filters the released models have seen.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from lisa_ros.model.config import ClipView, LisaConfig
from lisa_ros.model.prompt import check_rgb

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], dtype=np.float32)
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711], dtype=np.float32)
SAM_MEAN = np.array([123.675, 116.28, 103.53], dtype=np.float32)
SAM_STD = np.array([58.395, 57.12, 57.375], dtype=np.float32)


class Processor:
    """Preprocessing for one model's image sizes. Images are uint8 arrays (H, W, 3) in RGB."""

    def __init__(self, config: LisaConfig) -> None:
        self.clip_size: int = config.clip["image_size"]
        self.sam_size: int = config.sam_vision["image_size"]
        self.clip_view: ClipView = config.clip_view

    def clip_pixels(self, image: np.ndarray) -> Tensor:
        """What the language model sees of the image in training, (3, h, w).

        The released models: the middle square. The shorter side becomes h by Pillow's bicubic
        filter and the rest is cut off on both sides: of 640x480 a quarter is never seen.
        """
        return self.clip_views(image, self.clip_view)[0]

    def clip_views(self, image: np.ndarray, clip_view: ClipView) -> Tensor:
        """The views that are asked about, (V, 3, h, w).

        `center`: the middle square, as in training. `squash`: the whole image pressed into a
        square. `tiles`: the squares at both ends of the longer side and the middle one between
        them (left, centre, right, or top, centre, bottom); one view if the image is square.
        """
        size = self.clip_size
        check_rgb(image)
        height, width = image.shape[:2]
        pil = Image.fromarray(image)
        if clip_view == "squash":
            squares = [pil.resize((size, size), Image.Resampling.BICUBIC)]
        else:
            # the shorter side becomes `size`; the longer is truncated, not rounded
            longer = int(size * max(height, width) / min(height, width))
            scale_to = (size, longer) if height <= width else (longer, size)
            resized = pil.resize(scale_to[::-1], Image.Resampling.BICUBIC)
            squares = [resized.crop(box) for box in _squares(scale_to, size, clip_view)]
        pixels = np.stack([np.asarray(square, dtype=np.float32) for square in squares])
        pixels = (pixels / 255 - CLIP_MEAN) / CLIP_STD
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def sam_hw(self, hw: tuple[int, int]) -> tuple[int, int]:
        """Height and width of an image inside SAM's square, whose side its longer one becomes."""
        scale = self.sam_size / max(hw)
        return max(1, int(hw[0] * scale + 0.5)), max(1, int(hw[1] * scale + 0.5))

    def sam_pixels(self, image: np.ndarray) -> Tensor:
        """What SAM sees: the whole image, (3, S, S).

        What is left over on the right and below is zero, that is the mean colour, because padding
        follows normalising.
        """
        check_rgb(image)
        height, width = self.sam_hw(image.shape[:2])
        resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = (np.asarray(resized, dtype=np.float32) - SAM_MEAN) / SAM_STD
        padded = torch.zeros(3, self.sam_size, self.sam_size)
        padded[:, :height, :width] = torch.from_numpy(pixels).permute(2, 0, 1)
        return padded

    def full_size_masks(self, low_res: Tensor, hw: tuple[int, int]) -> Tensor:
        """Scale mask logits (N, m, m) to the image: (N, H, W) float32; a mask is `> 0`.

        Bilinear twice, as the reference does: to SAM's square, and, after cutting off the padding,
        to the size of the image.
        """
        if len(low_res) == 0:
            return low_res.new_zeros(0, *hw, dtype=torch.float32)
        square = _bilinear(low_res.float(), (self.sam_size, self.sam_size))
        height, width = self.sam_hw(hw)
        return _bilinear(square[:, :height, :width], hw)


def _bilinear(masks: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(masks[:, None], size, mode="bilinear", align_corners=False)[:, 0]


def _squares(
    hw: tuple[int, int], size: int, clip_view: Literal["center", "tiles"]
) -> list[tuple[int, int, int, int]]:
    """Boxes (left, top, right, bottom) of the squares that are cut out of an image."""
    spare = max(hw) - size
    middle = spare // 2
    starts = [0, middle, spare] if clip_view == "tiles" and spare else [middle]
    if hw[0] <= hw[1]:
        return [(x, 0, x + size, size) for x in starts]
    return [(0, y, size, y + size) for y in starts]
