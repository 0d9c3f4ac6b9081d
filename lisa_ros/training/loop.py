"""The loop that all stages share: prefetching, schedule, logging, checkpoints, exact resume."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, Protocol

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

from lisa_ros.model.network import LisaNetwork
from lisa_ros.training.ranks import Rank, move, own_share
from lisa_tabletop.training.optimizer import Optimizer

LOG_EVERY, SAVE_EVERY = 20, 200
MOST_PROCESSES = 12  # that prepare batches for one GPU
ALONE = Rank()


class Stage(Protocol):
    """A stage prepares batches (on a thread of its own) and turns one into a loss."""

    def prepare(self, random: np.random.Generator) -> Any: ...

    def loss(self, network: LisaNetwork, batch: Any) -> tuple[Tensor, dict[str, float]]: ...


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then a cosine to a tenth of the peak."""

    steps: int
    peak: float
    warm_up: int = 100

    def rate(self, step: int) -> float:
        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.peak * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, done))))


def train(
    name: str,
    network: LisaNetwork,
    stage: Stage,
    modules: Sequence[nn.Module],
    schedule: Schedule,
    folder: Path,
    seed: int,
    rank: Rank = ALONE,
) -> None:
    """Train the parameters of `modules` until the schedule ends, resuming where it stopped.

    Step k of a stage draws its batch from a generator seeded by (seed, name, k, rank), so that an
    interrupted run goes on exactly as if it had not been interrupted. On a GPU the products are
    computed in bfloat16.
    """
    network.to(rank.device)
    if isinstance(stage, nn.Module):
        stage.to(rank.device)
    optimizer = Optimizer(modules)
    parameters = optimizer.parameters
    checkpoint = folder / f"{name}.pt"
    start = _resume(checkpoint, network, stage, optimizer, rank.device)
    writer = SummaryWriter(str(folder / "log" / name)) if rank.first else None
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[logs]}"),
    )
    network.train()
    with Progress(*columns, disable=not rank.first) as progress:
        task = progress.add_task(name, total=schedule.steps, completed=start, logs="")
        steps = range(start, schedule.steps)
        for step, batch in zip(steps, _batches(stage, name, seed, steps, rank), strict=True):
            optimizer.set_rate(schedule.rate(step))
            with torch.autocast("cuda", torch.bfloat16, enabled=rank.device.type == "cuda"):
                loss, logs = stage.loss(network, move(batch, rank.device))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            rank.average(parameters)
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            progress.advance(task)
            if writer is None:
                continue
            if step % LOG_EVERY == 0:
                for key, value in logs.items():
                    writer.add_scalar(key, value, step)
                text = " ".join(f"{key} {value:.3f}" for key, value in logs.items())
                progress.update(task, logs=text)
                if not progress.console.is_terminal and step % (5 * LOG_EVERY) == 0:
                    print(f"{name} {step}/{schedule.steps} {text}", flush=True)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == schedule.steps:
                _save(checkpoint, network, stage, optimizer, step + 1)
                writer.flush()
    if writer is not None:
        writer.close()
    rank.wait()  # what comes next may read the checkpoint
    network.eval()


class Steps(Dataset):
    """The batches of a stage, each by the number of its step and nothing else."""

    def __init__(self, stage: Stage, name: str, seed: int, rank: int) -> None:
        self.stage, self.rank = stage, rank
        self.key = [seed, *name.encode()]

    def __getitem__(self, step: int) -> Any:
        return self.stage.prepare(np.random.default_rng([*self.key, step, self.rank]))


def _batches(stage: Stage, name: str, seed: int, steps: Sequence[int], rank: Rank) -> Iterator[Any]:
    prepared = Steps(stage, name, seed, rank.number)
    if rank.device.type == "cpu":
        return prepared_on_a_thread(prepared, steps)
    # a GPU is faster than one processor core can draw questions
    processes = max(1, min(MOST_PROCESSES, own_share(os.cpu_count() or 1) - 1))
    return prepared_in_processes(prepared, steps, processes)


def prepared_on_a_thread(prepared: Steps, steps: Sequence[int]) -> Iterator[Any]:
    """The batches of `steps`, prepared one ahead on a thread, so that no memory is copied."""
    ready: Queue[tuple[Any, BaseException | None]] = Queue(maxsize=2)

    def work() -> None:
        try:
            for step in steps:
                ready.put((prepared[step], None))
        except BaseException as error:
            ready.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    for _ in steps:
        batch, error = ready.get()
        if error is not None:
            raise error
        yield batch


def prepared_in_processes(prepared: Steps, steps: Sequence[int], processes: int) -> Iterator[Any]:
    """The same batches, prepared by forked processes that share the scenes' memory maps."""
    return iter(
        DataLoader(
            prepared,
            batch_size=None,
            sampler=steps,
            num_workers=processes,
            multiprocessing_context="fork",
            collate_fn=_as_it_is,
        )
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _save(path: Path, network: LisaNetwork, stage: Stage, optimizer: Optimizer, step: int) -> None:
    state = {
        "step": step,
        "network": network.state_dict(),
        "stage": stage.state_dict() if isinstance(stage, nn.Module) else {},
        "optimizer": optimizer.state_dict(),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)


def _resume(
    path: Path,
    network: LisaNetwork,
    stage: Stage,
    optimizer: Optimizer,
    device: torch.device,
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True, map_location=device)
    network.load_state_dict(state["network"])
    if isinstance(stage, nn.Module):
        stage.load_state_dict(state["stage"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"]
