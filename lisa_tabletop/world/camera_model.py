"""What a real camera makes of a clean image: blur, exposure, white balance, vignette and noise.

Nothing moves: a mask of the clean image is a mask of the simulated one.
"""

from __future__ import annotations

import cv2
import numpy as np

from lisa_tabletop.world.exact import cos, power, sin

DEFOCUS, MOTION = 0.006, 0.015  # most blur, as a share of the image's height
NOISE = 9.0  # largest standard deviation, grey levels


def simulate(
    rgb: np.ndarray, random: np.random.Generator, grain: np.random.Generator | None = None
) -> np.ndarray:
    """One image as some camera at some setting would have taken it.

    Args:
        rgb: uint8 (H,W,3); not changed.
        random: decides the camera and its settings.
        grain: decides the noise of every pixel, so that the frames of a clip have each their own.

    Returns:
        uint8 (H,W,3).
    """
    blurred = _blur(rgb, random)
    # a table per channel holds all that depends on the pixel's value alone
    image = cv2.LUT(blurred, _tone(float(blurred.mean()), random)[None])
    height, width = rgb.shape[:2]
    image *= cv2.merge([_vignette(height, width, random)] * 3)
    image += _noise(height, width, random, grain or random)
    return np.clip(image, 0, 255).astype(np.uint8)


def _blur(rgb: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Out of focus, shaken, sharpened by the camera's own processor, or as it was."""
    height = rgb.shape[0]
    choice = random.choice(4, p=[0.3, 0.25, 0.25, 0.2])
    if choice == 0:
        return cv2.GaussianBlur(rgb, (0, 0), random.uniform(0.2, 1) * DEFOCUS * height)
    if choice == 1:
        streak = _streak(random.uniform(0.2, 1) * MOTION * height, random.uniform(0, np.pi))
        return cv2.filter2D(rgb, -1, streak, borderType=cv2.BORDER_REPLICATE)
    if choice == 2:
        soft = cv2.GaussianBlur(rgb, (0, 0), 0.8)
        amount = random.uniform(0.1, 0.8)
        return cv2.addWeighted(rgb, 1 + amount, soft, -amount, 0)
    return rgb


def _streak(length: float, angle: float) -> np.ndarray:
    """Kernel (k,k) of a camera that moved `length` pixels during the exposure."""
    reach = int(np.ceil(length / 2))
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), dtype=np.float32)
    along = np.linspace(-length / 2, length / 2, 16)
    for x, y in zip(reach + along * cos(angle), reach + along * sin(angle), strict=True):
        left, top = min(int(x), 2 * reach - 1), min(int(y), 2 * reach - 1)
        u, v = x - left, y - top
        weights = [[(1 - u) * (1 - v), u * (1 - v)], [(1 - u) * v, u * v]]
        kernel[top : top + 2, left : left + 2] += np.array(weights, dtype=np.float32)
    return kernel / kernel.sum()


def _tone(mean: float, random: np.random.Generator) -> np.ndarray:
    """What every grey level becomes in R, G and B: float32 (256,3)."""
    level = np.arange(256, dtype=np.float32)
    level = 255 * power(level / 255, random.uniform(0.85, 1.2)).astype(np.float32)
    level = mean + (level - mean) * random.uniform(0.8, 1.2)
    warmth, green = random.uniform(-0.09, 0.09), random.uniform(-0.03, 0.03)
    balance = np.array([1 + warmth, 1 + green, 1 - warmth], dtype=np.float32)
    return level[:, None] * balance * np.float32(random.uniform(0.72, 1.3))


def _vignette(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Brightness (H,W) float32: a lens passes less light towards the corners."""
    depth = random.uniform(0, 0.35) ** 1.5  # most lenses are good
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    x = np.linspace(-1, 1, width, dtype=np.float32)[None] ** 2
    return 1 - np.float32(depth / 2) * (x + y)


def _noise(
    height: int, width: int, random: np.random.Generator, grain: np.random.Generator
) -> np.ndarray:
    """Noise (H,W,3) float32. Shot noise grows as the root of the light, and display values are
    about that root, so that here its deviation is the same in the dark and in the light."""
    deviation = np.float32(NOISE * random.random() ** 2)
    if random.random() < 0.3:  # blotches, as a camera's denoiser leaves them
        size = (height // 2, width // 2, 3)
        coarse = grain.standard_normal(size, dtype=np.float32) * deviation
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return grain.standard_normal((height, width, 3), dtype=np.float32) * deviation
