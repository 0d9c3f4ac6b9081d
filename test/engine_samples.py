"""Engines whose model says what a test wants to hear."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from benchmarks.presets import random_lisa
from lisa_ros.engine import Engine, EngineConfig, Question
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.prompt import build_prompt


def drawn_image(seed: int = 0, height: int = 48, width: int = 64) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)


def speaker(script: str, *, refusal: str = "") -> Lisa:
    """A LISA that answers everything with `script`; its words must not repeat.

    The layers add nothing, so that a state depends on the latest token alone, and the head leads
    from every token of the script to the next.
    """
    lisa = random_lisa("tiny")
    network, tokenizer = lisa.network, lisa.tokenizer
    prompt = tokenizer.encode(build_prompt("llava_v1", [("-", None)], True))
    ids = tokenizer.encode(build_prompt("llava_v1", [("-", script)], True))[len(prompt) - 1 :]
    assert len(set(ids)) == len(ids), "the words of a script must not repeat"
    with torch.no_grad():
        for layer in network.language_model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        embeddings = network.language_model.embed_tokens.weight
        network.lm_head.weight.zero_()
        network.lm_head.weight[ids[1:]] = embeddings[ids[:-1]]
    return replace(lisa, config=replace(lisa.config, refusal_prefix=refusal))


def sighted(seed: int = 0) -> Lisa:
    """A random LISA whose answers depend on all that it is shown, which `test_sight.py` proves.

    Its weights are as large as their inputs are many, so that no part drowns another.
    """
    lisa = random_lisa("tiny", seed=seed)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in lisa.network.named_parameters():
            if weight.dim() > 1 and "norm" not in name:
                std = 1.0 if "embed" in name else weight[0].numel() ** -0.5
                weight.normal_(std=std, generator=draw)
    return lisa


def blocks(seed: int, height: int = 48, width: int = 64) -> np.ndarray:
    """An image of coloured squares, which small encoders tell from another."""
    shape = (-(-height // 8), -(-width // 8), 3)
    colors = np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)
    return np.ascontiguousarray(colors.repeat(8, 0).repeat(8, 1)[:height, :width])


def engine_saying(script: str, *, refusal: str = "", **settings) -> Engine:
    return Engine(speaker(script, refusal=refusal), EngineConfig(**settings))


def record_fed(engine: Engine) -> list[int]:
    fed, forward = [], engine.decoder.forward
    engine.decoder.forward = lambda batch: fed.append(batch.embeds.shape[1]) or forward(batch)
    return fed


def random_questions() -> list[Question]:
    ask = "the red mug", "what can hold water, and why?", "is there a spoon on the table?"
    return [
        Question(drawn_image(0), ask[0], key="a", max_new_tokens=9),
        Question(drawn_image(0), ask[1], key="a", mode="explain", max_new_tokens=3),
        Question(drawn_image(1, 64, 48), ask[2], key="b", mode="text", max_new_tokens=14),
        Question(drawn_image(0), ask[2], key="a", mode="mask"),
        Question(drawn_image(2), ask[0], max_new_tokens=12),
    ]
