"""`lisa-ros segment`, as a person at a terminal meets it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from official_layout import GOLDEN, PARITY, TOWER, write_official
from PIL import Image

from benchmarks.presets import random_lisa
from lisa_ros.cli import main
from lisa_ros.engine import Engine
from lisa_ros.model import weights
from lisa_ros.model.checkpoint import load, save
from lisa_ros.model.config import SHIPPED
from lisa_ros.serving.wire import run_lengths


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tiny")
    save(random_lisa("tiny"), folder)
    return str(folder)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "table.png"
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_an_answer_is_printed_and_written(
    model: str, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    numbers, shown = tmp_path / "answer.json", tmp_path / "answer.png"
    arguments = ["segment", str(image), "the red mug", "--model", model, "--mode", "mask"]
    outputs = ["--device", "cpu", "--json", str(numbers), "--overlay", str(shown)]
    assert main([*arguments, *outputs]) == 0
    printed = capsys.readouterr().out
    assert "status    OK" in printed
    assert "the red mug" in printed
    answer = json.loads(numbers.read_text())
    [instance] = answer["instances"]
    mask = np.zeros(48 * 64, bool)
    edges = np.cumsum([0, *instance["runs"]])
    for begin, end in zip(edges[1::2], edges[2::2], strict=False):
        mask[begin:end] = True
    assert edges[-1] == mask.size
    assert mask.sum() == instance["area"]
    changed = np.asarray(Image.open(shown)) != np.asarray(Image.open(image))
    assert not changed.any(-1)[~mask.reshape(48, 64)].any()
    assert changed.any(-1)[mask.reshape(48, 64)].mean() > 0.9


@pytest.mark.parametrize(("view", "looks"), [("tiles", 3), ("squash", 1)])
def test_mode_and_clip_view_reach_the_model(
    view: str, looks: int, model: str, image: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["segment", str(image), "the red mug", "--model", model, "--device", "cpu"]
    assert main([*arguments, "--mode", "text", "--clip-view", view]) == 0
    printed = capsys.readouterr().out
    assert "status    TEXT_ONLY" in printed and f"clip_encodes {looks}," in printed


def test_a_released_folder_is_asked_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pickle shards and a tower in a folder of its own, a photo, no conversion, loading shown."""
    monkeypatch.setattr(weights, "_WORTH_A_BAR", 0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    photo, numbers = tmp_path / "photo.jpg", tmp_path / "answer.json"
    Image.open(PARITY / "image_a.png").convert("RGB").save(photo)
    folder = write_official(tmp_path / "LISA")
    arguments = ["segment", str(photo), "the mug", "--mode", "mask", "--device", "cpu"]
    tower = ["--vision-tower", str(TOWER), "--json", str(numbers)]
    assert main([*arguments, "--model", str(folder), *tower]) == 0
    printed = capsys.readouterr()
    assert "status    OK" in printed.out
    assert "loading" in printed.err
    [instance] = json.loads(numbers.read_text())["instances"]
    image = np.asarray(Image.open(photo).convert("RGB"))
    answer = Engine(load(GOLDEN)).segment(image, "the mug", mode="mask")
    assert instance["area"] == answer.instances[0].area


@pytest.mark.parametrize("rows", ([[0, 1, 1], [1, 0, 0]], [[1, 1], [1, 1]], [[0, 0]]))
def test_run_lengths_begin_with_background(rows: list[list[int]]) -> None:
    mask = np.array(rows, bool)
    runs = run_lengths(mask)
    values = np.arange(len(runs)) % 2 == 1
    assert (np.repeat(values, runs) == mask.ravel()).all()


@pytest.mark.parametrize(
    ("file", "instruction", "says"),
    [
        ("missing.png", "the mug", "no file"),
        ("notes.txt", "the mug", "no image"),
        ("cut.png", "the mug", "cut.png"),
        ("dot.png", "the mug", "1x1"),
        ("table.png", "  ", "empty"),
        ("table.png", "x" * 10_000, "10000 characters"),
    ],
)
def test_bad_input_is_one_sentence(
    file: str,
    instruction: str,
    says: str,
    model: str,
    image: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    folder = image.parent
    (folder / "notes.txt").write_text("the mug is red")
    (folder / "cut.png").write_bytes(image.read_bytes()[:900])
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "dot.png")
    assert main(["segment", str(folder / file), instruction, "--model", model]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_a_missing_model_is_one_sentence(image: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["segment", str(image), "the mug", "--model", "/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_sentence(
    model: str, image: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments = ["segment", str(image), "the mug", "--model", model, "--mode", "mask"]
    assert main([*arguments, "--json", "/nowhere/answer.json"]) == 2
    assert main([*arguments, "--overlay", str(image.parent / "answer.nothing")]) == 2
    assert capsys.readouterr().err.count("cannot write") == 2


@pytest.mark.skipif(not (SHIPPED / "nano").is_dir(), reason="nano's weights are not in this tree")
def test_the_readmes_lines_of_python(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    checkout = Path(__file__).parents[2]
    readme = (checkout / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(from lisa_ros import load_engine.*?)```", readme, re.DOTALL)
    [printed] = re.findall(r"  # (AnswerStatus\..*)", code)
    monkeypatch.chdir(checkout)
    threads = torch.get_num_threads()
    try:
        exec(code, {})
    finally:
        torch.set_num_threads(threads)
    assert capsys.readouterr().out.startswith(printed + "\n")
