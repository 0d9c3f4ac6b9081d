"""What one image shows, how a thing looks in it, and what is known of the thing.

Masks have the work size (h, w).
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import cv2
import numpy as np

from lisa_ros.engine.answer import mask_box
from lisa_ros.tracking.tracker import mask_iou

WORK_SIDE = 480  # pixels of the longer side of the image that motion and colours are taken from
MARGIN = 20  # pixels around a shape in which its pixels are looked for
SMALLEST = 16  # pixels at work size of which a mask must have more
MEMORY = 8  # appearances of one thing; the first one stays
PRIOR = 3.9  # log odds of what the last image says of a pixel
SAME_MASK = 0.5  # IoU of a coarse mask and its outline moved to where the colours change
BINS = (16, 16, 16)  # of lightness, and of the two colour axes of CIELAB
PATCH = 16  # side in pixels of the small image
# shares of colours that were never seen: new ones are rather those of what comes in between
FLOOR_THING, FLOOR_AROUND = 1e-3, 3e-3

# what each value of a channel adds to the bin; of a colour axis five values share one
_VALUES = np.arange(256, dtype=np.int32)
_LIGHTNESS = (_VALUES >> 4) * 256
_SECOND = np.clip((_VALUES - 128) // 5 + 8, 0, 15)
_FIRST = _SECOND * 16


@dataclass(frozen=True, eq=False)
class View:
    """One image at work size."""

    hw: tuple[int, int]
    """height and width of the image itself"""
    rgb: np.ndarray
    gray: np.ndarray
    bins: np.ndarray
    """(h, w), the colour bin of each pixel"""

    @classmethod
    def of(cls, image: np.ndarray) -> View:
        """An image uint8 (H, W, 3)."""
        height, width = image.shape[:2]
        scale = min(1.0, WORK_SIDE / max(height, width))
        size = max(8, round(width * scale)), max(8, round(height * scale))
        rgb = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        return cls.at_work_size(rgb, (height, width))

    def part(self, room: tuple[slice, slice]) -> View:
        """What is seen in a part of it."""
        return View(self.hw, self.rgb[room], self.gray[room], self.bins[room])

    @classmethod
    def at_work_size(cls, rgb: np.ndarray, hw: tuple[int, int]) -> View:
        return cls(hw, rgb, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), color_bins(rgb))


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
        x, y, width, height = mask_box(mask)
        box = slice(y, y + height), slice(x, x + width)
        inside = mask[box]
        size = (PATCH, PATCH)
        outline = cv2.resize(inside.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(np.ascontiguousarray(rgb[box]), cv2.COLOR_RGB2LAB).astype(np.float32)
        lab -= lab[inside].mean(0)
        patch = cv2.resize(lab * inside[..., None], size, interpolation=cv2.INTER_AREA)
        aspect = math.log(width / height)
        return cls(
            histogram(bins[box][inside]), int(np.count_nonzero(inside)), patch, outline, aspect
        )


def likeness(then: Appearance, now: Appearance, *, whole: bool = True) -> float:
    """0..1: how probable it is that two looks are of one thing.

    `whole`: size and outline count as well; they do not of a thing that is hidden in part.
    """
    colors = float(np.sqrt(then.colors * now.colors).sum())
    if not whole:
        return 1 / (1 + math.exp(-14 * (colors - 0.65)))
    size = abs(math.log(now.area / then.area))
    union = np.maximum(then.outline, now.outline).sum()
    outline = float(np.minimum(then.outline, now.outline).sum() / union)
    norm = math.sqrt(float((then.patch**2).sum() * (now.patch**2).sum()))
    patch = float((then.patch * now.patch).sum()) / (norm + 1e-3)
    aspect = abs(then.aspect - now.aspect)
    logit = 14 * (colors - 0.72) - 1.5 * max(0.0, size - 0.3) + 5 * (outline - 0.7)
    logit += 1.5 * (patch - 0.3) - 1.0 * aspect
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


@dataclass(eq=False)
class Thing:
    """What is known of one thing; arrays have the work size (h, w)."""

    id: int
    label: str
    embedding: np.ndarray | None
    began: float
    prob: np.ndarray
    """float32, probability of each pixel to show the thing"""
    shape: np.ndarray
    """float32, signed distance to the outline of the whole thing, hidden parts too; inside > 0"""
    colors: np.ndarray
    """histogram of the thing, (bins,)"""
    around: np.ndarray
    """histogram of what surrounds or covers it, (bins,)"""
    whole: float
    """pixels of the whole thing, hidden parts too, as large as it appears now"""
    contrast: float
    """0..1: how well its colours tell it from what surrounds it"""
    memory: deque[Appearance]
    last_seen: float
    remembered: float
    score: float = 1.0
    visible: bool = True
    partial: bool = False
    """found again in part, and coming out"""
    placed: bool = True
    """whether `shape` says where the thing should be; not after a gap"""
    motion: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """pixels per image that it moved beside the image's own motion"""

    @classmethod
    def begun(cls, view: View, mask: np.ndarray, number: int, label: str, clock: float) -> Thing:
        """What an image shows of a new thing; `number` 0: of a look-alike."""
        shape = signed_distance(mask)
        colors = histogram(view.bins[mask])
        ring = (shape < -1) & (shape > -MARGIN)
        around = histogram(view.bins[ring])
        contrast = contrast_of(view, mask, ring, colors, around)
        return cls(
            number, label, None, clock, mask.astype(np.float32), shape, colors, around,
            float(np.count_nonzero(mask)), max(0.0, contrast),
            deque([Appearance.of(view.rgb, view.bins, mask)], MEMORY), clock, clock,
        )  # fmt: skip

    @property
    def mask(self) -> np.ndarray:
        """(h, w) bool"""
        return self.prob > 0.5

    def likeness(self, view: View, mask: np.ndarray, *, whole: bool = True) -> float:
        """0..1: how probable it is that a mask shows the thing, by what is remembered of it."""
        if np.count_nonzero(mask) <= SMALLEST:
            return 0.0
        now = Appearance.of(view.rgb, view.bins, mask)
        return max(likeness(then, now, whole=whole) for then in self.memory)

    def remember(self, view: View, mask: np.ndarray, clock: float) -> None:
        """Keep how it looks now; the first look stays, of the others the oldest goes."""
        self.remembered = clock
        self.colors = 0.9 * self.colors + 0.1 * histogram(view.bins[mask])
        if len(self.memory) == MEMORY:
            del self.memory[1]
        self.memory.append(Appearance.of(view.rgb, view.bins, mask))

    def resize(self, size: tuple[int, int], ratio: float) -> None:
        """Go on at another work size (width, height), so many times as large."""
        self.prob = cv2.resize(self.prob, size)
        self.shape = ratio * cv2.resize(self.shape, size)


