"""Quantised models find the masks that full precision finds."""

from __future__ import annotations

import sys

import pytest
import test_model_parity as parity
import torch
from model_samples import small_lisa
from torch import nn

from lisa_ros.errors import CheckpointError
from lisa_ros.model.checkpoint import SHIPPED, load
from lisa_ros.model.quantization import quantize

# Random weights leave many logits next to zero, so a few percent of the pixels flip for little;
# a state read one position off gives an IoU of about 0.6.
LEAST_IOU = {"int8": 0.96, "int4": 0.8, "nf4": 0.7}
METHODS = [
    pytest.param("int8", id="int8"),
    pytest.param("int4", id="int4"),
    pytest.param("nf4", id="nf4"),
]
FORWARD = [name for name in parity.CASES if "forward" in name]


def loaded(path, method: str):
    package = "bitsandbytes" if method == "nf4" else "torchao"
    pytest.importorskip(package, reason=f"{package} is not installed")
    return load(path, quantization=method)


def iou(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a & b).sum() / (a | b).sum()).item()


@pytest.mark.parametrize("method", METHODS)
def test_masks_on_the_golden_images(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quantized = loaded(parity.DATA / "checkpoint", method)
    for name in FORWARD:
        expected = parity.read_case(name).expected("pred_masks") > 0
        monkeypatch.setattr(parity, "golden", lambda: quantized)
        found = parity.computed(name)["pred_masks"] > 0
        assert iou(found, expected) > LEAST_IOU[method], name


@pytest.mark.skipif(not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree")
@pytest.mark.parametrize("method", METHODS)
def test_masks_of_nano(method: str) -> None:
    from test_model_checkpoint import mask_of

    expected = mask_of(load("nano"), "the red mug Please respond with segmentation mask.") > 0
    found = (
        mask_of(loaded("nano", method), "the red mug Please respond with segmentation mask.") > 0
    )
    assert not (expected | found).any() or iou(found, expected) > LEAST_IOU[method]


@pytest.mark.parametrize("method", METHODS)
def test_only_the_layers_of_the_language_model_are_quantised(method: str) -> None:
    before = load(parity.DATA / "checkpoint").network
    after = loaded(parity.DATA / "checkpoint", method).network
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
        quantize(small_lisa().network, method)
