"""The node around the real engine, with a small untrained model, also a damaged one."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from model_samples import small_lisa
from node_rig import Manager, drawn_image, rig, wait_for

from lisa_ros.model.checkpoint import save
from lisa_ros.node.loading import load_model
from lisa_ros.node.parameters import PARAMETERS
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
        patient = ("--ros-args", "-p", "input.max_age:=60")
        robot.start("--model", str(model), *patient, command=COMMAND)
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


def test_an_image_is_encoded_by_the_first_question_about_it(robot):
    robot.cut()
    message = robot.show(drawn_image(96, 64, seed=3), stamp=(77, 0))
    time.sleep(1.0)
    result = robot.ask("where is the mug?")
    assert result.header == message.header
    assert result.clip_encodes == 1
    robot.film()


def test_no_question_encodes_anything_where_images_are_prepared(model):
    """The camera goes on, so that without it every question is about an image of its own.

    In the mode `mask` each of them needs both encoders.
    """
    with rig() as robot:
        prepare = ("-p", "model.prepare_frames:=true", "-p", "input.max_age:=60")
        ros = ("--ros-args", "-p", "query.mode:=mask", *prepare)
        robot.start("--model", str(model), *ros, command=COMMAND)
        robot.film(rate=10)
        wait_for(lambda: robot.ask("ready").status in ANSWERED, "the first answer")
        first = wait_for(lambda: about_another_image(robot), "a prepared image")
        for words in ("the blue mug", "a spoon", "the plate"):
            assert encoded_ahead(robot.ask(words)), words
        before = first.header.stamp.sec
        wait_for(lambda: robot.ask("it").header.stamp.sec > before, "a newer image")
        assert encoded_ahead(robot.ask("it"))
        assert "Traceback" not in robot.processes[0].log


def about_another_image(robot):
    """The answer after a rest, if it needed no encoder and is not about the image before."""
    time.sleep(0.5)
    before, result = robot.results[-1].header, robot.ask("the mug")
    return encoded_ahead(result) if result.header != before else None


def encoded_ahead(result):
    assert result.status in ANSWERED, result.error
    return result if (result.sam_encodes, result.clip_encodes) == (0, 0) else None


def settings(**changes) -> dict:
    values = {parameter.name: parameter.default for parameter in PARAMETERS}
    return values | {"model.device": "cpu"} | changes


def test_number_of_threads(model, monkeypatch):
    """0: chosen for the model, which is a small one here, also after another number was set."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    chosen = torch.get_num_threads()
    try:
        for threads, expected in ((0, 1), (chosen + 1, chosen + 1), (0, 1)):
            load_model(settings(**{"model.path": str(model), "model.threads": threads}))
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(chosen)


def test_weights_that_are_not_numbers_are_a_fault_of_the_model(tmp_path):
    broken = small_lisa()
    with torch.no_grad():
        broken.network.lm_head.weight[0, 0] = float("nan")
    save(broken, tmp_path / "broken")
    with rig() as robot:
        process = robot.start("--model", str(tmp_path / "broken"), command=COMMAND)
        robot.film(rate=5)
        result = wait_for(lambda: answer_with_image(robot), "an answer")
        assert result.status == Status.MODEL_ERROR and not result.instances
        assert "FloatingPointError" in result.error
        assert "token logits are not finite" in process.log


def answer_with_image(robot):
    result = robot.ask("the mug")
    return None if result.status == Status.NO_IMAGE else result


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
