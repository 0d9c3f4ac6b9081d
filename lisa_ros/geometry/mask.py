"""Masks: brought to the size of the depth image, grown, and what lies along their outline."""

from __future__ import annotations

import cv2
import numpy as np

from lisa_ros.geometry.camera import same_proportions
from lisa_ros.geometry.faults import DepthError


def fit_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask of the colour image, in the pixels of a depth image of another size.

    Both images must show the same view. A pixel of the result belongs to the mask if at least half
    of its area does.

    Args:
        mask: bool or uint8 (H,W), non-zero on the object.
        shape: (H', W') of the depth image.

    Returns:
        bool (H',W').

    Raises:
        DepthError: the sizes have different proportions.
    """
    if mask.shape == shape:
        return mask.astype(bool)
    height, width = shape
    if not same_proportions(mask.shape[::-1], (width, height)):
        raise DepthError(
            f"the image has {mask.shape[1]}x{mask.shape[0]} pixels and the depth image "
            f"{width}x{height}, which cannot be the same view. Use the depth image that is "
            "registered to the colour image"
        )
    # Averages over areas when it shrinks; when it grows, straight lines instead of stairs.
    method = cv2.INTER_AREA if width <= mask.shape[1] else cv2.INTER_LINEAR
    share = cv2.resize((mask > 0).astype(np.float32), (width, height), interpolation=method)
    return share >= 0.5


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A bool mask (H,W) with a square of `pixels` around each of its pixels added."""
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return cv2.dilate(mask.astype(np.uint8), square) > 0


def window(mask: np.ndarray, share: float, least: int) -> tuple[slice, slice]:
    """Rows and columns around the mask, wider on each side by `share` of its size, or `least`.

    The mask must not be empty.
    """
    slices = []
    for axis, size in ((1, mask.shape[0]), (0, mask.shape[1])):
        used = np.flatnonzero(mask.any(axis=axis))
        low, high = int(used[0]), int(used[-1]) + 1
        margin = max(least, round(share * (high - low)))
        slices.append(slice(max(0, low - margin), min(size, high + margin)))
    return slices[0], slices[1]


def visible_fraction(mask: np.ndarray, z: np.ndarray, limit: np.ndarray) -> float:
    """Part (0..1) of a mask's outline along which the object itself ends.

    Along the rest it is cut off by something nearer to the camera or by the border of the image.
    Pixels of the outline with no depth on either side are not counted.

    Args:
        mask: bool (H,W) of the whole image or of a part of it that reaches beyond the mask
            wherever the image does.
        z: float32 (H,W), metres, NaN where nothing was measured.
        limit: float32 (H,W), the step in depth that makes another surface.
    """
    free = cut = 0
    for axis in (0, 1):
        for step in (1, -1):
            beside = np.roll(mask, step, axis), np.roll(z, step, axis)
            border = [slice(None), slice(None)]
            border[axis] = slice(0, 1) if step == 1 else slice(-1, None)
            cut += int(mask[tuple(border)].sum())
            outline = mask & ~beside[0]
            outline[tuple(border)] = False
            known = outline & np.isfinite(z) & np.isfinite(beside[1])
            hidden = int((known & (z - beside[1] > limit)).sum())
            cut += hidden
            free += int(known.sum()) - hidden
    return free / (free + cut) if free + cut else 1.0
