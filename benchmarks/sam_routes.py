"""Which way to compute SAM's image encoder pays at which size, on this machine: the choice of
`lisa_ros.engine.sam_encoder.best_route` is argued from this table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.measure import Machine, measure_machine, seconds
from benchmarks.presets import random_lisa
from lisa_ros.engine.load import default_threads
from lisa_ros.engine.sam_encoder import Route, SamEncoder, best_route
from lisa_ros.model.quantization import multiplies_natively
from lisa_ros.text_tables import markdown_table

LIBRARY = "transformers"
ROUTES: tuple[Route, ...] = ("dense", "fold")


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
        # 1. the same weights in each precision, the same picture
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
