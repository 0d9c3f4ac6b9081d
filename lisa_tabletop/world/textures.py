"""Table tops: boards, stone, cloth, tiles and plain lacquer, drawn from noise; they tile."""

from __future__ import annotations

import cv2
import numpy as np

from lisa_tabletop.world.exact import exp, sin

SIZE = 256


def _noise(random: np.random.Generator, cells: tuple[int, int]) -> np.ndarray:
    """Smooth noise (SIZE, SIZE) in 0..1 with the given number of cells along y and x."""
    coarse = np.pad(random.random(cells).astype(np.float32), 2, mode="wrap")
    cell = np.array([SIZE / cells[0], SIZE / cells[1]])
    wide = cv2.resize(
        coarse, (round(SIZE + 4 * cell[1]), round(SIZE + 4 * cell[0])),
        interpolation=cv2.INTER_CUBIC,
    )  # fmt: skip
    top, left = np.round(2 * cell).astype(int)
    return wide[top : top + SIZE, left : left + SIZE].clip(0, 1)


def _wood(random: np.random.Generator) -> np.ndarray:
    """Boards side by side, each with its own tint, the rings of the tree along them."""
    boards = int(random.choice([1, 1, 2, 3, 4, 6]))
    waves = _noise(random, (6, 2)) + 0.35 * _noise(random, (24, 4))
    rings = 0.5 + 0.5 * sin(2 * np.pi * random.uniform(2, 9) * waves)
    fibres = _noise(random, (180, 6))
    strength = random.uniform(0.1, 0.5)
    grain = 1 + strength * (0.55 * rings + 0.45 * fibres - 0.5)
    base = np.array([0.60, 0.42, 0.26]) * random.uniform(0.4, 1.5)
    base = base + random.uniform(0, 0.6) * (base.mean() - base)  # bleached and grey woods
    board = np.arange(SIZE) * boards // SIZE
    tint = 1 + random.normal(0, 0.08, boards)[board]
    if boards > 1:
        edge = np.abs((np.arange(SIZE) * boards / SIZE) % 1 - 0.5) > 0.5 - 1.5 * boards / SIZE
        tint = np.where(edge, random.uniform(0.4, 0.9), tint)
    return base * (grain * tint[:, None])[..., None]


def _stone(random: np.random.Generator) -> np.ndarray:
    """Granite, or marble with veins."""
    base = np.full(3, random.uniform(0.15, 0.9)) + random.normal(0, 0.04, 3)
    if random.random() < 0.5:
        speckle = 0.4 * _noise(random, (12, 12)) + 0.6 * _noise(random, (128, 128))
        return base * (1 + random.uniform(0.2, 0.9) * (speckle[..., None] - 0.5))
    warp = _noise(random, (4, 5)) + 0.5 * _noise(random, (9, 9)) + 0.2 * _noise(random, (30, 30))
    veins = exp(-random.uniform(4, 14) * np.abs(sin(2 * np.pi * warp)))[..., None]
    vein = base + random.choice([-1, 1]) * random.uniform(0.1, 0.3)
    return base + veins * (vein - base)


def _cloth(random: np.random.Generator) -> np.ndarray:
    """Stripes or checks of two or three colours, woven: crossing threads mix."""
    colors = random.uniform(0.2, 0.95, (3, 3))
    colors = colors + random.uniform(0, 0.7) * (colors.mean(0) - colors)
    period = SIZE // int(random.integers(2, 9))
    widths = np.cumsum(random.uniform(0.15, 1, 4))
    stripe = np.searchsorted(widths / widths[-1], (np.arange(SIZE) % period + 0.5) / period)
    thread = colors[np.array([0, 1, 0, 2])[stripe]]
    across = thread[:, None] if random.random() < 0.6 else colors[:1, None]
    weave = 0.94 + 0.12 * _noise(random, (128, 128))
    return (0.5 * thread[None] + 0.5 * across) * weave[..., None]


def _tiles(random: np.random.Generator) -> np.ndarray:
    """Square tiles with joints between them."""
    count = int(random.integers(2, 6))
    place = np.arange(SIZE) * count / SIZE
    tint = 1 + random.normal(0, 0.05, (count, count))[place.astype(int)][:, place.astype(int)]
    face = random.uniform(0.3, 0.9) * random.uniform(0.85, 1.1, 3)
    joint = np.abs(place % 1 - 0.5) > 0.5 - random.uniform(0.01, 0.04)
    surface = face * (tint + 0.1 * _noise(random, (20, 20)) - 0.05)[..., None]
    return np.where((joint[:, None] | joint[None])[..., None], random.uniform(0.2, 0.8), surface)


def _plain(random: np.random.Generator) -> np.ndarray:
    depth = random.uniform(0.02, 0.15)
    return random.uniform(0.1, 0.95, 3) * (1 + depth * (_noise(random, (6, 6)) - 0.5))[..., None]


def table_texture(random: np.random.Generator) -> np.ndarray:
    """One table top, uint8 (256,256,3) RGB."""
    kinds = (_wood, _stone, _cloth, _tiles, _plain)
    texture = kinds[int(random.choice(5, p=[0.35, 0.18, 0.17, 0.08, 0.22]))](random)
    if random.random() < 0.5:
        texture = texture.swapaxes(0, 1)
    return (255 * np.clip(texture, 0, 1)).astype(np.uint8)
