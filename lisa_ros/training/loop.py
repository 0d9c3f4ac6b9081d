"""The loop of all training: ranks, prefetching, schedule, averaged weights, logs, exact resume.

accelerate tells the processes of torchrun apart and reduces over them. Its wrappers of model and
optimizer are not used: the losses call the parts of the network one by one, which
`DistributedDataParallel` (it wraps `forward`) does not foresee, and a checkpoint is one file that
is there as a whole or not at all. Parameters may lie on all ranks, or be sharded over them by
torch's `fully_shard` (then they are DTensors); the file is the same.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from datetime import timedelta
from pathlib import Path
from queue import Full, Queue
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object, reduce
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.tensorboard import SummaryWriter

from lisa_ros.errors import LisaError, WriteError
from lisa_ros.model.network import LisaNetwork
from lisa_ros.writing import written_beside

LOG_EVERY = 20  # steps; between them nothing waits for a loss
SAVE_SECONDS = 180.0  # of training between two checkpoints
PATIENCE = timedelta(hours=12)  # the other ranks wait while the first one renders
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
T = TypeVar("T")


class Stage(Protocol):
    """What is learnt: batches (prepared on a thread or in processes) and their loss.

    A stage that is an `nn.Module` has heads of its own, which are saved and resumed with the run.
    """

    def prepare(self, random: np.random.Generator) -> Any:
        """A batch: tensors in tuples and dataclasses, however nested; all chance is `random`'s."""

    def loss(self, network: LisaNetwork, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to be minimised and scalars to be logged, none of them read back here."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up, and a cosine to zero: after `steps`, or after `seconds` if they end first.

    `linear`: a straight line to zero instead, from the end of the warm-up, as LISA is trained.
    A parameter group of the optimizer may have an "lr_ratio", by which its rate differs from `lr`.
    """

    steps: int
    lr: float
    warm_up: int = 100
    seconds: float = math.inf
    linear: bool = False

    def progress(self, step: int, seconds: float) -> float:
        """How much of the training is done, 0 to 1."""
        return min(1.0, max(step / self.steps, seconds / self.seconds))

    def lr_at(self, step: int, seconds: float) -> float:
        """The learning rate of a step that begins after `seconds` of training."""
        warmth = min(1.0, (step + 1) / max(1, self.warm_up))
        if self.linear:
            left = (self.steps - step) / max(1, self.steps - self.warm_up)
            return self.lr * min(warmth, max(0.0, left))
        return self.lr * warmth * 0.5 * (1 + math.cos(math.pi * self.progress(step, seconds)))


def join_ranks(device: str) -> PartialState:
    """This process's place among those of accelerate or torchrun; `device`: auto, cpu or cuda.

    Raises LisaError where a GPU is asked for and there is none, or several processes and only one
    came: it would train alone without a word.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise LisaError(
            "--device cuda: torch finds no GPU here; give --device cpu, or look whether"
            " `nvidia-smi` lists one and torch was installed with CUDA"
        )
    told = device == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    # PartialState joins the processes of a machine without GPUs only if it is told of the CPU
    on_cpu = device == "cpu" or told or not torch.cuda.is_available()
    state = PartialState(cpu=on_cpu, timeout=PATIENCE)
    # accelerate gives these to what it starts, WORLD_SIZE only where it starts several
    alone = {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys()
    if state.num_processes == 1 and alone and "WORLD_SIZE" not in os.environ:
        raise LisaError(
            "accelerate was told of several processes and has started one: it starts several for"
            " --multi_gpu alone, also where there is no GPU (then leave --cpu away). If one is"
            " meant, unset MASTER_PORT"
        )
    return state


def train(
    name: str,
    network: LisaNetwork,
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    schedule: Schedule,
    folder: Path,
    *,
    seed: int,
    workers: int = 0,
    ema: float = 0.0,
    accumulate: int = 1,
    epoch: int = 0,
    validate: Callable[[int], Mapping[str, float]] | None = None,
    arrange: Callable[[list[Any]], list[Any]] | None = None,
) -> None:
    """Train what `optimizer` holds until the schedule ends, resuming where `folder` says.

    network and stage lie on their device already. A step is `accumulate` batches on each rank; the
    batches of all ranks and steps are numbered through, and each draws itself and its dropout from
    (seed, name, number). So an interrupted run goes on exactly as if it had not been, and one rank
    learns what two learn that take half of its batches each; with `Schedule.seconds`, as far as a
    clock allows. workers: processes that prepare batches; 0, a thread. ema: decay of the averaged
    weights that the network has in the end; 0, the last ones. After every `epoch` steps `validate`
    is called on all ranks with the number of steps; what it returns is logged. `arrange` makes of a
    rank's batches of a step as many others.

    Ctrl-C, SIGTERM and SIGUSR1 end the step, save and raise KeyboardInterrupt; LisaError where the
    loss is no number any more. On a GPU, and with weights in half precision, the products are
    computed in bfloat16.
    """
    state, checkpoint = PartialState(), folder / f"{name}.pt"
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    device = parameters[0].device
    half = device.type == "cuda" or network.dtype != torch.float32

    # 1. where the run stands
    averages = [p.detach().float().clone() for p in parameters] if ema else []
    step, spent = _resume(checkpoint, network, stage, optimizer, averages)
    require_equal(step, f"{checkpoint} at the steps")
    # what each process has left of a time budget is its own
    schedule = replace(schedule, seconds=_agree(state, False, schedule.seconds, device)[1])
    key, ranks = (seed, *name.encode(), 0), state.num_processes
    per_step, rank = accumulate * ranks, state.process_index
    numbers = range(step * per_step + rank, schedule.steps * per_step, ranks)
    ahead = prefetch(batches(stage, key, numbers, workers), device)
    log = _Log(name, folder / "log" / name, schedule.steps, step, silent=not state.is_main_process)
    saved, began = spent, time.monotonic() - spent
    sharded = any(isinstance(p, DTensor) for p in parameters)
    network.train()
    with _stop_asked() as stop, log, contextlib.closing(ahead):
        while True:
            stopped, spent = _agree(state, stop.is_set(), time.monotonic() - began, device)
            done = schedule.progress(step, spent) >= 1
            # 2. save what there is; at the end, the averaged weights
            if done and averages:
                with torch.no_grad():
                    torch._foreach_copy_(parameters, averages)
            late = spent - saved > SAVE_SECONDS
            if (state.is_main_process or sharded) and (done or stopped or late):
                _save(checkpoint, network, stage, optimizer, averages, step, spent)
                saved = spent
            if stopped and not done:
                state.wait_for_everyone()  # who trains again at once reads the checkpoint
                raise KeyboardInterrupt(f"{name} stopped after step {step} of {schedule.steps}")
            if done:
                break
            # 3. one step
            for group in optimizer.param_groups:
                group["lr"] = group.get("lr_ratio", 1.0) * schedule.lr_at(step, spent)
            optimizer.zero_grad(set_to_none=True)
            logs = []
            numbers = range(step * per_step + rank, (step + 1) * per_step, ranks)
            taken = ahead if arrange is None else iter(arrange([next(ahead) for _ in numbers]))
            for number in numbers:
                torch.manual_seed(int(np.random.SeedSequence((*key, number)).generate_state(1)[0]))
                with torch.autocast(device.type, torch.bfloat16, enabled=half):
                    loss, parts = stage.loss(network, next(taken))
                (loss / accumulate).backward()
                logs.append({"loss": loss, **parts})
            if ranks > 1 and not sharded:
                _average_gradients(parameters)
            _clip_gradients(parameters, 1.0)
            optimizer.step()
            if averages:  # a young average forgets faster
                with torch.no_grad():
                    torch._foreach_lerp_(
                        averages, parameters, 1 - min(ema, (1 + step) / (10 + step))
                    )
            # 4. only a step that is logged waits for its losses
            log.step(step, logs)
            step += 1
            if validate is not None and epoch and step % epoch == 0:
                log.write(step, validate(step))
                network.train()
    state.wait_for_everyone()  # what comes next may read the checkpoint
    network.eval()


@dataclass(frozen=True)
class _Steps(Dataset):
    """The batches of a stage, each by the number of its step and nothing else."""

    stage: Stage
    key: Sequence[int]

    def __getitem__(self, step: int) -> Any:
        try:
            return self.stage.prepare(np.random.default_rng((*self.key, step)))
        except LisaError as error:  # raised in a worker, its sentence would come as a traceback
            return error


def batches(stage: Stage, key: Sequence[int], steps: range, workers: int) -> Iterator[Any]:
    """The batches of `steps` in order; forked `workers` share the memory maps of the data."""
    loader = DataLoader(
        _Steps(stage, key),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        collate_fn=lambda batch: batch,
        worker_init_fn=_leave_signals,
    )
    return iter(loader)  # the processes begin here, on the caller's thread


def _leave_signals(worker: int) -> None:
    """Ctrl-C reaches the whole group, but the trainer ends its workers, and does so by SIGTERM."""
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)


def prefetch(batches: Iterator[Any], device: torch.device) -> Iterator[Any]:
    """Batches on their device, two of them ahead: a thread prepares or fetches, and copies."""
    ready: Queue[tuple[Any, BaseException | None]] = Queue(maxsize=2)
    closed = threading.Event()

    def put(batch: Any, error: BaseException | None) -> None:
        while not closed.is_set():
            with contextlib.suppress(Full):
                return ready.put((batch, error), timeout=0.2)

    def work() -> None:
        try:
            for batch in batches:
                if isinstance(batch, LisaError):
                    raise batch
                put(_move(batch, device), None)
                if closed.is_set():
                    return
        except BaseException as error:  # raised again where the batch is waited for
            put(None, error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            yield batch
    finally:
        closed.set()
        thread.join(timeout=5)


def _move(batch: T, device: torch.device) -> T:
    """The batch with all its tensors on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple):
        return tuple(_move(part, device) for part in batch)
    if is_dataclass(batch):
        moved = {field.name: _move(getattr(batch, field.name), device) for field in fields(batch)}
        return replace(batch, **moved)
    return batch


@contextlib.contextmanager
def _stop_asked() -> Iterator[threading.Event]:
    """Set by the first of STOP_SIGNALS, so that a step is finished; a second one ends at once."""
    asked, before = threading.Event(), {}

    def ask(number: int, frame: object) -> None:
        asked.set()
        signal.signal(number, before[number])

    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, ask) for number in STOP_SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _agree(
    state: PartialState, stop: bool, seconds: float, device: torch.device
) -> tuple[bool, float]:
    """What all ranks act on: whether any is told to stop, and the longest time."""
    if state.num_processes == 1:
        return stop, seconds
    worst = reduce(torch.tensor([float(stop), seconds], dtype=torch.float64).to(device), "max")
    return bool(worst[0]), float(worst[1])


def require_equal(found: Any, what: str) -> None:
    """LisaError where the ranks have found different things, and would wait for each other."""
    all_found = gather_object([found])
    if any(one != found for one in all_found):
        raise LisaError(
            f"the ranks found {what} {all_found}, one of each rank: folders must be the same on all"
            " machines, and hold nothing of another run"
        )


def _average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Replace the gradients by their mean over all ranks, which is the same in each."""
    for parameter in parameters:
        if parameter.grad is None:  # another rank's batch may have used it
            parameter.grad = torch.zeros_like(parameter)
    flat = reduce(torch.cat([p.grad.flatten() for p in parameters]), "mean")
    for parameter, part in zip(
        parameters, flat.split([p.numel() for p in parameters]), strict=True
    ):
        parameter.grad.copy_(part.view_as(parameter))


def _clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> None:
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    # of sharded gradients it is a sum over ranks, which nobody has made yet
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    nn.utils.clip_grads_with_norm_(parameters, most, norm)


def whole(tree: T, *, keep: bool = True) -> T:
    """Nested tables and lists of tensors, those that are sharded put together on the CPU.

    All ranks must call it, with the same tree; one that does not `keep` them gets None for each.
    """
    if isinstance(tree, DTensor):
        full = tree.full_tensor()
        return full.cpu() if keep else None
    if isinstance(tree, dict):
        return {name: whole(value, keep=keep) for name, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value, keep=keep) for value in tree]
    return tree


def sharded_like(value: Tensor, like: Tensor) -> Tensor:
    """A whole tensor on the device of another, sharded as that one is; each rank takes its own."""
    if not isinstance(like, DTensor):
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


class _Log:
    """A progress bar, a line now and then where there is no terminal, and TensorBoard's files."""

    def __init__(self, name: str, folder: Path, total: int, done: int, *, silent: bool) -> None:
        self.name, self.total = name, total
        self.writer = None if silent else SummaryWriter(str(folder))
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        text = (TextColumn("{task.description}"), TextColumn("{task.fields[logs]}"))
        self.bar = Progress(text[0], *columns, text[1], disable=silent)
        self.task = self.bar.add_task(name, total=total, completed=done, logs="")

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *_: object) -> None:
        self.bar.stop()
        if self.writer is not None:
            self.writer.close()

    def step(self, step: int, logs: Sequence[Mapping[str, Tensor]]) -> None:
        """Count a step by what its batches say; LisaError where a logged loss is not finite."""
        self.bar.advance(self.task)
        if step % LOG_EVERY:
            return
        stacked = [torch.stack([v.detach().float() for v in one.values()]) for one in logs]
        values = dict(zip(logs[0], torch.stack(stacked).mean(0).tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise LisaError(
                f"{self.name}: the loss is {values['loss']} at step {step}; the last checkpoint is"
                " from before: go on from it with a lower learning rate"
            )
        self.write(step, values)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Show and keep some figures."""
        if self.writer is None:
            return
        for key, value in values.items():
            self.writer.add_scalar(key, value, step)
        text = " ".join(f"{key} {value:.3f}" for key, value in values.items())
        self.bar.update(self.task, logs=text)
        if not self.bar.console.is_terminal and step % (5 * LOG_EVERY) == 0:
            print(f"{self.name} {step}/{self.total} {text}", flush=True)


def _save(
    path: Path,
    network: LisaNetwork,
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
    step: int,
    seconds: float,
) -> None:
    """At every moment `path` is a whole checkpoint. Weights that are frozen are not in it.

    Written by the main process; with sharded parameters all ranks must come here.
    """
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    content = {
        "step": step,
        "seconds": seconds,
        "network": {name: t for name, t in network.state_dict().items() if name not in frozen},
        "stage": stage.state_dict() if isinstance(stage, nn.Module) else {},
        "optimizer": optimizer.state_dict(),
        "averages": averages,
    }
    content = whole(content, keep=PartialState().is_main_process)
    if not PartialState().is_main_process:
        return
    write_tensors(path, content)


def write_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file of torch whole, or leave it as it was; WriteError where it cannot be."""
    try:
        with written_beside(path) as beside:
            torch.save(content, beside)
    except RuntimeError as error:  # what torch makes of a full disk
        raise WriteError(f"cannot write {path}: {str(error).splitlines()[0]}") from error


def _resume(
    path: Path,
    network: LisaNetwork,
    stage: Stage,
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor],
) -> tuple[int, float]:
    """Take up the checkpoint, if there is one; returns the steps and seconds that it had."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu")
    own = network.state_dict()
    with torch.no_grad():
        for name, value in state["network"].items():  # what is frozen is not in it
            own[name].copy_(sharded_like(value, own[name]))
    if isinstance(stage, nn.Module):
        stage.load_state_dict(state["stage"])
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if any(isinstance(p, DTensor) for p in parameters):
        for index, moments in state["optimizer"]["state"].items():
            for name, value in moments.items():
                if value.dim():  # the count of steps is a plain number
                    moments[name] = sharded_like(value, parameters[index])
    optimizer.load_state_dict(state["optimizer"])
    for average, value in zip(averages, state["averages"], strict=True):
        average.copy_(sharded_like(value, average))
    return state["step"], state["seconds"]
