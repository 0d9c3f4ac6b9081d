"""What only a GPU can show: graphs, the second stream, memory that is given back."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from benchmarks.presets import random_lisa, teach
from lisa_ros.engine import Engine, EngineConfig, Question
from lisa_ros.engine.sam_encoder import SamEncoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")


@pytest.fixture(autouse=True)
def full_precision() -> None:
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def images(count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(count)]


def engines(**settings) -> tuple[Engine, Engine]:
    """The same model on the processor and on the GPU."""
    made = []
    for device in ("cpu", "cuda"):
        lisa = random_lisa("tiny")
        lisa.network.to(device)
        teach(lisa, [10, 11, 12, lisa.tokenizer.seg_id, 13, 14, 15, 16])
        made.append(Engine(lisa, EngineConfig(**settings)))
    return made[0], made[1]


@pytest.mark.parametrize("drafts", (0, 128), ids=("no drafts", "drafts"))
def test_the_gpu_answers_like_the_processor(drafts: int) -> None:
    cpu, gpu = engines(draft_tokens=drafts)
    for round_ in range(3):  # first captured, then replayed, then from the frame cache
        for key, image in enumerate(images(2)):
            expected = cpu.segment(image, f"the mug {round_}", key=key, max_new_tokens=8)
            answer = gpu.segment(image, f"the mug {round_}", key=key, max_new_tokens=8)
            assert answer.transcript == expected.transcript
            assert answer.counters == expected.counters
            for a, b in zip(answer.instances, expected.instances, strict=True):
                assert (a.mask == b.mask).mean() > 0.999


def test_a_batch_on_the_gpu_answers_like_one_by_one() -> None:
    _, gpu = engines()
    questions = [Question(image, "the mug", max_new_tokens=8) for image in images(5)]
    together = gpu.segment_batch(questions)
    for a, question in zip(together, questions, strict=True):
        b = gpu.segment_batch([question])[0]
        assert a.transcript == b.transcript
        assert (a.instances[0].mask == b.instances[0].mask).mean() > 0.999


@pytest.mark.parametrize("route", ("dense", "fold", "flex"))
@torch.inference_mode()
def test_every_route_of_sam_attention(route: str) -> None:
    encoder = random_lisa("tiny", device="cuda").network.image_encoder
    pixels = torch.randn(2, 3, 64, 64, device="cuda")
    expected = encoder(pixels).last_hidden_state
    torch.testing.assert_close(SamEncoder(encoder, route)(pixels), expected, atol=1e-4, rtol=1e-4)


def test_memory_is_given_back_when_an_engine_is_dropped() -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    _, gpu = engines()
    gpu.warm_up()
    gpu.segment(images(1)[0], "the mug", key=1)
    assert torch.cuda.memory_allocated() > before
    del gpu, _
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= before + 2**20


def test_the_bench_preset_computes_in_bfloat16() -> None:
    lisa = random_lisa("tiny", device="cuda", dtype=torch.bfloat16)
    teach(lisa, [10, 11, lisa.tokenizer.seg_id, 12])
    answer = Engine(lisa).segment(images(1)[0], "the mug", max_new_tokens=4)
    assert answer.counters["tokens"] == 4
