"""The engine against answers that the reference implementation generated (test/data/parity)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from lisa_ros.engine import Engine, EngineConfig
from lisa_ros.engine.generation import Sequence, generate
from lisa_ros.model.checkpoint import Lisa, load

DATA = Path(__file__).parents[1] / "data" / "parity"
CASES = ("one_seg", "seg_last", "multi_seg", "eos", "no_seg")


class ScriptedTokenizer:
    """Gives the golden ids for any prompt: the golden set has no words, ids only."""

    def __init__(self, lisa: Lisa, prompt: list[int]) -> None:
        self.prompt, self.seg_id, self.eos_id = prompt, lisa.config.seg_token_id, 2

    def encode(self, prompt: str) -> list[int]:
        answered = prompt.rstrip().endswith("</s>")
        return [*self.prompt, 5, self.eos_id] if answered else self.prompt

    def decode(self, ids: list[int]) -> str:
        return " ".join("[SEG]" if i == self.seg_id else str(i) for i in ids if i != self.eos_id)


@cache
def golden() -> Lisa:
    return load(DATA / "checkpoint")


def case(name: str) -> tuple[dict[str, torch.Tensor], np.ndarray]:
    with safe_open(DATA / f"case_evaluate_{name}.safetensors", framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return tensors, np.asarray(Image.open(DATA / file.metadata()["image"]).convert("RGB"))


def engine_for(tensors: dict[str, torch.Tensor], **settings) -> Engine:
    prompt = tensors["input.input_ids"][0].tolist()
    lisa = replace(golden(), tokenizer=ScriptedTokenizer(golden(), prompt))
    return Engine(lisa, EngineConfig(**settings))


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_ids_and_states_are_the_references(name: str) -> None:
    tensors, image = case(name)
    engine = engine_for(tensors)
    network, processor = engine.network, engine.lisa.processor
    view = network.encode_view(processor.clip_pixels(image)[None])[0]
    prompt = tensors["input.input_ids"][0]
    row = Sequence(
        network.embed_prompt(prompt, view), length=0, limit=int(tensors["input.max_new_tokens"])
    )
    passes = list(generate(engine.decoder, [row], engine.criteria, lambda: ""))
    new = tensors["expected.output_ids"][0, len(prompt) :]
    assert row.ids == new.tolist()
    assert row.forwards <= len(new)
    logits = torch.cat([step.logits for steps in passes for step in steps])
    torch.testing.assert_close(logits, tensors["expected.step_logits"], atol=2e-4, rtol=0)
    states = torch.cat([step.states for steps in passes for step in steps])
    seg = states[new == engine.criteria.seg_id]
    embeddings = network.seg_embeddings(seg)
    torch.testing.assert_close(embeddings, tensors["expected.seg_embeddings"], atol=2e-4, rtol=0)


@pytest.mark.parametrize("drafts", (0, 32), ids=("no drafts", "drafts"))
@pytest.mark.parametrize("name", CASES)
def test_masks_are_the_references(name: str, drafts: int) -> None:
    """Equal but where the reference's logit is within the set's tolerance of zero."""
    tensors, image = case(name)
    engine = engine_for(tensors, draft_tokens=drafts)
    limit = int(tensors["input.max_new_tokens"])
    expected = tensors["expected.pred_masks"].numpy()
    for _ in range(2):  # the second time from the frame cache, and with the first answer as draft
        answer = engine.segment(image, "-", key="frame", max_new_tokens=limit)
        found = [instance.mask for instance in answer.instances]
        wanted = [logits for logits in expected if (logits > 0).any()]
        assert len(found) == len(wanted)
        for mask, logits in zip(found, wanted, strict=True):
            assert ((mask == (logits > 0)) | (np.abs(logits) < 1e-3)).all()
    assert answer.counters["sam_encodes"] == answer.counters["clip_encodes"] == 0


def test_mask_mode_is_the_teacher_forced_mask() -> None:
    """`[SEG]` as first new id: what mask mode takes without generating must be the same mask."""
    tensors, image = case("eos")
    answer = engine_for(tensors).segment(image, "-", mode="mask")
    logits = tensors["expected.pred_masks"][0].numpy()
    [instance] = answer.instances
    assert ((instance.mask == (logits > 0)) | (np.abs(logits) < 1e-3)).all()
    assert answer.counters["forwards"] == 1
    assert answer.counters["tokens"] == 0


@pytest.mark.parametrize("method", ("int8", "fp8", "int4"))
def test_a_quantized_model_is_decoded_like_any_other(method: str) -> None:
    """Its own answer with and without drafts and cache; how good it is is the model's matter."""
    pytest.importorskip("torchao", reason="torchao is not installed")
    tensors, image = case("one_seg")
    prompt = tensors["input.input_ids"][0].tolist()
    lisa = load(DATA / "checkpoint", quantization=method)
    lisa = replace(lisa, tokenizer=ScriptedTokenizer(lisa, prompt))
    plain, drafting = Engine(lisa, EngineConfig(draft_tokens=0)), Engine(lisa)
    expected = plain.segment(image, "-", max_new_tokens=14)
    drafting.segment(image, "-", key=1, max_new_tokens=14)
    again = drafting.segment(image, "-", key=1, max_new_tokens=14)
    assert expected.counters["forwards"] == expected.counters["tokens"]
    assert again.counters["forwards"] == 1
    assert again.text == expected.text
    assert len(again.instances) == len(expected.instances)
    for a, b in zip(again.instances, expected.instances, strict=True):
        assert (a.mask == b.mask).mean() > 0.99
