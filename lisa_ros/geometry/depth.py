"""Depth images and masks in their pixels: units, plausibility, noise, edges, outlines."""

from __future__ import annotations

import cv2
import numpy as np

from lisa_ros.errors import DepthError
from lisa_ros.geometry.camera import same_proportions

FARTHEST = 100.0  # metres; a scene whose middle lies farther off is given in millimetres
NEAREST = 0.02  # metres; no depth camera sees nearer
PROBE = 8  # plausibility looks at every eighth pixel
SUPPORTERS = 3  # of the 8 neighbours: an edge-flying pixel has at most 2, those along the edge


def check_depth(depth: np.ndarray) -> None:
    """Make sure that an array can be a depth image.

    Args:
        depth: (H,W), uint16 in millimetres or float32/float64 in metres.

    Raises:
        DepthError: wrong type or shape, nothing valid in it, or values no camera can mean.
    """
    if depth.ndim != 2 or depth.dtype not in (np.uint16, np.float32, np.float64):
        raise DepthError(
            f"the depth image is {depth.dtype} with shape {depth.shape}; it must be 16UC1 "
            "(millimetres) or 32FC1 (metres)"
        )
    probe = metres(depth[PROBE // 2 :: PROBE, PROBE // 2 :: PROBE])
    valid = probe[np.isfinite(probe)]
    if not valid.size:
        probe = metres(depth)
        valid = probe[np.isfinite(probe)]
    if not valid.size:
        raise DepthError("the depth image holds no measurement, only zeros or NaN")
    middle = float(np.median(valid))
    if middle > FARTHEST:
        raise DepthError(
            f"the middle depth of the image is {middle:.0f} m. It looks like millimetres declared "
            "as metres: publish them as 16UC1, or divide by 1000"
        )
    if middle < NEAREST:
        raise DepthError(
            f"the middle depth of the image is {middle * 1000:.2g} mm. It looks like metres "
            "declared as millimetres: publish them as 32FC1"
        )


def check_same_view(image: tuple[int, int], depth: tuple[int, int]) -> None:
    """Make sure that sizes (H,W) can be those of a colour image and of its depth image.

    Raises:
        DepthError: they have different proportions.
    """
    if not same_proportions(image[::-1], depth[::-1]):
        raise DepthError(
            f"the image has {image[1]}x{image[0]} pixels and the depth image "
            f"{depth[1]}x{depth[0]}, which cannot be the same view. Use the depth image that is "
            "registered to the colour image"
        )


def check_registered(image_frame: str, depth_frame: str) -> None:
    """Make sure that an image and a depth image were taken, or put, in the same frame of tf.

    Raises:
        DepthError: both frames are named, and differ: the images are of two lenses.
    """
    one, other = image_frame.lstrip("/"), depth_frame.lstrip("/")
    if one and other and one != other:
        raise DepthError(
            f"the image is in the frame {one[:60]!r} and the depth image in {other[:60]!r}: use "
            "the depth image that is registered to the colour image"
        )


def metres(depth: np.ndarray) -> np.ndarray:
    """Depth in metres as float32, NaN where nothing was measured (zero, negative, infinite)."""
    if depth.dtype == np.uint16:
        result = depth.astype(np.float32)
        result *= np.float32(0.001)
    else:
        result = depth.astype(np.float32)
    result[~((result > 0) & (result < np.inf))] = np.nan
    return result


def depth_discontinuity(z: np.ndarray | float, focal: float) -> np.ndarray | float:
    """The difference in depth (metres) at `z` metres from which on two neighbouring pixels lie on
    different surfaces.

    1.5 % of the distance; more for coarse images, whose pixels are far apart on slanted surfaces
    (10 pixels of depth per pixel is a surface seen at 84 degrees); more for far things, because
    the error of stereo grows with the square of the distance.
    """
    return z * np.maximum(max(0.015, 10 / focal), 0.01 * z)


def trim_and_smooth(z: np.ndarray, focal: float) -> tuple[np.ndarray, np.ndarray]:
    """Find edge-flying pixels, and average the noise of the others away.

    A pixel that the sensor mixed from two surfaces hangs in the air between them and finds few of
    its eight neighbours near its own depth. The mean is taken over opposite pairs of neighbours on
    the same surface, which leaves slanted planes and the rim of an object where they are.

    Args:
        z: float32 (H,W), metres, NaN where nothing was measured or what is not to be looked at.
        focal: focal length in pixels.

    Returns:
        The smoothed depth (H,W), and bool (H,W), true where a pixel is part of a surface.
    """
    height, width = z.shape
    padded = np.full((height + 2, width + 2), np.nan, np.float32)
    padded[1:-1, 1:-1] = z
    limit = depth_discontinuity(z, focal)
    total, count = z.copy(), np.ones(z.shape, np.float32)
    supporters = np.zeros(z.shape, np.uint8)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        one = padded[1 + down : 1 + down + height, 1 + right : 1 + right + width]
        other = padded[1 - down : 1 - down + height, 1 - right : 1 - right + width]
        near_one, near_other = np.abs(one - z) < limit, np.abs(other - z) < limit
        supporters += near_one
        supporters += near_other
        both = near_one & near_other
        np.add(total, one + other, out=total, where=both)
        count += 2 * both
    return total / count, supporters >= SUPPORTERS


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
    check_same_view(mask.shape, shape)
    height, width = shape
    # Averages over areas when it shrinks; when it grows, straight lines instead of stairs.
    method = cv2.INTER_AREA if width <= mask.shape[1] else cv2.INTER_LINEAR
    share = cv2.resize((mask > 0).astype(np.float32), (width, height), interpolation=method)
    return share >= 0.5


def dilate(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A bool mask (H,W) with a square of `pixels` around each of its pixels added."""
    square = np.ones((2 * pixels + 1, 2 * pixels + 1), np.uint8)
    return cv2.dilate(mask.astype(np.uint8), square) > 0


def window(mask: np.ndarray, share: float, least: int) -> tuple[slice, slice]:
    """Rows and columns around the mask, wider on each side by `share` of its size, or `least`.

    The mask must not be empty.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    slices = []
    for low, used, size in ((y, height, mask.shape[0]), (x, width, mask.shape[1])):
        margin = max(least, round(share * used))
        slices.append(slice(max(0, low - margin), min(size, low + used + margin)))
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


def without_object(depth: np.ndarray, mask: np.ndarray, margin: int = 3) -> np.ndarray:
    """The depth image with an object taken out, for maps of obstacles that must not hold it.

    Args:
        depth: (H,W) uint16 or float; mask: bool (H,W) of the same size.
        margin: pixels around the mask that go too: masks and depth edges are never quite exact.

    Returns:
        A copy with 0 (uint16) or NaN (float) at the object.
    """
    result = depth.copy()
    result[dilate(mask, margin)] = 0 if depth.dtype == np.uint16 else np.nan
    return result
