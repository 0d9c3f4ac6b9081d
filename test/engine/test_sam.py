"""SAM's encoder with kept tables, against transformers' own."""

from __future__ import annotations

import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import SamVisionConfig
from transformers.models.sam.modeling_sam import SamVisionEncoder

from lisa_ros.engine import sam_encoder
from lisa_ros.engine.sam_encoder import SamEncoder, best_route


def encoder(grid: int, window: int, attention: str = "eager") -> SamVisionEncoder:
    """One layer with windows and one without; tables that are not zero."""
    torch.manual_seed(grid)
    config = SamVisionConfig(
        hidden_size=48,
        mlp_dim=64,
        num_hidden_layers=2,
        num_attention_heads=3,
        image_size=4 * grid,
        patch_size=4,
        window_size=window,
        global_attn_indexes=[1],
        output_channels=16,
        initializer_range=0.1,
    )
    config._attn_implementation = attention
    model = SamVisionEncoder(config).eval()
    for layer in model.layers:
        torch.nn.init.normal_(layer.attn.rel_pos_h)
        torch.nn.init.normal_(layer.attn.rel_pos_w)
    torch.nn.init.normal_(model.pos_embed)
    return model


@pytest.mark.parametrize("route", ("dense", "fold", "flex"))
@pytest.mark.parametrize(
    ("grid", "window"), [(16, 8), (20, 14), (32, 14)], ids=["even", "padded", "larger"]
)
@torch.inference_mode()
def test_every_route_is_transformers(
    route: str, grid: int, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # compiling needs a C++ compiler and a minute; the arithmetic is the same without
    monkeypatch.setattr(sam_encoder, "_compiled_flex_attention", lambda: flex_attention)
    model = encoder(grid, window)
    pixels = torch.randn(2, 3, 4 * grid, 4 * grid)
    expected = model(pixels).last_hidden_state
    ours = SamEncoder(model, route)(pixels)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("grid", "window"), [(16, 8), (20, 14), (32, 14)])
@torch.inference_mode()
def test_a_processors_features_are_transformers_to_the_last_bit(grid: int, window: int) -> None:
    model = encoder(grid, window, "sdpa")  # as a network is made
    pixels = torch.randn(2, 3, 4 * grid, 4 * grid)
    ours = SamEncoder(model, best_route(torch.device("cpu")))(pixels)
    assert torch.equal(ours, model(pixels).last_hidden_state)


@torch.inference_mode()
def test_large_images_go_through_a_processor_one_by_one_with_the_same_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sam_encoder, "CACHED_PIXELS", 3 * 64**2 - 1)
    model = encoder(16, 8, "sdpa")
    pixels = torch.randn(3, 3, 64, 64)
    expected = model(pixels).last_hidden_state
    batches: list[int] = []
    model.patch_embed.register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    assert torch.equal(SamEncoder(model, "dense")(pixels), expected)
    assert batches == [1, 1, 1]


@torch.inference_mode()
def test_an_encoder_without_relative_positions_is_transformers() -> None:
    config = encoder(20, 14).config
    config.use_rel_pos = False
    model = SamVisionEncoder(config).eval()
    pixels = torch.randn(2, 3, 80, 80)
    torch.testing.assert_close(SamEncoder(model, "dense")(pixels), model(pixels).last_hidden_state)


@torch.inference_mode()
def test_tables_of_another_size_are_stretched_as_transformers_does() -> None:
    model = encoder(16, 8)
    for layer in model.layers:
        layer.attn.rel_pos_h = torch.nn.Parameter(torch.randn(21, 16))
    pixels = torch.randn(1, 3, 64, 64)
    expected = model(pixels).last_hidden_state
    ours = SamEncoder(model, "dense")(pixels)
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
