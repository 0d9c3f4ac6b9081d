"""The files of the test set: ReasonSeg's format, what is beside it, spoilt ones, hashes."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from drawn_questions import QUESTIONS
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from PIL import Image

from lisa_ros.cli import main
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.reasonseg import draw, outlines, read_dataset
from lisa_tabletop.evaluation import fixed_test_set as benchmark
from lisa_tabletop.evaluation.fixed_test_set import (
    BENCHMARK,
    VALIDATION,
    ask,
    compare,
    summarise,
    write_questions,
)
from lisa_tabletop.world.camera import SceneView
from lisa_tabletop.world.tabletop import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS


def reads_reasonseg(path: Path, size: tuple[int, int]) -> tuple[np.ndarray, list[str], bool]:
    """The published reading rules, written down a second time."""
    entry = json.loads(path.read_text(encoding="utf-8"))
    layers = []
    for shape in entry["shapes"]:
        if shape["label"].lower() != "flag":
            points = np.array([shape["points"]], dtype=np.int32)
            area = np.zeros(size, np.uint8)
            cv2.polylines(area, points, True, 1, 1)
            cv2.fillPoly(area, points, 1)
            layers.append(
                (int(area.sum()), 255 if "ignore" in shape["label"].lower() else 1, points)
            )
    mask = np.zeros(size, np.uint8)
    for _, value, points in sorted(layers, key=lambda layer: layer[0], reverse=True):
        cv2.polylines(mask, points, True, value, 1)
        cv2.fillPoly(mask, points, value)
    return mask, entry["text"], entry["is_sentence"]


def test_a_reader_of_reasonseg_reads_the_benchmark(view, dataset):
    pairs = sorted((dataset / "test-seen").glob("*.jpg"))
    assert len(pairs) == len(QUESTIONS)
    for image, question in zip(pairs, QUESTIONS, strict=True):
        height, width = cv2.imread(str(image)).shape[:2]
        mask, text, is_sentence = reads_reasonseg(image.with_suffix(".json"), (height, width))
        assert text == [question["instruction"]]
        assert is_sentence is True
        assert np.array_equal(mask == 1, np.isin(view.instances, question["targets"]))


@settings(max_examples=80, deadline=None)
@given(arrays(bool, (11, 13)))
def test_polygons_and_masks_are_the_same(mask):
    shapes = [{"label": "target", "points": ring} for ring in outlines(mask)]
    drawn = draw(shapes, (13, 11)) == 1
    wrong = (drawn != mask).sum()
    # a cut to a hole may run over a pixel beside it where everything is one pixel wide
    assert wrong <= 0.1 * mask.size
    assert not (mask & ~drawn).any()


def test_what_reasonseg_has_no_field_for_is_kept(view, dataset):
    plain, plural, absent = read_dataset(dataset)
    mask, instances = plural.truth()
    assert [np.array_equal(instances[n], view.instances == n + 1) for n in range(2)] == [True, True]
    assert np.array_equal(mask == 1, instances.any(0))
    assert plural.kind == "plural"
    assert absent.truth()[1].shape == (0, 120, 200)
    assert absent.history == [("Give me the red mug.", "It is the red mug [SEG].")]
    assert plain.scene == plural.scene
    assert np.abs(plain.rgb().astype(int) - view.rgb).mean() < 3


def test_a_set_of_reasonseg_itself_is_read(tmp_path):
    folder = tmp_path / "ReasonSeg" / "val"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "x.jpg")
    square = [[5, 5], [24.6, 5], [24.6, 20], [5, 20]]
    shapes = [
        {"label": "ignore1", "points": [[10, 10], [14, 10], [14, 14], [10, 14]]},
        {"label": "target", "points": square},
        {"label": "FLAG", "points": [[0, 0], [39, 0], [39, 29]]},
    ]
    entry = {"text": ["café cup", "a rephrasing"], "is_sentence": False, "shapes": shapes}
    text = json.dumps(entry, ensure_ascii=False)
    (folder / "x.json").write_bytes(text.encode("cp1252"))
    [item] = read_dataset(tmp_path / "ReasonSeg")
    mask, instances = item.truth()
    assert item.split == "val"
    assert item.instruction == "What is café cup in this image?"
    assert (mask == 255).sum() == 25
    assert (mask == 1).sum() == 20 * 16 - 25
    assert np.array_equal(instances, (mask == 1)[None])
    assert [i.split for i in read_dataset(folder)] == ["val"]


def broken_json(folder: Path) -> None:
    (folder / "0000_1.json").write_text("{")


def no_image(folder: Path) -> None:
    (folder / "0000_1.jpg").unlink()


def no_json(folder: Path) -> None:
    (folder / "0000_1.json").unlink()


def other_size(folder: Path) -> None:
    Image.new("L", (20, 12)).save(folder / "instances" / "0000.png")


def no_masks(folder: Path) -> None:
    (folder / "instances" / "0000.png").unlink()


def other_json(folder: Path) -> None:
    (folder / "0000_1.json").write_text('{"text": ["x"], "is_sentence": true, "shapes": [{}]}')


def text_for_an_image(folder: Path) -> None:
    (folder / "0000_1.jpg").write_text("no image")


def nothing(folder: Path) -> None:
    for path in folder.glob("*.j*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (broken_json, "0000_1.json cannot be read as JSON"),
        (no_image, "0000_1.json has no 0000_1.jpg beside it"),
        (no_json, "0000_1.jpg has no 0000_1.json beside it"),
        (other_size, "must have the same size"),
        (no_masks, "0000.png is missing"),
        (other_json, "is not ReasonSeg's format"),
        (text_for_an_image, ".jpg cannot be read as an image"),
        (nothing, "holds no data set"),
    ],
)
def test_a_spoilt_set_is_one_sentence_and_exit_2(dataset, spoil, words, capsys):
    spoil(dataset / "test-seen")
    assert main(["eval", "--dataset", str(dataset)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_folder_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert main(["eval", "--dataset", str(tmp_path / "none")]) == 2
    assert "there is no data set folder" in capsys.readouterr().err


def test_the_benchmark_is_not_written_over_something(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("mine")
    assert main(["sim-benchmark", str(tmp_path), "--images", "1"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_run_that_is_told_to_end_while_it_draws_ends_in_order(tmp_path):
    command = ["-m", "lisa_ros.cli", "sim-benchmark", str(tmp_path / "set"), "--processes", "2"]
    run = subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + 300
        while not list(tmp_path.rglob("*.jpg")) and run.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.1)
        run.terminate()
        said = run.communicate(timeout=300)[1]
    finally:
        run.kill()
    assert (run.returncode, said) == (130, "")
    assert not [path for path in tmp_path.iterdir() if "lock" not in path.name]


def test_two_first_runs_have_one_whole_set(view, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(benchmark, "look_at", lambda seed, held_out: view)
    few = {"validation": replace(VALIDATION["validation"], seeds=range(3))}
    monkeypatch.setitem(benchmark.SETS, "few", few)
    monkeypatch.setattr(benchmark.draw_set, "__defaults__", (3, 1))
    with ThreadPoolExecutor(2) as runs:
        folders = set(runs.map(benchmark.drawn_once, ["few"] * 2))
    [folder] = folders
    summary = json.loads((folder / "dataset.json").read_text())
    assert summary["questions"] == summarise(folder)["questions"]
    assert len(list((folder / "validation" / "instances").iterdir())) == 3
    assert not [path for path in folder.parent.iterdir() if "part" in path.name]


def test_the_hashes_say_what_differs(dataset, view, tmp_path, monkeypatch):
    fixed = {"images": 1, **summarise(dataset)}
    monkeypatch.setattr(benchmark, "FIXED", tmp_path / "fixed.json")
    (tmp_path / "fixed.json").write_text(json.dumps(fixed))
    assert compare(summarise(dataset)).startswith("This is the fixed test set")

    def written(name: str, look: SceneView, questions: list[dict]) -> str:
        (tmp_path / name / "test-seen" / "instances").mkdir(parents=True)
        write_questions(tmp_path / name / "test-seen", "0000", look, questions)
        return compare(summarise(tmp_path / name))

    brighter, grown = view.rgb + np.uint8(9), view.instances.copy()
    grown[0, 0] = 1
    assert "the pixels are not" in written("pixels", replace(view, rgb=brighter), QUESTIONS)
    assert "the masks are not" in written("masks", replace(view, instances=grown), QUESTIONS)
    other = [*QUESTIONS[:2], {**QUESTIONS[2], "instruction": "And a knife?"}]
    assert "Figures cannot be compared" in written("words", view, other)
    assert "has 1 images a split" in written("fewer", view, QUESTIONS[:2])


def test_splits_ask_what_they_say(view):
    random = np.random.default_rng(0)
    for name, split in BENCHMARK.items():
        questions = ask(view.record, split, random)
        assert questions, name
        assert all(q["form"] == "name" for q in questions)
        assert {q["patterns"] for q in questions} == set(split.patterns)
        assert len(questions) <= benchmark.QUESTIONS
    assert not any(q["targets"] for q in ask(view.record, BENCHMARK["test-absent"], random))
    several = ask(view.record, BENCHMARK["test-several"], random)
    assert all(len(q["targets"]) > 1 for q in several)


def test_tables_of_training_validation_and_test_are_different():
    ranges = [TRAIN_SEEDS, VALIDATION_SEEDS, TEST_SEEDS]
    assert all(a.stop <= b.start for a, b in pairwise(ranges))
    first = benchmark.IMAGES
    tested = {seed for split in BENCHMARK.values() for seed in split.seeds[:first]}
    assert tested <= set(TEST_SEEDS)
    assert set(VALIDATION["validation"].seeds[:first]) <= set(VALIDATION_SEEDS)
    shapes = set(BENCHMARK["test-shapes"].seeds[:first])
    assert not shapes & set(BENCHMARK["test-seen"].seeds[:first])


def test_a_folder_of_another_make_cannot_be_checked(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "x.jpg")
    entry = {"text": ["x"], "is_sentence": True, "shapes": []}
    (tmp_path / "x.json").write_text(json.dumps(entry))
    with pytest.raises(DatasetError, match="no set of ours"):
        summarise(tmp_path)
