"""What is chosen when a model is loaded: device, threads, and what is said where it cannot be."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from model_samples import small_lisa

from lisa_ros.engine import EngineConfig, load, load_engine
from lisa_ros.errors import LisaError
from lisa_ros.model import checkpoint, quantization


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small")
    checkpoint.save(small_lisa(), path)
    return path


@pytest.fixture
def torch_threads() -> list[int]:
    """The numbers of threads are put back after the test."""
    before = torch.get_num_threads()
    yield []
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("light_work", "given", "asked", "expected"),
    [
        (1e99, None, None, 1),  # a small model
        (0, None, None, 3),  # a large one: all cores that the process may use
        (0, "2,1", None, 2),  # the user's own word
        (0, "2", 5, 5),  # the engine's configuration
        (0, "nonsense", None, 3),
    ],
)
def test_threads_fit_the_model_and_the_user_wins(
    light_work, given, asked, expected, folder, torch_threads, monkeypatch
) -> None:
    monkeypatch.setattr(load, "LIGHT_WORK", light_work)
    monkeypatch.setattr(load, "usable_cores", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    load_engine(folder, device="cpu", config=EngineConfig(threads=asked))
    assert torch.get_num_threads() == expected


@pytest.mark.parametrize(
    ("affinity", "quota", "expected"),
    [
        ({0, 1, 2, 3}, None, 4),
        ({0, 1, 2, 3}, "max 100000", 4),
        ({0, 1, 2, 3}, "150000 100000", 2),
        ({0, 1, 2, 3}, "50000 100000", 1),  # half a core
        ({5}, "800000 100000", 1),
    ],
)
def test_cores_are_those_that_may_be_used(affinity, quota, expected, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: affinity, raising=False)
    monkeypatch.setattr(load, "CGROUP", tmp_path)
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert load.usable_cores() == expected


def test_more_work_is_more_multiplications() -> None:
    """nano's kind is light; SAM at 1,024 pixels is not, though it may have fewer weights."""
    small = small_lisa()
    work = load.multiplications(small)
    assert work < load.LIGHT_WORK
    small.network.image_encoder.config.image_size *= 4
    assert load.multiplications(small) > 4 * work


def test_a_gpu_that_is_not_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(load.ModelUnavailable, match="cuda:1, but PyTorch finds no GPU"):
        load_engine(folder, device="cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(load.ModelUnavailable, match="no cuda:1: PyTorch finds 1 GPU"):
        load_engine(folder, device="cuda:1")


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        *(({"model": model}, f"^{model!r} names no model") for model in (None, "", 5)),
        ({"model": __file__}, r"test_load\.py is a file, and a model is a folder"),
        *(({"dtype": dtype}, "unknown dtype .*; use auto, float32, bf") for dtype in ("x", None)),
        *(({"device": device}, "there is no device") for device in ("x", None, 0)),
        *(
            ({"quantization": method}, "unknown quantization .*; use none, auto, int8, fp8, int4")
            for method in ("x", 4)
        ),
        ({"vision_tower": 5}, "5 is no CLIP tower: there is no folder 5"),
    ],
)
def test_what_names_no_choice_is_a_sentence(wrong: dict, sentence: str, folder: Path) -> None:
    with pytest.raises(LisaError, match=sentence):
        load_engine(**{"model": folder, "device": "cpu", **wrong})


def test_quantization_none_is_none(folder: Path, torch_threads) -> None:
    """As the node's parameter says it."""
    network = load_engine(folder, device="cpu", quantization="none").network
    assert {p.dtype for p in network.parameters()} == {torch.float32}


def test_too_little_memory_is_a_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoint, "fill", full)
    with pytest.raises(load.ModelUnavailable, match=r"not enough memory on cpu .* int8"):
        load_engine(folder, device="cpu")


@pytest.mark.parametrize("natively", [True, False])
def test_mixed_is_sam_alone_in_bfloat16_where_the_processor_multiplies_it(
    natively: bool, folder: Path, torch_threads, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(quantization, "multiplies_natively", lambda *_: natively)
    engine = load_engine(folder, device="cpu", dtype="mixed")
    kinds = {
        name.partition(".")[0] if ".neck." not in name else "neck": p.dtype
        for name, p in engine.network.named_parameters()
    }
    assert kinds.pop("image_encoder") == (torch.bfloat16 if natively else torch.float32)
    assert set(kinds.values()) == {torch.float32}
    assert ("left in float32" in caplog.text) == (not natively)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    whole = load_engine(folder, device="cpu").segment(image, "the mug", mode="mask")
    answer = engine.segment(image, "the mug", mode="mask")
    masks = [a.instances[0].mask for a in (whole, answer)]
    assert (masks[0] == masks[1]).mean() > 0.95
