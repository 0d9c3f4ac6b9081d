"""The recipe as users start it, by `accelerate launch`: two processes, one of which is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from published_samples import reasonseg
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from lisa_ros.model.checkpoint import load
from lisa_ros.training.recipe import main

MODULE = ["-m", "lisa_ros.training.recipe"]
KILLED = str(Path(__file__).parents[1] / "killed_rank.py")
TWO = ["--multi_gpu", "--num_processes", "2"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of three steps on a miniature of ReasonSeg, validated once."""
    folder = tmp_path_factory.mktemp("recipe")
    reasonseg(folder / "data")
    (folder / "mine.yaml").write_text(
        "model: nano\nepochs: 1\nsteps_per_epoch: 3\nbatch: 2\naccumulate: 1\nwarm_up: 1\n"
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
        [*command, *map(str, arguments)], capture_output=True, text=True, timeout=1200,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def killed(rank: int, place: str, count: int, *arguments: object) -> None:
    """Let one process be killed (killed_rank.py); the other ends with a sentence."""
    code, _, error = launch(TWO, KILLED, rank, place, count, *arguments)
    assert code != 0
    assert "recipe: another process of this training has ended" in error, error[-6000:]
    # before it, nothing but warnings
    assert "Traceback" not in error.split("recipe: another")[0], error[-6000:]


def learnt(folder: Path) -> dict[str, torch.Tensor]:
    return load(folder).network.state_dict()


@pytest.mark.timeout(3700)
def test_two_processes_divide_the_model_and_a_killed_one_costs_no_step(recipe, tmp_path):
    """With a cache: what one process finds in it, the other may have to ask for."""
    folder = tmp_path / "two"
    two = [recipe, f"output={folder}", f"cache={tmp_path / 'features'}"]
    killed(0, "checkpoint", 3, *two)  # those of steps 0 and 1 are written
    kept = folder / "training" / "lisa.pt"
    assert torch.load(kept, weights_only=True)["step"] == 1
    assert [path.suffix for path in kept.parent.glob(".lisa.pt.*")] == [".part"]
    assert not (folder / "model.safetensors").exists()
    code, said, error = launch(TWO, *MODULE, *two)
    assert code == 0, error[-6000:]
    assert "2 processes, each parameter in parts, one on each (cpu)" in said
    assert "has room for the features of" in said
    assert [path.name for path in kept.parent.iterdir()] == ["log"]
    # one process that takes twice as many batches a step
    assert main([str(recipe), f"output={tmp_path / 'one'}", "accumulate=2"]) == 0
    one, two, begun = learnt(tmp_path / "one"), learnt(folder), learnt("nano")
    for name, tensor in one.items():
        if not name.endswith("k_proj.bias"):  # whose gradient is rounding alone
            torch.testing.assert_close(two[name], tensor, rtol=2e-3, atol=2e-4, msg=name)
    assert not torch.allclose(one["lm_head.weight"], begun["lm_head.weight"], atol=2e-4)


def test_killed_in_the_middle_of_a_step_it_ends_with_the_weights_of_no_kill(recipe, tmp_path):
    """One process, SIGKILL in the third step; the checkpoint of the second one is gone on from."""
    settings = [str(recipe), "validation=''", "workers=0"]
    assert main([*settings, f"output={tmp_path / 'whole'}"]) == 0
    halves = [*settings, f"output={tmp_path / 'halves'}"]
    done = subprocess.run(
        [sys.executable, KILLED, "0", "step", "3", *halves], capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}, timeout=1200,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    kept = torch.load(tmp_path / "halves" / "training" / "lisa.pt", weights_only=True)
    assert kept["step"] == 2
    assert main(halves) == 0
    whole, again = learnt(tmp_path / "whole"), learnt(tmp_path / "halves")
    assert all(torch.equal(tensor, again[name]) for name, tensor in whole.items())
    # the third step did something
    assert not torch.equal(kept["network"]["lm_head.weight"].half(), whole["lm_head.weight"].half())


def test_what_was_wrong_is_the_last_thing_that_a_launcher_of_several_says(tmp_path, monkeypatch):
    """torch's report of failed processes, which comes after all that they have said."""
    said = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(said))
    assert main(["tiny", "speed=3"]) == 2
    report = str(ChildFailedError("recipe", {0: ProcessFailure(0, 1, 2, str(said))}))
    assert "speed=3: there is no key speed; a recipe knows output" in report.splitlines()[-2]


@pytest.mark.slow  # six starts of accelerate, a minute and a half
@pytest.mark.timeout(8000)
def test_killed_in_a_step_and_in_a_checkpoint_the_weights_are_those_of_no_kill(recipe, tmp_path):
    code, _, error = launch(TWO, *MODULE, recipe, f"output={tmp_path / 'whole'}")
    assert code == 0, error[-6000:]
    halves = [recipe, f"output={tmp_path / 'halves'}", f"cache={tmp_path / 'features'}"]
    state = tmp_path / "halves" / "training"
    for rank, place, count, step in ((1, "step", 2, 1), (0, "checkpoint", 2, 1), (0, "step", 2, 2)):
        killed(rank, place, count, *halves)
        assert torch.load(state / "lisa.pt", weights_only=True)["step"] == step
    code, _, error = launch(TWO, *MODULE, *halves)
    assert code == 0, error[-6000:]
    whole, again = learnt(tmp_path / "whole"), learnt(tmp_path / "halves")
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name
    # and one process
    one = ["--cpu", "--num_processes", "1"]
    code, said, error = launch(one, *MODULE, recipe, f"output={tmp_path / 'one'}", "accumulate=2")
    assert code == 0, error[-6000:]
    assert "processes" not in said
    assert (tmp_path / "one" / "model.safetensors").exists()


def test_two_processes_of_which_accelerate_starts_one_are_refused(
    recipe, tmp_path, monkeypatch, capsys
):
    """What `accelerate launch --cpu --num_processes 2` gives to the one process that it starts."""
    given = {"ACCELERATE_USE_CPU": "True", "ACCELERATE_MIXED_PRECISION": "no",
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}  # fmt: skip
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert main([str(recipe), f"output={tmp_path / 'two'}"]) == 2
    assert "told of several processes and has started one" in capsys.readouterr().err
    assert not (tmp_path / "two").exists()
