"""Clips of coloured things that slide over a table with a pattern: every mask is known."""

from __future__ import annotations

import cv2
import numpy as np

from lisa_ros.engine.answer import Instance

RED, BLUE = (190, 40, 40), (40, 70, 180)


def table(height: int = 240, width: int = 320) -> np.ndarray:
    """A table with spots, so that motion can be seen, (H, W, 3)."""
    random = np.random.default_rng(0)
    noise = cv2.resize(random.uniform(110, 200, (30, 40)), (width, height))
    return np.repeat(noise[..., None], 3, 2).clip(0, 255).astype(np.uint8)


def draw(things: list[tuple[tuple[int, int, int], float, float]], size: int = 46):
    """An image of striped squares, each (colour, x, y) of its middle, the last one in front.

    Returns the image and the visible masks, (N, H, W) bool.
    """
    image = table()
    ids = np.zeros(image.shape[:2], np.uint8)
    for number, (color, x, y) in enumerate(things, start=1):
        left, top = round(x - size / 2), round(y - size / 2)
        rows = slice(max(0, top), max(0, top + size))
        columns = slice(max(0, left), max(0, left + size))
        patch = np.zeros((size, size, 3), np.uint8) + np.array(color, np.uint8)
        patch[::9] = np.array(color) // 2
        patch[:, :: 5 + number] = (np.array(color) * 0.8).astype(np.uint8)
        part = patch[rows.start - top : rows.stop - top, columns.start - left :]
        part = part[: image.shape[0] - rows.start, : max(0, image.shape[1] - columns.start)]
        image[rows, columns][: part.shape[0], : part.shape[1]] = part
        ids[rows, columns] = number
    return image, np.stack([ids == n for n in range(1, len(things) + 1)])


def instance(mask: np.ndarray, label: str = "it", score: float = 0.9) -> Instance:
    """As an engine would have found it."""
    return Instance(mask, score, 1.0, label)
