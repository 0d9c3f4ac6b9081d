"""What moved from one image to the next: dense flow, and affine motion of the image and parts.

The flow is OpenCV's DIS (Kroeger et al., 2016), both ways: where the two disagree, something got
covered or came out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from lisa_ros.engine.answer import mask_box
from lisa_ros.tracking.thing import View

FEWEST = 30  # points that an affine motion is fitted to; fewer give a shift alone
MOST_POINTS = 400  # of a thing, that its motion is fitted to
LONGEST_STEP = 60  # pixels from one image to the next for which there is room around a thing


@dataclass(frozen=True, eq=False)
class Motion:
    """From the last image to this one."""

    back: np.ndarray
    """(h, w, 2) pixels: what takes a pixel to where it was"""
    source: np.ndarray
    """(h, w, 2), x and y where it was"""
    agrees: np.ndarray
    """(h, w) bool: both ways of the flow say the same"""
    camera: np.ndarray
    """(2, 3), the motion of the whole image"""

    @staticmethod
    def between(dis: cv2.DISOpticalFlow, last: np.ndarray, gray: np.ndarray) -> Motion:
        """Of two grey images (h, w)."""
        back = dis.calc(gray, last, None)
        forth = dis.calc(last, gray, None)
        pixels = grid(*gray.shape)
        source = pixels + back
        returned = cv2.remap(forth, source, None, cv2.INTER_LINEAR, borderValue=1e3)
        agrees = _length(returned + back) < 1.5 + 0.1 * _length(back)
        now, then = pixels[4::8, 4::8].reshape(-1, 2), source[4::8, 4::8].reshape(-1, 2)
        return Motion(back, source, agrees, fit_affine(then, now))

    def room(self, shape: np.ndarray, margin: int) -> tuple[slice, slice]:
        """The part of the image in which a shape (signed distance) can be in this image."""
        height, width = shape.shape
        x, y, w, h = mask_box(shape > 0)
        reach = margin
        if w:
            reach += int(min(LONGEST_STEP, np.abs(self.back[y : y + h, x : x + w]).max()))
        return (
            slice(max(0, y - reach), min(height, y + h + reach)),
            slice(max(0, x - reach), min(width, x + w + reach)),
        )

    def of(self, here: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The affine motion (2, 3) of what is at these pixels (N, 2), whole numbers x and y, and
        its shift (2,) beside the image's own motion."""
        here = here[:: max(1, len(here) // MOST_POINTS)]
        there, here = self.source[here[:, 1], here[:, 0]], here.astype(np.float32)
        shift = here.mean(0) - (self.camera[:, :2] @ there.mean(0) + self.camera[:, 2])
        return fit_affine(there, here), shift


class SharedMotion:
    """Views and motion of the newest images: computed once for all trackers of one camera."""

    def __init__(self) -> None:
        self.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        self.views: deque[tuple[Hashable, View]] = deque(maxlen=2)
        self.newest: tuple[View, View, Motion] | None = None

    def view(self, image: np.ndarray, key: Hashable | None) -> View:
        """The image at work size; without a key nothing tells whether it is known."""
        for known, view in self.views:
            if key is not None and known == key and view.hw == image.shape[:2]:
                return view
        self.views.append((key, View.of(image)))
        return self.views[-1][1]

    def between(self, last: View, view: View) -> Motion:
        """From one view to the next."""
        if self.newest is None or self.newest[0] is not last or self.newest[1] is not view:
            self.newest = last, view, Motion.between(self.dis, last.gray, view.gray)
        return self.newest[2]


def _length(flow: np.ndarray) -> np.ndarray:
    """Of steps (h, w, 2): (h, w) pixels, along x and along y."""
    # NumPy's sum over a last axis of two is ten times as slow
    return np.abs(flow[..., 0]) + np.abs(flow[..., 1])


@lru_cache(maxsize=2)
def grid(height: int, width: int) -> np.ndarray:
    """x and y of each pixel, (h, w, 2) float32."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack([x, y], axis=-1)


def fit_affine(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(2, 3), what takes points (N, 2) to where they are now, by least squares with few outliers.

    Few points give a shift alone.
    """
    if len(before) < FEWEST:
        shift = np.median(after - before, axis=0) if len(before) else np.zeros(2)
        return np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    middle = before.mean(0)
    known = np.concatenate([before - middle, np.ones((len(before), 1))], axis=1)
    wanted = after - middle
    weight = np.ones(len(before))
    for _ in range(4):
        heavy = known * weight[:, None]
        normal = known.T @ heavy + np.diag([1e-3, 1e-3, 1e-6])
        solution = np.linalg.solve(normal, heavy.T @ wanted + 1e-3 * np.eye(3, 2))
        residual = np.linalg.norm(known @ solution - wanted, axis=1)
        scale = max(0.3, 1.5 * float(np.median(residual)))
        weight = 1 / (1 + (residual / scale) ** 2) ** 2
    linear = solution[:2].T
    return np.concatenate([linear, (solution[2] + middle - linear @ middle)[:, None]], axis=1)


def warp(shape: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A signed distance moved along; what comes into the image is far outside."""
    size = shape.shape[::-1]
    return cv2.warpAffine(shape, affine, size, flags=cv2.INTER_LINEAR, borderValue=-1e3)
