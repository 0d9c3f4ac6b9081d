"""Training in several processes: each sees views of its own, all learn the same."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lisa_ros.cli import main

SCRIPT = Path(__file__).parents[1] / "train_in_ranks.py"


def torchrun(folder: Path, stop: int) -> list[dict]:
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    arguments = [str(SCRIPT), str(folder), "3", str(stop)]
    done = subprocess.run(
        [*command, *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(folder / f"rank{number}.pt", weights_only=True) for number in (0, 1)]


@pytest.mark.timeout(2500)
def test_two_processes_learn_the_same_and_go_on_exactly(tmp_path):
    first, second = torchrun(tmp_path / "whole", 0)
    for name, tensor in first["network"].items():
        assert torch.equal(tensor, second["network"][name]), name
    for mine, other in zip(first["seen"], second["seen"], strict=True):
        assert not torch.equal(mine, other)
    resumed, other = torchrun(tmp_path / "halves", 1)
    for name, tensor in first["network"].items():
        assert torch.equal(tensor, resumed["network"][name]), name
        assert torch.equal(tensor, other["network"][name]), name
    assert len(resumed["seen"]) == len(other["seen"]) == 3
    assert (tmp_path / "whole" / "pretrain_sam.pt").exists()
    for told in (first, second):  # instead of waiting for each other
        assert "at the steps [3, 0]" in told["refused"]
    # a budget of time ends in the same step for all, though each has its own left
    assert first["timed"] == second["timed"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["train-nano", "--folder", str(tmp_path), "--device", "cuda"]) == 2
    assert "no GPU" in capsys.readouterr().err
