"""Half precision on processors without instructions for it: stored narrow, computed in float32."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from model_samples import noise_image, small_lisa
from torch import nn

from lisa_ros.engine import Engine
from lisa_ros.model import checkpoint, quantization

IMAGE = noise_image(60, 80)


def states_and_mask(lisa: checkpoint.Lisa) -> tuple[torch.Tensor, torch.Tensor]:
    """What the whole network computes for one prompt: states (1, T, H) and mask logits."""
    network, processor = lisa.network, lisa.processor
    with torch.inference_mode():
        view = network.encode_view(processor.clip_pixels(IMAGE)[None])
        ids = torch.tensor([lisa.tokenizer.encode("<image> the red mug")])
        states = network(ids, view)
        frame = network.encode_frame(processor.sam_pixels(IMAGE)[0][None])
        return states, network.decode_masks(frame, network.seg_embeddings(states[:, -1:]))[0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint.save(small_lisa(), tmp_path)
    return tmp_path


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_equals_float32_with_rounded_weights(
    folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "multiplies_natively", lambda *_: False)
    monkeypatch.setattr(quantization, "PIECE", 1000)  # several pieces, the last of them smaller
    narrow = checkpoint.load(folder, dtype=dtype)
    exact = checkpoint.load(folder)
    stored = narrow.network.state_dict()
    exact.network.load_state_dict({name: tensor.float() for name, tensor in stored.items()})
    for found, expected in zip(states_and_mask(narrow), states_and_mask(exact), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    asked = [Engine(lisa).segment(IMAGE, "the red mug") for lisa in (narrow, exact)]
    assert asked[0].transcript == asked[1].transcript


def test_large_weights_stay_narrow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "multiplies_natively", lambda *_: False)
    lisa = checkpoint.load(folder, dtype=torch.bfloat16)
    states_and_mask(lisa)
    network = lisa.network
    maps = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert {m.weight.dtype for m in maps} == {torch.bfloat16}
    assert network.language_model.embed_tokens.weight.dtype == torch.bfloat16
    assert {m.bias.dtype for m in maps if m.bias is not None} == {torch.float32}


@pytest.mark.parametrize(
    ("able", "dtype", "device", "expected"),
    [
        ({"avx2": True}, torch.bfloat16, "cpu", False),
        ({"avx2": True}, torch.float32, "cpu", True),
        ({"avx2": True}, torch.bfloat16, "cuda", True),
        ({"avx512_bf16": True}, torch.bfloat16, "cpu", True),
        ({"avx512_bf16": True}, torch.float16, "cpu", False),
        ({"fp16_arith": True, "bf16": False}, torch.float16, "cpu", True),
        ({"fp16_arith": True, "bf16": False}, torch.bfloat16, "cpu", False),
    ],
)
def test_which_processors_multiply_half_precision(
    able: dict[str, bool],
    dtype: torch.dtype,
    device: str,
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert quantization.multiplies_natively(dtype, torch.device(device)) is expected
