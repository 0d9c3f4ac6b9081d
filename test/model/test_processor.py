"""Preprocessing against transformers' own, and masks that land where the thing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_samples import noise_image, small_lisa
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from lisa_ros.errors import ImageError
from lisa_ros.model.processor import CLIP_MEAN, CLIP_STD, SAM_MEAN, SAM_STD, Processor

CONFIG = small_lisa().config
CLIP, SAM = CONFIG.clip["image_size"], CONFIG.sam_vision["image_size"]


@pytest.fixture(scope="module")
def processor() -> Processor:
    return Processor(CONFIG)


@settings(max_examples=25, deadline=None)
@given(st.integers(5, 300), st.integers(5, 300))
def test_center_view_is_what_clips_own_processor_makes(height: int, width: int) -> None:
    image = noise_image(height, width)
    theirs = CLIPImageProcessorPil(
        size={"shortest_edge": CLIP}, crop_size={"height": CLIP, "width": CLIP}
    )
    expected = theirs(image, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(Processor(CONFIG).clip_pixels(image), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("hw", "resized"),
    [
        ((480, 640), (60, 80)),
        ((640, 480), (80, 60)),
        ((333, 512), (52, 80)),  # 52.03
        ((100, 160), (50, 80)),
        ((101, 160), (51, 80)),  # 50.5 rounds up
        ((80, 80), (80, 80)),
        ((1, 1), (80, 80)),
        ((1, 4000), (1, 80)),  # would round to nothing
    ],
)
def test_sams_longer_side_fills_the_square(
    processor: Processor, hw: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert processor.sam_hw(hw) == resized
    pixels = processor.sam_pixels(noise_image(*hw))
    assert pixels.shape == (3, SAM, SAM)
    assert pixels[:, resized[0] :].eq(0).all() and pixels[:, :, resized[1] :].eq(0).all()


def test_sam_pads_with_the_mean_colour_on_the_right_and_below(processor: Processor) -> None:
    white = np.full((40, 80, 3), 255, np.uint8)
    pixels = processor.sam_pixels(white)
    assert (pixels[:, 40:] == 0).all()
    expected = torch.from_numpy((255 - SAM_MEAN) / SAM_STD)[:, None, None].expand(3, 40, 80)
    torch.testing.assert_close(pixels[:, :40], expected)


def plain(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((image / 255 - CLIP_MEAN) / CLIP_STD).permute(2, 0, 1).float()


def test_tiles_reach_both_ends_of_a_wide_image(processor: Processor) -> None:
    image = noise_image(CLIP, 100)
    views = processor.clip_views(image, "tiles")
    lefts = [0, (100 - CLIP) // 2, 100 - CLIP]
    assert len(views) == 3
    for view, left in zip(views, lefts, strict=True):
        torch.testing.assert_close(view, plain(image[:, left : left + CLIP]), atol=1e-5, rtol=0)
    assert torch.equal(views[1], processor.clip_pixels(image))


def test_tiles_of_a_tall_image_go_from_top_to_bottom(processor: Processor) -> None:
    image = noise_image(100, CLIP)
    views = processor.clip_views(image, "tiles")
    torch.testing.assert_close(views[0], plain(image[:CLIP]), atol=1e-5, rtol=0)
    torch.testing.assert_close(views[2], plain(image[-CLIP:]), atol=1e-5, rtol=0)


def test_a_square_image_has_one_view_whatever_is_asked_for(processor: Processor) -> None:
    image = noise_image(70, 70)
    views = [processor.clip_views(image, kind) for kind in ("center", "squash", "tiles")]
    for view in views:
        assert torch.equal(view, views[0])
        assert view.shape == (1, 3, CLIP, CLIP)


def test_squash_shows_the_borders_that_center_cuts_off(processor: Processor) -> None:
    image = noise_image(120, 160)
    marked = image.copy()
    marked[:, :15] = 255
    assert torch.equal(processor.clip_pixels(image), processor.clip_pixels(marked))
    squashed = processor.clip_views(image, "squash"), processor.clip_views(marked, "squash")
    assert not torch.equal(*squashed)
    own = Processor(replace(CONFIG, clip_view="squash"))
    assert torch.equal(own.clip_pixels(image), squashed[0][0])


@pytest.mark.parametrize("hw", [(480, 640), (640, 480), (96, 96), (200, 512)])
def test_a_mask_returns_to_the_place_it_was_seen_at(
    processor: Processor, hw: tuple[int, int]
) -> None:
    height, width = hw
    top, bottom, left, right = height // 4, height // 2, width // 2, width * 7 // 8
    truth = torch.zeros(height, width, dtype=torch.bool)
    truth[top:bottom, left:right] = True
    image = np.where(truth[..., None].numpy(), 255, 0).astype(np.uint8).repeat(3, 2)
    pixels = processor.sam_pixels(image)
    side = SAM * 4 // CONFIG.sam_vision["patch_size"]
    low_res = torch.nn.functional.interpolate(pixels[None, :1], (side, side), mode="bilinear")[0]
    mask = processor.full_size_masks(low_res, hw)[0] > 0
    assert (mask & truth).sum() / (mask | truth).sum() > 0.75


def test_half_precision_logits_are_scaled_in_float32(processor: Processor) -> None:
    low_res = torch.randn(2, 32, 32, generator=torch.manual_seed(0))
    full = processor.full_size_masks(low_res.bfloat16(), (480, 640))
    assert full.dtype == torch.float32
    assert full.shape == (2, 480, 640)
    assert torch.equal(full, processor.full_size_masks(low_res.bfloat16().float(), (480, 640)))


def test_no_masks_stay_no_masks(processor: Processor) -> None:
    assert processor.full_size_masks(torch.zeros(0, 32, 32), (480, 640)).shape == (
        0,
        480,
        640,
    )


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_refused(processor: Processor, image: np.ndarray) -> None:
    for preprocess in (processor.clip_pixels, processor.sam_pixels):
        with pytest.raises(ImageError, match="RGB array of uint8"):
            preprocess(image)
