"""Each stage of an answer by itself: its work, its time, and the least time that it could take."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import Machine, seconds
from lisa_ros.engine import Engine
from lisa_ros.engine.decoder import ForwardBatch
from lisa_ros.model.network import IMAGE_TOKEN

TRIES = 7


@dataclass(frozen=True)
class Stage:
    """One stage for one question about one frame."""

    name: str
    ms: float
    flop: float
    """operations, counted by torch"""
    bytes: float
    """weights, keys and values that must be read at least once"""

    def bound_ms(self, machine: Machine) -> float:
        """The least time on a machine: its arithmetic or its memory, whichever takes longer."""
        return 1000 * max(self.flop / machine.matmul_rate, self.bytes / machine.copy_bandwidth)


@torch.inference_mode()
def measure_stages(engine: Engine, image: np.ndarray, prompt: list[int]) -> list[Stage]:
    """Time and count all stages of an engine; nothing runs beside them."""
    network, processor, decoder = engine.network, engine.lisa.processor, engine.decoder
    device = engine.device
    clip = processor.clip_pixels(image)[None].to(device)
    pixels, resized_hw = processor.sam_pixels(image)
    view, frame = network.encode_view(clip)[0], network.encode_frame(pixels[None].to(device))
    embeds = network.embed_prompt(torch.tensor(prompt, device=device), view)[None]
    behind = len(prompt) - prompt.index(IMAGE_TOKEN) - 1
    length = embeds.shape[1]
    decoder.cache.ensure_capacity(1, length + 1)

    def masks() -> Tensor:
        prompts = network.seg_embeddings(embeds[0, -1:])[None]
        low_res, _ = network.decode_masks(frame, prompts)
        return processor.full_size_masks(low_res[0], resized_hw, image.shape[:2]) > 0

    def step() -> Tensor:
        return decoder.head(decoder.forward(ForwardBatch(embeds[:, -1:], [length])))

    layers = _bytes(network.language_model.layers.parameters())
    position = decoder.cache.data[:, :, 0, :, 0].nbytes
    head = _bytes(network.lm_head.parameters())
    work: list[tuple[str, Callable[[], object], Callable[[], object], float]] = [
        (
            "CLIP",
            lambda: engine.vision.clip_encoder(clip),
            lambda: network.encode_view(clip),
            _weights(network.vision_tower, network.mm_projector),
        ),
        (
            "SAM encoder",
            lambda: engine.vision.sam_encoder(pixels[None].to(device)),
            lambda: network.encode_frame(pixels[None].to(device)),
            _weights(network.image_encoder),
        ),
        (
            f"whole prompt, {length} positions",
            lambda: decoder.forward(ForwardBatch(embeds, [0])),
            lambda: network.language_model(inputs_embeds=embeds, use_cache=False),
            layers,
        ),
        (
            f"question behind the image, {behind} positions",
            lambda: decoder.forward(ForwardBatch(embeds[:, -behind:], [length - behind])),
            lambda: network.language_model(inputs_embeds=embeds[:, -behind:], use_cache=False),
            layers + position * length,
        ),
        (
            "one more token",
            step,
            lambda: network.lm_head(
                network.language_model(
                    inputs_embeds=embeds[:, -1:], use_cache=False
                ).last_hidden_state
            ),
            layers + head + position * length,
        ),
        ("mask", masks, masks, _weights(network.mask_decoder, network.text_hidden_fcs)),
    ]
    return [
        Stage(name, _median_ms(run, device), _flop(counted), size)
        for name, run, counted, size in work
    ]


def _median_ms(run: Callable[[], object], device: torch.device) -> float:
    run()
    return 1000 * median(seconds(run, device) for _ in range(TRIES))


def _flop(run: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def _weights(*modules: nn.Module) -> float:
    return _bytes(p for module in modules for p in module.parameters())


def _bytes(tensors: Iterable[Tensor]) -> float:
    return float(sum(t.nbytes for t in tensors))
