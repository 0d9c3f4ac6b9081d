"""The benchmark compares like with like, and its command works."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lisa_ros.bench import baselines
from lisa_ros.bench.machine import Machine
from lisa_ros.bench.presets import random_lisa, teach
from lisa_ros.bench.stages import Stage
from lisa_ros.cli import main
from lisa_ros.engine import Engine, Question


@pytest.mark.parametrize("schedule", (baselines.reference, baselines.library))
def test_baselines_give_the_engines_answer(schedule: baselines.Schedule) -> None:
    lisa = random_lisa("tiny")
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    ids = [10, 11, lisa.tokenizer.seg_id, 12, 13, 14]
    teach(lisa, ids)
    prompt = Engine(lisa).prompts.ids(Question(image, "the mug"))
    outcome = schedule(lisa, image, prompt, len(ids))
    answer = Engine(lisa).segment(image, "the mug", max_new_tokens=len(ids))
    assert outcome.ids == ids
    assert answer.counters["tokens"] == len(ids)
    [instance], [logits] = answer.instances, outcome.masks.numpy()
    assert ((instance.mask == (logits > 0)) | (np.abs(logits) < 1e-3)).all()


def test_a_taught_answer_must_be_a_chain() -> None:
    with pytest.raises(ValueError, match="twice"):
        teach(random_lisa("tiny"), [10, 11, 10])


def test_presets_compute_in_the_precision_that_is_asked_for() -> None:
    network = random_lisa("tiny", dtype=torch.bfloat16).network
    assert network.lm_head.weight.dtype == torch.bfloat16
    assert network.image_encoder.neck.conv1.weight.dtype == torch.float32


def test_a_bound_is_set_by_what_takes_longer() -> None:
    machine = Machine("m", "t", 1, "float32", copy_bandwidth=1e9, matmul_rate=1e9)
    assert Stage("arithmetic", 9.0, flop=2e6, bytes=1e6).bound_ms(machine) == 2
    assert Stage("memory", 9.0, flop=1e6, bytes=3e6).bound_ms(machine) == 3


def test_the_command_prints_tables_and_writes_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    numbers = tmp_path / "bench.json"
    arguments = ["--presets", "tiny", "--rounds", "1", "--lengths", "8", "--json", str(numbers)]
    assert main(["bench", "--device", "cpu", *arguments]) == 0
    printed = capsys.readouterr().out
    for text in ("reference schedule", "transformers generate", "of the roof", "n-th question"):
        assert text in printed
    [preset] = json.loads(numbers.read_text())["presets"]
    passes = {timing["case"]: timing["forwards"] for timing in preset["timings"]}
    assert passes["reference schedule"] == passes["engine, known frame"] == 8
    assert passes["engine, standing question"] == passes["engine, template, new frame"] == 1
    assert passes["engine, mask mode, new frame"] == 1
    assert len(preset["stages"]) == 6


def test_a_length_that_has_no_room_for_the_mask_is_refused(capsys: pytest.CaptureFixture) -> None:
    assert main(["bench", "--presets", "tiny", "--lengths", "3"]) == 2
    assert "tokens" in capsys.readouterr().err
