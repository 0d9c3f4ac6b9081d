"""What this machine can do at best, measured: the roof that results are held against."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch

COPIED = {"cpu": 256 * 2**20, "cuda": 2 * 2**30}  # bytes, far beyond any cache
SQUARE = {"cpu": 1536, "cuda": 8192}  # side of the matrices that are multiplied


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
def measure(device: torch.device, dtype: torch.dtype, tries: int = 7) -> Machine:
    """Measure the two rates; the best of some tries is what the machine can do."""
    size = COPIED[device.type]
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = SQUARE[device.type]
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    copying = min(seconds(lambda: target.copy_(source), device) for _ in range(tries))
    multiplying = min(seconds(lambda: a @ b, device) for _ in range(tries))
    return Machine(
        name=_name(device),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
        dtype=str(dtype).removeprefix("torch."),
        copy_bandwidth=2 * size / copying,
        matmul_rate=2 * side**3 / multiplying,
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
