"""A developed image differs from the clean one as photographs do, and in nothing else."""

import numpy as np
import pytest

from lisa_tabletop.world.camera_model import simulate


def scene(height: int = 120, width: int = 160) -> np.ndarray:
    """A bright square on a darker table."""
    rgb = np.full((height, width, 3), (120, 90, 70), dtype=np.uint8)
    rgb[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = (220, 200, 60)
    return rgb


def test_the_same_generator_gives_the_same_image_and_leaves_the_clean_one_alone():
    clean = scene()
    first, again = (simulate(clean, np.random.default_rng(7)) for _ in range(2))
    assert np.array_equal(first, again)
    assert np.array_equal(clean, scene())
    assert (first.shape, first.dtype) == (clean.shape, np.uint8)
    assert not np.array_equal(first, simulate(clean, np.random.default_rng(8)))


@pytest.mark.parametrize("size", [(120, 160), (480, 640), (96, 96), (37, 53)])
def test_edges_stay_where_they_were(size):
    """The square is still best explained by its own place, not by one two pixels away."""
    clean = scene(*size)
    truth = clean[..., 0] > 200

    def contrast(image: np.ndarray, shift: tuple[int, int]) -> float:
        mask = np.roll(truth, shift, (0, 1))
        return image[mask].mean() - image[~mask].mean()

    for seed in range(20):
        image = simulate(clean, np.random.default_rng(seed))[..., :2].astype(float)
        elsewhere = [contrast(image, s) for s in ((2, 0), (-2, 0), (0, 2), (0, -2))]
        assert contrast(image, (0, 0)) > max(elsewhere)


def test_images_vary_in_brightness_tint_sharpness_and_noise():
    taken = np.stack([simulate(scene(), np.random.default_rng(seed)) for seed in range(60)])
    taken = taken.astype(float)
    table = taken[:, 45:75, 5:45]  # an even piece, away from corners and edges
    brightness = table.mean((1, 2, 3))
    warmth = table[..., 0].mean((1, 2)) / table[..., 2].mean((1, 2))
    noise = table.std((1, 2)).mean(-1)
    edge = np.abs(np.diff(taken[:, 60, 45:60].mean(-1), axis=1)).max(1) / brightness
    assert brightness.max() > 1.3 * brightness.min()
    assert warmth.max() > 1.15 * warmth.min()
    assert noise.min() < 1
    assert noise.max() > 5
    assert edge.max() > 2 * edge.min()
    corners = taken[:, :10, :10].mean((1, 2, 3)) / brightness
    assert corners.min() < 0.9
    assert np.abs(corners.max() - 1) < 0.05


def test_a_shaken_image_is_as_bright_as_a_steady_one():
    """Blur moves light about and loses none: only exposure and contrast decide the brightness."""
    level = np.full((64, 64, 3), 128, np.uint8)
    brightness = [simulate(level, np.random.default_rng(seed)).mean() for seed in range(80)]
    assert min(brightness) > 128 * 0.72 * 0.75  # the least exposure, gamma and a vignette
    assert max(brightness) <= 255
    assert max(brightness) < 128 * 1.3 * 1.25
