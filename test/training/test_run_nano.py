"""The whole training by its command, small: render, three parts at once, the joint training."""

import os
import signal
import subprocess
import sys
import threading
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch
from stage_that_saves import stage_that_saves

from lisa_ros.engine import Engine
from lisa_ros.model.checkpoint import load
from lisa_ros.model.config import SHIPPED
from lisa_tabletop.language.nouns import held_out_vocabulary, write_nouns
from lisa_tabletop.training import run_nano
from lisa_tabletop.training.run_nano import PLANS
from lisa_tabletop.training.scenes import VIEWS, Scenes

COMMAND = [sys.executable, "-m", "lisa_ros.cli", "train-nano", "--device", "cpu", "--threads", "1"]
STEPS = [word for name in PLANS for word in ("--steps", name, "2")]


def start(folder: Path, *more: str) -> subprocess.Popen:
    return subprocess.Popen(
        [*COMMAND, "--folder", str(folder), "--tables", "2", "--renderers", "1", *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.timeout(1800)
def test_a_stage_that_has_stopped_does_not_cut_short_what_others_save(tmp_path, monkeypatch):
    monkeypatch.setattr(run_nano, "run_stage", stage_that_saves)
    names = ("quick", "slow")

    def pause() -> None:
        while not all((tmp_path / f"{name} began").exists() for name in names):
            time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGUSR1)

    threading.Thread(target=pause, daemon=True).start()
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        run_nano._run_together(names, Namespace(folder=tmp_path, threads=2))
    assert all((tmp_path / f"{name} saved").exists() for name in names)


@pytest.mark.slow  # two minutes
@pytest.mark.timeout(1800)
def test_a_run_that_is_paused_goes_on_and_ends_in_a_model(tmp_path, tokenizer):
    folder = tmp_path / "run"
    (folder / "tokenizer").mkdir(parents=True)
    tokenizer.save(folder / "tokenizer")
    write_nouns(held_out_vocabulary().nouns, folder / "nouns.txt")
    # 1. paused while the parts are trained: every stage leaves a checkpoint
    paused = start(folder, "--minutes", "60")
    said, waiting = "", set(list(PLANS)[:3])
    while waiting:
        line = paused.stdout.readline()
        assert line, said
        said += line
        waiting -= {name for name in waiting if line.startswith(f"{name} 0/")}
    paused.send_signal(signal.SIGUSR1)
    said += paused.stdout.read()
    paused.wait()
    assert paused.returncode != 0 and "Traceback" not in said, said
    before = {name: torch.load(folder / f"{name}.pt") for name in list(PLANS)[:3]}
    assert not (folder / "checkpoint").exists()
    # 2. the same folder, now to the end by steps
    steps = max(state["step"] for state in before.values()) + 1
    arguments = [w for n in before for w in ("--steps", n, str(steps))]
    ended = start(folder, *arguments, "--steps", "train_joint", "2")
    said, _ = ended.communicate(timeout=1500)
    assert ended.returncode == 0, said
    assert len(Scenes(folder / "scenes")) == 2 * VIEWS
    for name in before:
        assert torch.load(folder / f"{name}.pt")["step"] == steps
    # 3. a model that answers, stored in half precision
    lisa = load(folder / "checkpoint")
    assert lisa.config.clip_view == "squash"
    assert (folder / "checkpoint" / "model.safetensors").stat().st_size < 25e6
    image = np.full((48, 64, 3), 90, np.uint8)
    assert Engine(lisa).segment(image, "the mug", max_new_tokens=3).counters["tokens"] >= 1


@pytest.mark.skipif(not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree")
@pytest.mark.timeout(1200)
def test_an_earlier_model_goes_on_as_a_whole_on_tables_new_to_it(tmp_path):
    write_nouns(held_out_vocabulary().nouns, tmp_path / "nouns.txt")
    stages = ("--stages", "render", "train_joint", "--steps", "train_joint", "1")
    run = start(tmp_path, *stages, "--init", "nano", "--first-table", "1")
    said, _ = run.communicate()
    assert run.returncode == 0, said
    assert Scenes(tmp_path / "scenes").done.tolist() == [0, 1]
    # one step of averaged weights is next to nothing: everything must be where it was
    before, after = (load(name).network.state_dict() for name in ("nano", tmp_path / "checkpoint"))
    assert all(torch.allclose(after[name], before[name], atol=1e-3) for name in before)


def test_views_are_rendered_once_and_their_records_fit(tmp_path):
    scenes = Scenes(tmp_path, 1)
    assert len(scenes) == 0
    scenes.render(0)
    assert len(scenes) == VIEWS
    before = np.array(scenes.rgb)
    assert before.any(axis=(1, 2, 3)).all()
    for view in range(VIEWS):
        record = scenes.record(view)
        ids = set(np.unique(scenes.ids[view]).tolist()) - {0}
        assert ids == {entry["id"] for entry in record["objects"]}
        assert set(np.flatnonzero(scenes.classes[view, 0]).tolist()) == ids
    scenes.rgb[:] = 0
    Scenes(tmp_path, 1).render(0)  # another process finds it done
    assert not scenes.rgb.any()
