"""Weights in fewer bytes: quantized models find the masks that full precision finds, and half
precision without instructions for it is stored narrow and computed in float32."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import mask_of, noise_image, small_lisa
from official_layout import GOLDEN
from parity_samples import golden_ious, iou
from PIL import Image
from torch import nn

from lisa_ros.demo.recorded_camera import IMAGE, read_questions, read_recording
from lisa_ros.engine import Engine
from lisa_ros.errors import CheckpointError
from lisa_ros.model import checkpoint, quantization
from lisa_ros.model.checkpoint import Lisa, load
from lisa_ros.model.config import SHIPPED
from lisa_ros.model.prompt import MODE_SUFFIXES
from lisa_ros.model.quantization import choose, quantize

# Random weights leave many logits next to zero, so a few percent of the pixels flip for little;
# a state read one position off gives an IoU of 0.62 to 0.76.
LEAST_IOU = {"int8": 0.96, "fp8": 0.8, "int4": 0.8, "nf4": 0.7}
NOISE = noise_image(60, 80)
METHODS = [
    pytest.param("int8", id="int8"),
    pytest.param("fp8", id="fp8"),
    pytest.param("int4", id="int4"),
    pytest.param("nf4", id="nf4"),
]


def loaded(path, method: str):
    package = "bitsandbytes" if method == "nf4" else "torchao"
    pytest.importorskip(package, reason=f"{package} is not installed")
    return load(path, quantization=method)


@pytest.mark.parametrize("method", METHODS)
def test_masks_on_the_golden_images(method: str) -> None:
    for name, overlap in golden_ious(loaded(GOLDEN, method)).items():
        assert overlap > LEAST_IOU[method], name


@pytest.mark.parametrize(("dtype", "least"), [(torch.bfloat16, 0.95), (torch.float16, 0.99)])
def test_half_precision_on_the_golden_images(dtype: torch.dtype, least: float) -> None:
    for name, overlap in golden_ious(load(GOLDEN, dtype=dtype)).items():
        assert overlap > least, name


needs_nano = pytest.mark.skipif(
    not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree"
)


def nano_masks(lisa: Lisa) -> list[torch.Tensor]:
    """Masks for the demonstration's questions about one thing, in its recorded images."""
    scenes = {scene.seed: scene.frames[0][IMAGE].data for scene in read_recording()}
    masks = []
    for question in read_questions():
        if len(question.objects) == 1:
            image = Image.open(io.BytesIO(bytes(scenes[question.seed]))).convert("RGB")
            words = question.instruction + MODE_SUFFIXES["mask"]
            masks.append(mask_of(lisa, words, np.asarray(image)) > 0)
    return masks


def check_masks_of_nano(lisa: Lisa, name: str) -> None:
    """Where the model wavers between two things, a rounded weight may tip the scales."""
    expected, found = nano_masks(load("nano")), nano_masks(lisa)
    assert len(expected) > 5
    assert all(mask.any() for mask in expected)
    overlaps = [iou(a, b) for a, b in zip(found, expected, strict=True)]
    median, mean = np.median(overlaps), np.mean(overlaps)
    print(f"{name}: median {median:.3f}, mean {mean:.3f} of {len(overlaps)}")  # shown by pytest -s
    assert median > 0.9 and mean > 0.85


@needs_nano
@pytest.mark.parametrize("method", METHODS)
def test_masks_of_nano(method: str) -> None:
    check_masks_of_nano(loaded("nano", method), method)


@needs_nano
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_masks_of_nano_in_half_precision(dtype: torch.dtype) -> None:
    check_masks_of_nano(load("nano", dtype=dtype), str(dtype))


@pytest.mark.parametrize("method", METHODS)
def test_only_the_layers_of_the_language_model_are_quantized(method: str) -> None:
    before = load(GOLDEN).network
    after = loaded(GOLDEN, method).network
    for name, module in after.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        inside = name.startswith("language_model.layers.")
        plain = type(module) is nn.Linear and type(module.weight.data) is torch.Tensor
        assert plain != inside, name
        if plain:
            assert torch.equal(module.weight, before.get_submodule(name).weight), name


@pytest.mark.parametrize(("method", "package"), [("int8", "torchao"), ("nf4", "bitsandbytes")])
def test_a_package_that_is_not_there_is_named(
    method: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules, package, f"{package}.nn", f"{package}.quantization"]:
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(CheckpointError, match=f"{method} needs the package {package}"):
        quantize(small_lisa().network, method, torch.device("cpu"))


@pytest.mark.parametrize(
    ("free_gb", "expected"), [(13, None), (12, "int8"), (8.3, "int8"), (8, "int4"), (1, "int4")]
)
def test_auto_takes_the_mildest_method_that_fits(
    free_gb: float, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of 10 GB in bfloat16, of which 8 GB are layers, and 2.1 GB to work in."""
    network = nn.Module()
    network.language_model = nn.Module()
    network.language_model.layers = nn.Linear(2_000_000, 2_000, bias=False, device="meta")
    network.lm_head = nn.Linear(1_000_000, 1_000, bias=False, device="meta")
    free = (int(free_gb * 1e9), int(80e9))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: free)
    assert choose(network, torch.bfloat16, torch.device("cuda")) == expected
    assert choose(network, torch.bfloat16, torch.device("cpu")) is None


# half precision on processors without instructions for it


def states_and_mask(lisa: checkpoint.Lisa) -> tuple[torch.Tensor, torch.Tensor]:
    """What the whole network computes for one prompt: states (1, T, H) and mask logits."""
    network, processor = lisa.network, lisa.processor
    with torch.inference_mode():
        view = network.encode_view(processor.clip_pixels(NOISE)[None])
        ids = torch.tensor([lisa.tokenizer.encode("<image> the red mug")])
        states = network(ids, view)
        frame = network.encode_frame(processor.sam_pixels(NOISE)[None])
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
    asked = [Engine(lisa).segment(NOISE, "the red mug") for lisa in (narrow, exact)]
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
