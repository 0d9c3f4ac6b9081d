"""Encoders of another input size, as the study of nano's sizes makes them."""

import pytest
import torch
from torch.nn import functional

from benchmarks.nano_studies import features, resized
from lisa_ros.model.checkpoint import load
from lisa_ros.model.config import SHIPPED

pytestmark = pytest.mark.skipif(
    not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree"
)


@pytest.mark.parametrize(("part", "size", "patch"), [("clip", 280, 20), ("sam", 240, 12)])
def test_an_encoder_for_smaller_images_begins_by_seeing_the_same(part, size, patch):
    lisa = load("nano")
    random = torch.Generator().manual_seed(0)
    blotches = 255 * torch.rand(2, 3, 12, 16, generator=random)
    rgb = functional.interpolate(blotches, (480, 640), mode="bicubic").clamp(0, 255)

    def seen(size, patch):
        with torch.inference_mode():
            return features(resized(lisa, part, size, patch), part, size, rgb)

    own = seen(size, patch)
    with torch.inference_mode():
        assert torch.allclose(own, features(lisa.network.float(), part, size, rgb), atol=1e-3)
    half = functional.cosine_similarity(seen(size // 2, patch // 2), own, dim=-1).mean()
    other = functional.cosine_similarity(own.flip(0), own, dim=-1).mean()
    assert half > 0.9 and half > other + 0.1, (half, other)
