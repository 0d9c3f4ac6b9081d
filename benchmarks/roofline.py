"""What a machine can do at best, each stage of the network against that roof, and the ways to
compute SAM's image encoder, from whose table `lisa_ros.engine.sam_encoder.best_route` is argued."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.presets import random_lisa
from lisa_ros.engine import Engine
from lisa_ros.engine.decoder import ForwardBatch
from lisa_ros.engine.load import default_threads
from lisa_ros.engine.sam_encoder import Route, SamEncoder, best_route
from lisa_ros.model.network import IMAGE_TOKEN
from lisa_ros.model.quantization import multiplies_natively
from lisa_ros.text_tables import markdown_table

COPIED = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}  # bytes, far beyond any cache
TRIES = 7
SQUARE = {"cpu": 1536, "cuda": 8192}  # side of the matrices that are multiplied
LIBRARY = "transformers"
ROUTES: tuple[Route, ...] = ("dense", "fold")


@dataclass(frozen=True)
class Machine:
    """One device in one precision."""

    name: str
    torch: str
    threads: int
    dtype: str
    copy_bandwidth: float
    """bytes per second, read and written ones together"""
    matmul_rate: float
    """operations per second in a product of large square matrices"""
    load: float
    """the system's load average of the last minute, when the measurement began"""


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Wall time of one run, with everything that was launched finished."""
    synchronize(device)
    begin = perf_counter()
    work()
    synchronize(device)
    return perf_counter() - begin


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def measure_machine(device: torch.device, dtype: torch.dtype) -> Machine:
    """Measure the two rates; the best of some tries is what the machine can do."""
    size = COPIED[device.type]
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = SQUARE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    copying = min(seconds(lambda: target.copy_(source), device) for _ in range(TRIES))
    multiplying = min(seconds(lambda: a @ b, device) for _ in range(TRIES))
    return Machine(
        name=_name(device),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        copy_bandwidth=2 * size / copying,
        matmul_rate=2 * side**3 / multiplying,
        load=os.getloadavg()[0],
    )


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@dataclass(frozen=True)
class StageCost:
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
def measure_stages(engine: Engine, image: np.ndarray, prompt: list[int]) -> list[StageCost]:
    """Time and count all stages of an engine; nothing runs beside them."""
    network, processor, decoder = engine.network, engine.lisa.processor, engine.decoder
    device = engine.device
    clip = processor.clip_pixels(image)[None].to(device)
    pixels = processor.sam_pixels(image)
    view, frame = network.encode_view(clip)[0], network.encode_frame(pixels[None].to(device))
    embeds = network.embed_prompt(torch.tensor(prompt, device=device), view)[None]
    behind = len(prompt) - prompt.index(IMAGE_TOKEN) - 1
    length = embeds.shape[1]
    decoder.cache.ensure_capacity(1, length + 1)

    def masks() -> Tensor:
        prompts = network.seg_embeddings(embeds[0, -1:])[None]
        low_res, _ = network.decode_masks(frame, prompts)
        return processor.full_size_masks(low_res[0], image.shape[:2]) > 0

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
            weight_bytes(network.vision_tower, network.mm_projector),
        ),
        (
            "SAM encoder",
            lambda: engine.vision.sam_encoder(pixels[None].to(device)),
            lambda: network.encode_frame(pixels[None].to(device)),
            weight_bytes(network.image_encoder),
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
        ("mask", masks, masks, weight_bytes(network.mask_decoder, network.text_hidden_fcs)),
    ]
    return [
        StageCost(name, _median_ms(run, device), count_flop(counted), size)
        for name, run, counted, size in work
    ]


def _median_ms(run: Callable[[], object], device: torch.device) -> float:
    run()
    return 1000 * median(seconds(run, device) for _ in range(TRIES))


def count_flop(run: Callable[[], object]) -> float:
    """Operations of a run, counted by torch; its counter misses a processor's fused attention."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        run()
    return float(counter.get_total_flops())


def weight_bytes(*modules: nn.Module) -> float:
    """Of the parameters of some modules."""
    return _bytes(p for module in modules for p in module.parameters())


def _bytes(tensors: Iterable[Tensor]) -> float:
    return float(sum(t.nbytes for t in tensors))


@dataclass(frozen=True)
class RouteTiming:
    """One way to encode one image at one size in one precision."""

    preset: str
    pixels: int
    machine: Machine
    route: str
    ms: float
    gain: float
    """how many times faster than transformers' module in float32"""
    difference: float
    """largest difference of a feature to transformers' in the same precision, over the spread"""


@torch.inference_mode()
def measure_routes(
    presets: Sequence[str], device: torch.device, rounds: int, threads: int | None = None
) -> list[RouteTiming]:
    """Time all routes in turns, in float32 and, where the machine multiplies it, in bfloat16.

    `threads`: None: all cores, or `OMP_NUM_THREADS`.
    """
    torch.set_num_threads(threads or default_threads(inf))
    dtypes = [d for d in (torch.float32, torch.bfloat16) if multiplies_natively(d, device)]
    machines = {dtype: measure_machine(device, dtype) for dtype in dtypes}
    timings = []
    for preset in presets:
        # 1. the same weights in each precision, the same image
        runs: dict[tuple[torch.dtype, str], Callable[[], Tensor]] = {}
        for dtype in dtypes:
            network = random_lisa(preset, device=device, sam_dtype=dtype).network
            size = network.image_encoder.config.image_size
            torch.manual_seed(0)
            pixels = torch.randn(1, 3, size, size, device=device)
            runs[dtype, LIBRARY] = partial(network.encode_frame, pixels)
            for route in _routes(network.image_encoder, device):
                runs[dtype, route] = partial(SamEncoder(network.image_encoder, route), pixels)
        # 2. once to warm up and to compare, then in turns, so that a busy moment hits all of them
        features = {name: run().float() for name, run in runs.items()}
        times = {name: [] for name in runs}
        for _ in range(rounds):
            for name, run in runs.items():
                times[name].append(1000 * seconds(run, device))
        whole = median(times[torch.float32, LIBRARY])
        for (dtype, route), values in times.items():
            expected = features[dtype, LIBRARY]
            difference = (features[dtype, route] - expected).abs().max() / expected.std()
            ms = median(values)
            timings.append(
                RouteTiming(preset, size, machines[dtype], route, ms, whole / ms, float(difference))
            )
    return timings


def _routes(encoder: nn.Module, device: torch.device) -> Sequence[Route]:
    if not encoder.config.use_rel_pos:
        return ("dense",)  # nothing is added, so all routes are one
    return tuple(dict.fromkeys((*ROUTES, best_route(device))))


def route_table(timings: Sequence[RouteTiming]) -> str:
    """The timings as a table in Markdown, the machine above it."""
    machines = {t.machine.dtype: t.machine for t in timings}
    first = next(iter(machines.values()))
    rates = ", ".join(f"{m.matmul_rate / 1e9:.0f} GFLOP/s in {m.dtype}" for m in machines.values())
    rows = [
        [
            t.preset,
            str(t.pixels),
            t.machine.dtype,
            t.route,
            f"{t.ms:.1f}",
            f"{t.gain:.2f}x",
            f"{t.difference:.1e}" if t.difference else "0",
        ]
        for t in timings
    ]
    head = ["preset", "pixels", "dtype", "route", "ms", "gain", "difference"]
    about = f"{first.name}, {first.threads} threads, {rates}, load average {first.load:.1f}"
    return f"{about}\n\n{markdown_table(head, rows)}"
