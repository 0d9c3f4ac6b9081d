"""The loop of all training, on a network of one number per class that learns in no time."""

import errno
import os
import resource
import signal

import numpy as np
import pytest
import torch
from torch import nn

from lisa_ros.errors import LisaError, WriteError
from lisa_ros.training import loop
from lisa_ros.training.loop import LOG_EVERY, Schedule, prefetch, train, write_tensors


class Line(nn.Module):
    """Learns a line; `dtype` as a LisaNetwork has it."""

    dtype = torch.float32

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(4))


class Fit:
    """Points near a line of slope 3; keeps what it has seen and how often its log was read."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise, self.seen, self.read = noise, [], 0

    def prepare(self, random: np.random.Generator) -> torch.Tensor:
        return torch.from_numpy(random.normal(size=4).astype(np.float32))

    def loss(self, network, x):
        self.seen.append(x)
        error = (network.slope - 3) * x + self.noise * torch.randn(4)
        return error.square().mean(), {"watched": self}

    def detach(self) -> torch.Tensor:
        self.read += 1
        return torch.tensor(1.0)


def fit(stage, folder, schedule=None, seed=0, **more) -> Line:
    network = Line()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
    train(
        "fit",
        network,
        stage,
        optimizer,
        schedule or Schedule(60, 1.0, 5),
        folder,
        seed=seed,
        **more,
    )
    return network


def test_it_learns_and_a_step_reads_no_loss_that_it_does_not_log(tmp_path):
    stage = Fit()
    network = fit(stage, tmp_path)
    assert network.slope.tolist() == pytest.approx([3] * 4, abs=0.3)
    assert len(stage.seen) == 60
    assert stage.read == 60 / LOG_EVERY


def test_batches_and_dropout_follow_from_the_seed_and_the_step(tmp_path):
    stages = [Fit(0.5) for _ in range(3)]
    runs = [fit(s, tmp_path / str(n), seed=n // 2) for n, s in enumerate(stages)]
    assert torch.equal(runs[0].slope, runs[1].slope)
    assert not torch.equal(runs[0].slope, runs[2].slope)
    assert len({tuple(x.tolist()) for x in stages[0].seen}) == 60


def test_the_rate_warms_up_and_ends_at_zero_by_steps_or_by_time():
    steps = Schedule(100, 1.0, 10)
    assert [steps.lr_at(step, 0) for step in (0, 4)] == pytest.approx([0.1, 0.5], abs=0.01)
    assert steps.lr_at(50, 0) == pytest.approx(0.5)
    assert steps.lr_at(100, 0) == 0
    timed = Schedule(10**9, 1.0, 10, seconds=60)
    assert timed.lr_at(1000, 30) == pytest.approx(0.5)
    assert (timed.progress(1000, 59), timed.progress(1000, 61)) == (pytest.approx(59 / 60), 1)


def test_a_run_by_time_ends(tmp_path):
    stage = Fit()
    fit(stage, tmp_path, Schedule(10**9, 0.1, 1, seconds=0.3))
    assert 0 < len(stage.seen) < 10**5
    fit(again := Fit(), tmp_path, Schedule(10**9, 0.1, 1, seconds=0.3))
    assert not again.seen


def test_parameter_groups_keep_the_ratio_of_their_rates(tmp_path):
    network = Line()
    groups = [{"params": [network.slope], "lr_ratio": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=0.0)
    train("fit", network, Fit(), optimizer, Schedule(5, 0.3, 1), tmp_path, seed=0)
    assert network.slope.tolist() == [0] * 4


def test_a_step_is_taken_in_training_and_no_gradient_is_too_long(tmp_path):
    class Steep(Fit):
        def loss(self, network, x):
            modes.append(network.training)
            return 1e6 * network.slope.sum(), {}

    modes: list[bool] = []
    network = Line()
    train(
        "fit", network, Steep(), torch.optim.SGD(network.parameters(), lr=0.0),
        Schedule(4, 0.1, 1), tmp_path, seed=0, epoch=2,
        validate=lambda step: network.eval() and {"figure": 1.0},
    )  # fmt: skip
    rates = [Schedule(4, 0.1, 1).lr_at(step, 0) for step in range(4)]
    # clipped to length 1 and begun anew in every step
    assert network.slope.norm().item() == pytest.approx(sum(rates), rel=1e-3)
    assert modes == [True] * 4
    assert not network.training


def test_averaged_weights_are_those_of_the_end(tmp_path):
    class Constant(Fit):
        def loss(self, network, x):
            passed.append(network.slope.detach().clone())
            return (network.slope - 3).square().sum(), {}

    passed: list[torch.Tensor] = []
    network = fit(Constant(), tmp_path, Schedule(30, 0.1, 1), ema=0.9)
    assert passed[10][0] < network.slope[0] < passed[-1][0]


class Stopped(Fit):
    """Is told to stop in its fifth batch, by so many signals."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def loss(self, network, x):
        if len(self.seen) == 4:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)
        return super().loss(network, x)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    """With what an optimizer and an average remember."""

    def learn(stage, folder) -> torch.Tensor:
        network = Line()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0, momentum=0.9)
        train("fit", network, stage, optimizer, Schedule(9, 0.1, 1), folder, seed=0, ema=0.9)
        return network.slope

    whole = learn(Fit(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt, match="stopped after step 5 of 9"):
        learn(Stopped(1), tmp_path / "halves")
    assert torch.equal(learn(Fit(), tmp_path / "halves"), whole)


def test_who_asks_twice_does_not_wait_for_the_step(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(Stopped(2), tmp_path, Schedule(9, 0.1, 1))
    assert not (tmp_path / "fit.pt").exists()


def test_a_run_that_breaks_loses_no_more_than_since_its_last_checkpoint(tmp_path, monkeypatch):
    class Breaks(Fit):
        def loss(self, network, x):
            if len(self.seen) == 4:
                raise RuntimeError("no memory")
            return super().loss(network, x)

    monkeypatch.setattr(loop, "SAVE_SECONDS", -1.0)
    with pytest.raises(RuntimeError, match="no memory"):
        fit(Breaks(), tmp_path, Schedule(9, 0.1, 1))
    assert torch.load(tmp_path / "fit.pt", weights_only=True)["step"] == 4


def test_a_loss_that_is_no_number_is_said_and_the_checkpoint_stays(tmp_path):
    fit(Fit(), tmp_path, Schedule(20, 0.1, 1))
    before = (tmp_path / "fit.pt").read_bytes()

    class Broken(Fit):
        def loss(self, network, x):
            return (network.slope * torch.nan).sum(), {}

    with pytest.raises(LisaError, match="the loss is nan at step 20"):
        fit(Broken(), tmp_path, Schedule(40, 0.1, 1))
    assert (tmp_path / "fit.pt").read_bytes() == before


def test_a_disk_that_fills_in_a_checkpoint_is_said_and_the_last_one_is_whole(tmp_path, monkeypatch):
    fit(Fit(), tmp_path, Schedule(20, 0.1, 1))
    before = (tmp_path / "fit.pt").read_bytes()

    def full(content, path):
        path.write_bytes(before[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(WriteError, match="No space left"):
        fit(Fit(), tmp_path, Schedule(40, 0.1, 1))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["fit.pt"]
    assert (tmp_path / "fit.pt").read_bytes() == before


def test_a_file_that_may_not_grow_is_said_by_torch_itself_and_leaves_the_last_one(tmp_path):
    """A write that fails in the middle, here by the system's limit of a file's size."""
    fit(Fit(), tmp_path, Schedule(20, 0.1, 1))
    before = (tmp_path / "fit.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(WriteError, match=r"cannot write .*best\.pt"):
            write_tensors(tmp_path / "best.pt", {"network": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["fit.pt"]
    assert (tmp_path / "fit.pt").read_bytes() == before


def test_batches_of_a_step_are_arranged_within_it(tmp_path):
    def turned(batches):
        together.append(len(batches))
        return batches[::-1]

    together: list[int] = []
    plain, other = Fit(), Fit()
    fit(plain, tmp_path / "plain", Schedule(2, 0.1, 1), accumulate=3)
    fit(other, tmp_path / "other", Schedule(2, 0.1, 1), accumulate=3, arrange=turned)
    assert together == [3, 3]
    order = [2, 1, 0, 5, 4, 3]
    for mine, index in zip(other.seen, order, strict=True):
        assert torch.equal(mine, plain.seen[index])


def test_steps_of_several_batches_go_on_exactly_and_are_validated(tmp_path):
    def learn(folder, steps):
        network, seen = Line(), []
        optimizer = torch.optim.SGD(network.parameters(), lr=0.0)
        train(
            "fit", network, Fit(0.3), optimizer, steps, folder, seed=0, accumulate=3, epoch=4,
            validate=lambda step: seen.append(step) or {"figure": 1.0},
        )  # fmt: skip
        return network.slope, seen

    line = Schedule(12, 0.5, 2, linear=True)
    whole, seen = learn(tmp_path / "whole", line)
    assert seen == [4, 8, 12]
    assert [line.lr_at(step, 0) for step in (0, 1, 7, 12)] == pytest.approx([0.25, 0.5, 0.25, 0])
    again, _ = learn(tmp_path / "whole", line)
    assert torch.equal(whole, again)  # of a run that is done nothing is learnt
    single, _ = learn(tmp_path / "other", Schedule(4, 0.5, 2, linear=True))
    assert not torch.equal(whole, single)


def test_a_fault_of_preparing_reaches_the_trainer(tmp_path):
    class Faulty(Fit):
        def prepare(self, random):
            raise LisaError("the third image is damaged")

    for workers in (0, 1):
        with pytest.raises(LisaError, match=r"^the third image is damaged$"):
            fit(Faulty(), tmp_path, workers=workers)


def test_nested_batches_keep_their_shape_on_the_way():
    [moved] = [next(prefetch(iter([(torch.ones(2), ("words", [1]))]), torch.device("cpu")))]
    assert moved[1] == ("words", [1])
    assert moved[0].tolist() == [1, 1]
