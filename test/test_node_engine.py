"""The node around the real engine, with a small untrained model, also a damaged one."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from model_samples import small_lisa
from node_rig import rig, wait_for
from test_node_lifecycle import Manager

from lisa_ros.model.checkpoint import save
from lisa_ros.node.status import ANSWERED, Status

COMMAND = [sys.executable, "-m", "lisa_ros.cli", "node"]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "small"
    save(small_lisa(), folder)
    return folder


@pytest.fixture(scope="module")
def robot(model):
    with rig() as robot:
        robot.start("--model", str(model), command=COMMAND, seconds=60)
        robot.film()
        wait_for(lambda: robot.ask("ready").status in ANSWERED, "the first answer")
        yield robot


def test_a_question_is_answered_by_the_model(robot):
    result = robot.ask("where is the red mug?")
    assert result.status in ANSWERED and result.model == "small" and result.error == ""
    assert result.forwards >= 1 and result.timings.prefill > 0
    assert result.timings.total >= result.timings.prefill


def test_a_second_question_about_one_frame_encodes_nothing(robot):
    robot.cut()
    wait_for(lambda: robot.ask("where is the mug?").status in ANSWERED, "an answer")
    again = robot.ask("show me the blue mug")
    assert again.status in ANSWERED
    assert (again.sam_encodes, again.clip_encodes) == (0, 0)
    robot.film()


@pytest.mark.parametrize("words", ["[SEG] </s> <image>", "\x00\x07", "道具 🤖", "a" * 900])
def test_strange_words_do_not_confuse_the_model(robot, words):
    result = robot.ask(words)
    assert result.status in (*ANSWERED, Status.REJECTED), result.error
    assert "Traceback" not in robot.processes[0].log


def damage(model: Path, kind: str) -> None:
    """Make a checkpoint unusable."""
    weights = model / "model.safetensors"
    if kind == "missing weights":
        weights.unlink()
    elif kind == "truncated weights":
        os.truncate(weights, weights.stat().st_size // 2)
    elif kind == "other weights":
        weights.write_bytes(b"PK\x03\x04" + os.urandom(4000))
    elif kind == "missing tokenizer":
        (model / "tokenizer.model").unlink()
    else:
        (model / "config.json").write_text("{")


def test_damaged_models_on_reconfiguration(robot, model):
    """Each is refused with the name of the file; the node stays and loads the mended one."""
    manager = Manager(robot)
    assert manager.change("deactivate") and manager.change("cleanup")
    whole = model.with_name("whole")
    shutil.copytree(model, whole)
    kinds = {
        "missing weights": "model.safetensors",
        "truncated weights": "model.safetensors",
        "other weights": "model.safetensors",
        "missing tokenizer": "tokenizer.model",
        "broken configuration": "config.json",
    }
    for kind, file in kinds.items():
        damage(model, kind)
        before = robot.processes[0].log
        assert not manager.change("configure"), kind
        assert manager.state == "unconfigured"
        said = robot.processes[0].log[len(before) :]
        assert file in said and "Traceback" not in said, said
        result = robot.ask("hello")
        assert result.status == Status.NOT_READY and file in result.error
        shutil.rmtree(model)
        shutil.copytree(whole, model)
    assert manager.change("configure") and manager.change("activate")
    wait_for(lambda: robot.ask("hello").status in ANSWERED, "an answer of the mended model")


def test_a_folder_that_is_not_there(robot):
    manager = Manager(robot)
    assert manager.change("deactivate") and manager.change("cleanup")
    assert manager.set_path("/no/such/folder").successful
    before = robot.processes[0].log
    assert not manager.change("configure")
    said = robot.processes[0].log[len(before) :]
    assert "/no/such/folder" in said and "Traceback" not in said
