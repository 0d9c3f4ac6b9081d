"""Where training runs: on a processor or a GPU, alone or as one of several processes of torchrun.

Each process draws batches of its own, and the gradients are averaged; the losses call the parts of
the network one by one, which `DistributedDataParallel` (it wraps `forward`) does not foresee.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from lisa_ros.errors import LisaError

DEVICES = ("auto", "cpu", "cuda")
PATIENCE = timedelta(hours=12)  # the others wait while the first process renders
CPU = torch.device("cpu")
T = TypeVar("T")


@dataclass(frozen=True)
class Rank:
    """This process: its device, its number, and how many there are."""

    device: torch.device = CPU
    number: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """The first process writes and talks; the others only train."""
        return self.number == 0

    def wait(self) -> None:
        """Until every process has come this far."""
        if self.count > 1:
            distributed.barrier()

    def average(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace the gradients by their mean over all processes, which is the same in each."""
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def join_ranks(device: str) -> Rank:
    """This process's place; `device` is one of DEVICES. Raises LisaError without such a device."""
    if device == "cuda" and not torch.cuda.is_available():
        raise LisaError(
            "--device cuda: torch finds no GPU here; give --device cpu, or look whether"
            " `nvidia-smi` lists one and torch was installed with CUDA"
        )
    on_gpu = device != "cpu" and torch.cuda.is_available()
    place = CPU
    if on_gpu:
        place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(place)
    if not distributed.is_torchelastic_launched():
        return Rank(place)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    return Rank(place, distributed.get_rank(), distributed.get_world_size())


def own_share(cores: int) -> int:
    """How many of this machine's processor cores are for each of its processes."""
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))


def move(batch: T, device: torch.device) -> T:
    """The batch with all its tensors on `device`: tuples and dataclasses, however nested."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple):
        return tuple(move(part, device) for part in batch)
    if is_dataclass(batch):
        moved = {field.name: move(getattr(batch, field.name), device) for field in fields(batch)}
        return replace(batch, **moved)
    return batch
