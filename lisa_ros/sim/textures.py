"""Table tops: wood, stone, cloth and plain lacquer, drawn from noise."""

from __future__ import annotations

import cv2
import numpy as np

SIZE = 256


def _noise(random: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise (SIZE, SIZE) in 0..1 with the given number of cells along y and x."""
    coarse = random.random(cells).astype(np.float32)
    return cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def _wood(random: np.random.Generator) -> np.ndarray:
    grain = 0.6 * _noise(random, (48, 3)) + 0.4 * _noise(random, (160, 6))
    base = np.array([0.60, 0.42, 0.26]) * random.uniform(0.5, 1.4)
    return base * (0.75 + 0.5 * grain[..., None])


def _stone(random: np.random.Generator) -> np.ndarray:
    speckle = 0.5 * _noise(random, (12, 12)) + 0.5 * _noise(random, (120, 120))
    base = np.full(3, random.uniform(0.35, 0.85)) + random.normal(0, 0.03, 3)
    return base * (0.8 + 0.4 * speckle[..., None])


def _cloth(random: np.random.Generator) -> np.ndarray:
    stripes = int(random.integers(2, 9))
    phase = (np.arange(SIZE) * stripes * 2 // SIZE) % 2
    pattern = (
        phase[:, None] ^ phase[None] if random.random() < 0.5 else phase[:, None] | 0 * phase[None]
    )
    one, other = random.uniform(0.25, 0.9, 3), random.uniform(0.25, 0.9, 3)
    blend = 0.5 * one + 0.5 * other
    return np.where(pattern[..., None] > 0, 0.6 * blend + 0.4 * one, 0.6 * blend + 0.4 * other)


def _plain(random: np.random.Generator) -> np.ndarray:
    return random.uniform(0.2, 0.9, 3) * (0.96 + 0.08 * _noise(random, (6, 6))[..., None])


def table_texture(random: np.random.Generator) -> np.ndarray:
    """One table top, uint8 (256,256,3) RGB."""
    draw = (_wood, _stone, _cloth, _plain)[int(random.choice(4, p=[0.4, 0.2, 0.15, 0.25]))]
    return (255 * np.clip(draw(random), 0, 1)).astype(np.uint8)
