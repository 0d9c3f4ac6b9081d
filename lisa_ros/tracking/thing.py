"""What is known of one thing, and what one image shows. Masks have the work size (h, w)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import cv2
import numpy as np

from lisa_ros.tracking.appearance import Appearance, color_bins, histogram, likeness, log_ratio
from lisa_ros.tracking.tracker import mask_iou

WORK_SIDE = 480  # pixels of the longer side of the image that motion and colours are taken from
MARGIN = 20  # pixels around a shape in which its pixels are looked for
SMALLEST = 16  # pixels at work size of which a mask must have more
MEMORY = 8  # appearances of one thing; the first one stays
PRIOR = 3.9  # log odds of what the last image says of a pixel
SAME_MASK = 0.5  # IoU of a coarse mask and its outline moved to where the colours change


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
    """pixels per image that it moved beside the picture's own motion"""

    @classmethod
    def begun(cls, view: View, mask: np.ndarray, number: int, label: str, clock: float) -> Thing:
        """What an image shows of a new thing; `number` 0: of a look-alike."""
        shape = signed_distance(mask)
        colors = histogram(view.bins[mask])
        ring = (shape < -1) & (shape > -MARGIN)
        around = histogram(view.bins[ring])
        likely = log_ratio(colors, around)[view.bins] > 0
        contrast = float(likely[mask].mean() - likely[ring].mean()) if ring.any() else 1.0
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