def work_mask(mask: np.ndarray, view: View) -> np.ndarray:
    """A mask (H, W) at work size; one of a pixel or two keeps a pixel."""
    size = view.gray.shape[::-1]
    scaled = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return scaled > min(0.5, 0.5 * float(scaled.max()))


def snapped(
    mask: np.ndarray,
    view: View,
    colors: np.ndarray | None = None,
    around: np.ndarray | None = None,
) -> np.ndarray:
    """A coarse mask (h, w), its outline moved to where the colours change.

    `colors`, `around`: histograms of the thing and of what surrounds it, where they are known.
    """
    known = colors is not None
    shape = signed_distance(mask)
    moved = mask
    for _ in range(1 if known else 3):
        if not known:
            near = signed_distance(moved)
            core = near > min(1.5, 0.5 * float(near.max()))
            colors = histogram(view.bins[core])
            around = histogram(view.bins[(near < -1.5) & (near > -MARGIN)])
        color = cv2.blur(log_ratio(colors, around)[view.bins], (3, 3))
        moved = clean(np.clip(0.25 * shape, -PRIOR, PRIOR) + color > 0, shape)
        if mask_iou(moved, mask) < SAME_MASK:
            return mask  # its colours do not tell it from what surrounds it
    return moved


def contrast_of(
    view: View, mask: np.ndarray, ring: np.ndarray, colors: np.ndarray, around: np.ndarray
) -> float:
    """How many more pixels of a mask than of the ring around it have the colours of a thing."""
    likely = log_ratio(colors, around)[view.bins] > 0
    return float(likely[mask].mean() - likely[ring].mean()) if ring.any() else 1.0


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """Pixels to the outline, (h, w) float32; inside > 0."""
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    outer = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return np.where(mask, inner - 0.5, 0.5 - outer)


def clean(mask: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The parts of a mask that reach into the shape, without specks."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    if count <= 1:
        return np.zeros_like(mask)
    largest = stats[1:, cv2.CC_STAT_AREA].max()
    keep = np.zeros(count, bool)
    keep[1:] = stats[1:, cv2.CC_STAT_AREA] >= max(4, 0.15 * largest)
    touching = np.unique(labels[(shape > 0) & (opened > 0)])
    return (keep & np.isin(np.arange(count), touching))[labels]
