"""A built-in image and question: for the self test, and to warm a new model up."""

from __future__ import annotations

import numpy as np

INSTRUCTION = "the red ball"


def sample_image() -> np.ndarray:
    """A red ball on a grey table, uint8 (240, 320, 3) RGB, drawn with simple shading."""
    rows, columns = np.mgrid[:240, :320]
    table = 150 + 20 * (rows / 240)[..., None] * np.array([1.0, 0.95, 0.9])
    x, y = (columns - 170) / 48, (rows - 130) / 48
    inside = x**2 + y**2 < 1
    light = 0.35 + 0.65 * np.clip(1 - (x + 0.4) ** 2 - (y + 0.4) ** 2, 0, 1)
    ball = light[..., None] * np.array([215.0, 35.0, 30.0])
    return np.where(inside[..., None], ball, table).astype(np.uint8)
