"""What is known about an image: encoded once, asked many times."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from lisa_ros.errors import ImageError

SMALLEST_SIDE = 16  # pixels; less shows nothing
LARGEST_RATIO = 20  # longer side over shorter side


@dataclass(eq=False)
class Frame:
    """One image and the features that have been computed for it so far."""

    hw: tuple[int, int]
    """height and width of the image"""
    sam: Tensor | None = None
    """(C, g, g) SAM embedding"""
    resized_hw: tuple[int, int] = (0, 0)
    """height and width of the image inside SAM's padded square"""
    views: list[Tensor] = field(default_factory=list)
    """(P, H) projected CLIP tokens, one tensor per view of the image"""
    prefixes: list[Tensor] = field(default_factory=list)
    """keys and values of the prompt up to and with the image, one tensor per view"""

    @property
    def nbytes(self) -> int:
        """Bytes that this frame keeps alive."""
        tensors = [*self.views, *self.prefixes]
        if self.sam is not None:
            tensors.append(self.sam)
        return sum(t.element_size() * t.numel() for t in tensors)


class FrameCache:
    """Frames by key; the least recently used go when the bytes exceed the bound."""

    def __init__(self, limit: int) -> None:
        """`limit`: bytes that may stay after each call of `trim`."""
        self.limit = limit
        self.frames: OrderedDict[Hashable, Frame] = OrderedDict()

    def get(self, key: Hashable | None, hw: tuple[int, int]) -> Frame:
        """The frame of this key, or a new one; a frame without a key is never kept."""
        if key is None:
            return Frame(hw)
        frame = self.frames.setdefault(key, Frame(hw))
        if frame.hw != hw:
            frame = self.frames[key] = Frame(hw)
        self.frames.move_to_end(key)
        return frame

    @property
    def nbytes(self) -> int:
        """Bytes of all frames together."""
        return sum(frame.nbytes for frame in self.frames.values())

    def trim(self) -> None:
        """Forget the least recently used frames until the rest fits."""
        excess = self.nbytes - self.limit
        while excess > 0 and self.frames:
            _, frame = self.frames.popitem(last=False)
            excess -= frame.nbytes


def check_image(image: np.ndarray) -> np.ndarray:
    """The image itself, if the engine can use it; `ImageError` says why not."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3:
        raise ImageError("the image must be an array of uint8, height x width x 3 (RGB)")
    height, width, channels = image.shape
    if channels != 3:
        raise ImageError(f"the image has {channels} channels; convert it to RGB first")
    if min(height, width) < SMALLEST_SIDE:
        raise ImageError(
            f"the image is {width}x{height} pixels; each side must have at least {SMALLEST_SIDE}"
        )
    if max(height, width) > LARGEST_RATIO * min(height, width):
        raise ImageError(
            f"the image is {width}x{height} pixels; one side may be at most {LARGEST_RATIO} times "
            "as long as the other"
        )
    return image
