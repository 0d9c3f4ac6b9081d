"""How a thing looks, so that it is known again: colours, size, outline and a small picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

BINS = (16, 16, 16)  # of lightness, and of the two colour axes of CIELAB
PATCH = 16  # side in pixels of the small picture
# shares of colours that were never seen: new ones are rather those of what comes in between
FLOOR_THING, FLOOR_AROUND = 1e-3, 3e-3

# what each value of a channel adds to the bin; of a colour axis five values share one
_VALUES = np.arange(256, dtype=np.int32)
_LIGHTNESS = (_VALUES >> 4) * 256
_SECOND = np.clip((_VALUES - 128) // 5 + 8, 0, 15)
_FIRST = _SECOND * 16


@dataclass(frozen=True, eq=False)
class Appearance:
    """One look at a thing."""

    colors: np.ndarray
    """histogram (bins,), its sum 1"""
    area: int
    """pixels at work size"""
    patch: np.ndarray
    """(PATCH, PATCH, 3) float32, the thing's box in CIELAB, the mean taken out; zero outside"""
    outline: np.ndarray
    """(PATCH, PATCH) float32, the share of the mask in each cell of its box"""
    aspect: float
    """logarithm of width over height of its box"""

    @classmethod
    def of(cls, rgb: np.ndarray, bins: np.ndarray, mask: np.ndarray) -> Appearance:
        """Of what a mask (h, w) shows; it must not be empty."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        inside = mask[box]
        size = (PATCH, PATCH)
        outline = cv2.resize(inside.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(np.ascontiguousarray(rgb[box]), cv2.COLOR_RGB2LAB).astype(np.float32)
        lab -= lab[inside].mean(0)
        patch = cv2.resize(lab * inside[..., None], size, interpolation=cv2.INTER_AREA)
        aspect = math.log(inside.shape[1] / inside.shape[0])
        return cls(
            histogram(bins[box][inside]), int(np.count_nonzero(inside)), patch, outline, aspect
        )


def likeness_terms(then: Appearance, now: Appearance) -> np.ndarray:
    """(5,): colours, size, outline, picture, aspect: how much alike two looks are."""
    colors = float(np.sqrt(then.colors * now.colors).sum())
    size = abs(math.log(now.area / then.area))
    union = np.maximum(then.outline, now.outline).sum()
    outline = float(np.minimum(then.outline, now.outline).sum() / union)
    norm = math.sqrt(float((then.patch**2).sum() * (now.patch**2).sum()))
    patch = float((then.patch * now.patch).sum()) / (norm + 1e-3)
    return np.array([colors, size, outline, patch, abs(then.aspect - now.aspect)])


def likeness(then: Appearance, now: Appearance, *, whole: bool = True) -> float:
    """0..1: how probable it is that two looks are of one thing.

    `whole`: size and outline count as well; they do not of a thing that is hidden in part.
    """
    colors, size, outline, patch, aspect = likeness_terms(then, now)
    if whole:
        logit = 14 * (colors - 0.72) - 1.5 * max(0.0, size - 0.3) + 5 * (outline - 0.7)
        logit += 1.5 * (patch - 0.3) - 1.0 * aspect
    else:
        logit = 14 * (colors - 0.65)
    return 1 / (1 + math.exp(-logit))


def color_bins(rgb: np.ndarray) -> np.ndarray:
    """The colour bin of each pixel, (h, w), of an image uint8 (h, w, 3)."""
    lightness, first, second = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB))
    return _LIGHTNESS[lightness] + _FIRST[first] + _SECOND[second]


def histogram(bins: np.ndarray) -> np.ndarray:
    """Shares of the colour bins (N,) -> (bins,), a little smeared, so that noise matters less."""
    counts = np.bincount(bins, minlength=math.prod(BINS)).astype(np.float32).reshape(BINS)
    for axis in range(3):
        padded = np.pad(counts, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        low, high = (np.take(padded, range(o, o + BINS[axis]), axis) for o in (0, 2))
        counts = 0.5 * counts + 0.25 * (low + high)
    total = counts.sum()
    return (counts / total if total else counts).ravel()


def log_ratio(thing: np.ndarray, around: np.ndarray) -> np.ndarray:
    """For each colour bin: log odds that it belongs to the thing, -4 to 4, (bins,) float32."""
    ratio = np.log((thing + FLOOR_THING) / (around + FLOOR_AROUND))
    return np.clip(ratio, -4, 4).astype(np.float32)
