"""The recipe as users start it, by `accelerate launch`: alone, by two, and with a rank killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published_samples import reasonseg

from lisa_ros.model.checkpoint import load

MODULE = ["-m", "lisa_ros.training.recipe"]
KILLED = str(Path(__file__).parents[1] / "killed_rank.py")
TWO = ["--multi_gpu", "--num_processes", "2"]
ONE = ["--cpu", "--num_processes", "1"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of four steps on a miniature of ReasonSeg, validated twice."""
    folder = tmp_path_factory.mktemp("recipe")
    reasonseg(folder / "data")
    (folder / "mine.yaml").write_text(
        "model: nano\nepochs: 2\nsteps_per_epoch: 2\nbatch: 2\naccumulate: 1\nwarm_up: 1\n"
        "precision: float32\nworkers: 1\nofficial: false\n"
        f"data: {folder / 'data'}\nsets: {{reason_seg: [reasonseg]}}\nrates: [1]\n"
        f"validation: {folder / 'data/reason_seg/ReasonSeg/val'}\n"
    )
    return folder / "mine.yaml"


def launch(options: list[str], *arguments: object) -> tuple[int, str, str]:
    """What `accelerate launch` ends with and says, its processes on one thread each."""
    command = [sys.executable, "-m", "accelerate.commands.launch", *options, "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    done = subprocess.run(
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def learnt(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).network.state_dict()


@pytest.mark.timeout(1200)
def test_two_processes_divide_the_model_and_a_killed_one_costs_no_step(recipe, tmp_path):
    code, said, error = launch(TWO, *MODULE, recipe, f"output={tmp_path / 'whole'}")
    assert code == 0, error[-3000:]
    assert "2 processes, each parameter in parts, one on each (cpu)" in said
    state = tmp_path / "halves" / "training"
    # the interrupted one with a cache: what a process finds in it, the other may have to ask for
    halves = [recipe, f"output={tmp_path / 'halves'}", f"cache={tmp_path / 'features'}"]
    # first in the middle of the third step, then as the checkpoint before the fourth is written
    for rank, place, count, step in ((1, "step", 5, 2), (0, "checkpoint", 2, 2)):
        code, _, error = launch(TWO, KILLED, rank, place, count, *halves)
        assert code != 0
        assert "another process of this training has ended" in error, error[-3000:]
        assert "Traceback" not in error.split("recipe: another")[0], error[:3000]
        assert torch.load(state / "lisa.pt", weights_only=True)["step"] == step
        assert not (tmp_path / "halves" / "model.safetensors").exists()
    assert [path.suffix for path in state.glob(".lisa.pt.*")] == [".part"]  # what it was writing
    code, said, error = launch(TWO, *MODULE, *halves)
    assert code == 0, error[-3000:]
    assert "has room for the features of" in said
    assert len(list((tmp_path / "features").rglob("*.safetensors"))) > 3
    assert [path.name for path in state.iterdir()] == ["log"]
    whole, again = learnt(tmp_path / "whole"), learnt(tmp_path / "halves")
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name
    assert not torch.equal(whole["lm_head.weight"], learnt("nano")["lm_head.weight"])


@pytest.mark.timeout(600)
def test_one_process_by_accelerate_and_two_that_would_be_one(recipe, tmp_path):
    output = f"output={tmp_path / 'one'}"
    code, said, error = launch(ONE, *MODULE, recipe, output, "epochs=1", "steps_per_epoch=1")
    assert code == 0, error[-3000:]
    assert "processes" not in said
    assert (tmp_path / "one" / "model.safetensors").exists()
    # accelerate starts one process here without a word
    two = ["--cpu", "--num_processes", "2"]
    code, _, error = launch(two, *MODULE, recipe, f"output={tmp_path / 'two'}")
    assert code != 0
    assert "accelerate was told of several processes and has started one" in error
    assert not (tmp_path / "two").exists()
