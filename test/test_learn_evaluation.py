"""The benchmark's files, the figures, the scores: nothing is drawn by the simulator here."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from lisa_ros.cli import main
from lisa_ros.engine.answer import Answer, Instance, Status
from lisa_ros.engine.scoring import evidence, probability
from lisa_ros.errors import LisaError
from lisa_ros.learn import benchmark, calibration, metrics
from lisa_ros.learn.benchmark import BENCHMARK, VALIDATION, ask, compare, summarise, write_questions
from lisa_ros.learn.contact_sheet import choose, contact_sheet
from lisa_ros.learn.evaluation import evaluate, figures, report
from lisa_ros.learn.reasonseg import DatasetError, draw, outlines, read_dataset
from lisa_ros.learn.scenes import TEST_SEEDS, TRAIN_SEEDS, VALIDATION_SEEDS
from lisa_ros.model.config import SCORE_TERMS
from lisa_ros.sim.camera import View

SHAPES = {
    1: ("mug", "red", (52, 60)),
    2: ("mug", "blue", (150, 70)),
    3: ("book", "green", (90, 20)),
}


@pytest.fixture(scope="module")
def view() -> View:
    """A red and a blue mug, each a ring (a mask with a hole), and a green book."""
    rgb = np.full((120, 200, 3), 90, np.uint8)
    ids = np.zeros((120, 200), np.uint8)
    tints = {"red": (200, 30, 30), "blue": (30, 60, 200), "green": (30, 160, 40)}
    objects = []
    for number, (kind, color, (u, v)) in SHAPES.items():
        cv2.circle(ids, (u, v), 16, number, -1)
        if kind == "mug":
            cv2.circle(ids, (u, v), 7, 0, -1)
        rgb[ids == number] = tints[color]
        area = int((ids == number).sum())
        objects.append(
            {
                "id": number,
                "kind": kind,
                "color": color,
                "material": "paper" if kind == "book" else "ceramic",
                "size": [0.1, 0.1, 0.1],
                "position": [0.0, 0.0, 0.05],
                "center": [u, v],
                "box": [u - 16, v - 16, 33, 33],
                "area": area,
                "visible": 1.0,
            }
        )
    record = {"seed": 5, "width": 200, "height": 120, "objects": objects}
    return View(rgb, np.ones((120, 200)), ids, np.eye(3), np.eye(4), record)


QUESTIONS = [
    {
        "instruction": "Give me the red mug.",
        "answer": "It is the red mug [SEG].",
        "targets": [1],
        "type": "plain",
        "patterns": "train",
    },
    {
        "instruction": "All mugs, please.",
        "answer": "They are the red mug [SEG] and the blue mug [SEG].",
        "targets": [1, 2],
        "type": "plural",
        "patterns": "train",
    },
    {
        "instruction": "And the knife?",
        "answer": "There is no knife here.",
        "targets": [],
        "type": "absent",
        "patterns": "test",
        "history": [["Give me the red mug.", "It is the red mug [SEG]."]],
    },
]


@pytest.fixture
def dataset(view, tmp_path) -> Path:
    folder = tmp_path / "set"
    (folder / "test-seen" / "instances").mkdir(parents=True)
    write_questions(folder / "test-seen", "0000", view, QUESTIONS)
    return folder


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
    for picture, question in zip(pairs, QUESTIONS, strict=True):
        height, width = cv2.imread(str(picture)).shape[:2]
        mask, text, is_sentence = reads_reasonseg(picture.with_suffix(".json"), (height, width))
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


def no_picture(folder: Path) -> None:
    (folder / "0000_1.jpg").unlink()


def no_json(folder: Path) -> None:
    (folder / "0000_1.json").unlink()


def other_size(folder: Path) -> None:
    Image.new("L", (20, 12)).save(folder / "instances" / "0000.png")


def no_masks(folder: Path) -> None:
    (folder / "instances" / "0000.png").unlink()


def other_json(folder: Path) -> None:
    (folder / "0000_1.json").write_text('{"text": ["x"], "is_sentence": true, "shapes": [{}]}')


def text_for_a_picture(folder: Path) -> None:
    (folder / "0000_1.jpg").write_text("no picture")


def nothing(folder: Path) -> None:
    for path in folder.glob("*.j*"):
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (broken_json, "0000_1.json cannot be read as JSON"),
        (no_picture, "0000_1.json has no 0000_1.jpg beside it"),
        (no_json, "0000_1.jpg has no 0000_1.json beside it"),
        (other_size, "must have the same size"),
        (no_masks, "0000.png is missing"),
        (other_json, "is not ReasonSeg's format"),
        (text_for_a_picture, ".jpg cannot be read as a picture"),
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


def test_the_hashes_say_what_differs(dataset, view, tmp_path, monkeypatch):
    fixed = {"pictures": 1, **summarise(dataset)}
    monkeypatch.setattr(benchmark, "FIXED", tmp_path / "fixed.json")
    (tmp_path / "fixed.json").write_text(json.dumps(fixed))
    assert compare(summarise(dataset)).startswith("This is the fixed test set")

    def written(name: str, look: View, questions: list[dict]) -> str:
        (tmp_path / name / "test-seen" / "instances").mkdir(parents=True)
        write_questions(tmp_path / name / "test-seen", "0000", look, questions)
        return compare(summarise(tmp_path / name))

    brighter, grown = view.rgb + np.uint8(9), view.instances.copy()
    grown[0, 0] = 1
    assert "the pixels are not" in written("pixels", replace(view, rgb=brighter), QUESTIONS)
    assert "the masks are not" in written("masks", replace(view, instances=grown), QUESTIONS)
    other = [*QUESTIONS[:2], {**QUESTIONS[2], "instruction": "And a knife?"}]
    assert "Figures cannot be compared" in written("words", view, other)
    assert "has 1 pictures a split" in written("fewer", view, QUESTIONS[:2])


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


truths = arrays(np.uint8, (3, 4), elements=st.sampled_from([0, 1, 255]))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(arrays(bool, (3, 4)), truths), min_size=1, max_size=6))
def test_giou_and_ciou_are_the_papers(pairs):
    ious, intersections, unions = [], 0, 0
    for predicted, truth in pairs:  # LISA's own way: two histograms, 255 left out
        kept = predicted.astype(int)[truth != 255], truth[truth != 255].astype(int)
        both = np.bincount(kept[0][kept[0] == kept[1]], minlength=2)[1]
        either = np.bincount(kept[0], minlength=2)[1] + np.bincount(kept[1], minlength=2)[1] - both
        ious.append(both / (either + 1e-5) + (either == 0))
        intersections, unions = intersections + both, unions + either
    overlaps = [metrics.overlap(predicted, truth) for predicted, truth in pairs]
    assert metrics.giou(overlaps) == pytest.approx(np.mean(ious), abs=1e-9)
    assert metrics.ciou(overlaps) == pytest.approx(intersections / (unions + 1e-10), abs=1e-9)


def test_average_precision_by_hand():
    perfect = [np.array([[0.9, 0.0], [0.0, 0.8]])]
    assert metrics.average_precision([[0.9, 0.8]], perfect) == pytest.approx(1)
    # the second mask shows the same object again: right, wrong, and half of the objects missed
    twice = [np.array([[0.9, 0.0], [0.7, 0.1]])]
    assert metrics.average_precision([[0.9, 0.8]], twice) == pytest.approx(51 / 101)
    # a surer wrong mask in another question comes first: precision 1/2, then 2/3
    other = [np.array([[0.9, 0.0], [0.0, 0.8]]), np.zeros((1, 0))]
    assert metrics.average_precision([[0.8, 0.7], [0.95]], other) == pytest.approx(2 / 3)
    assert metrics.average_precision([[]], [np.zeros((0, 2))]) == 0


def test_calibration_error_by_hand():
    scores = np.array([0.95, 0.95, 0.15, 0.15])
    assert metrics.calibration_error(scores, np.array([1, 1, 0, 0])) == pytest.approx(0.1)
    assert metrics.calibration_error(scores, np.array([0, 0, 1, 1])) == pytest.approx(0.9)


class Scripted:
    """Stands where the engine does: answers what it is told for each instruction."""

    def __init__(self, answers: dict[str, tuple[str, list[np.ndarray]]], score: float = 0.9):
        self.answers, self.score, self.asked = answers, score, []

    def segment(self, image, instruction, *, mode, history, key):
        self.asked.append((instruction, mode, history, key))
        transcript, masks = self.answers[instruction]
        terms = evidence(0.8, 0.5)
        found = [Instance(m, self.score, 1.0, "", (0, 0, 1, 1), int(m.sum()), terms) for m in masks]
        text = transcript.replace(" [SEG]", "")
        status = Status.OK if masks else Status.NOT_FOUND
        return Answer(text, status, found, transcript=transcript)


def asked_by(dataset, view, **answers) -> dict:
    """The figures of a model that answers rightly but for what `answers` say, by number."""
    script = {
        question["instruction"]: (
            question["answer"],
            [view.instances == target for target in question["targets"]],
        )
        for question in QUESTIONS
    }
    for number, answer in answers.items():
        script[QUESTIONS[int(number[1:])]["instruction"]] = answer
    samples = [sample for sample, _ in evaluate(Scripted(script), read_dataset(dataset))]
    return figures(samples)


def test_a_perfect_model_has_perfect_figures(dataset, view):
    found = asked_by(dataset, view)
    assert found.pop("samples") == 3
    assert found.pop("false_refusals") == 0
    assert all(value == pytest.approx(1, abs=1e-6) for value in found.values()), found


def test_each_figure_notices_its_own_fault(dataset, view):
    red, blue, book = (view.instances == number for number in (1, 2, 3))
    found = asked_by(dataset, view, q0=("It is the red mug [SEG].", [book]))
    assert found["giou"] == pytest.approx(2 / 3, abs=1e-4)
    assert found["named"] == 1
    found = asked_by(dataset, view, q0=("It is the blue mug [SEG].", [red]))
    assert (found["giou"], found["named"], found["named_with_color"]) == (
        pytest.approx(1, abs=1e-4), 1, 0.5,
    )  # fmt: skip
    found = asked_by(dataset, view, q0=("There is no mug here.", []))
    assert (found["false_refusals"], found["named"]) == (0.5, 0.5)
    found = asked_by(dataset, view, q2=("It is the knife [SEG].", [book]))
    assert found["refusal_accuracy"] == 0
    assert found["giou"] == pytest.approx(2 / 3, abs=1e-4)
    found = asked_by(dataset, view, q1=("They are the mugs [SEG].", [red | blue | book]))
    assert found["giou"] == pytest.approx(8 / 9, abs=0.02)
    assert (found["ap50"], found["named"]) == (0, 0.5)


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("It is the red mug [SEG].", True),
        ("red mug [SEG]", True),
        ("It is the red mug [SEG] and the red mug [SEG].", False),
        ("It is the red smug [SEG].", False),
        ("It is the red book [SEG].", False),
        ("[SEG].", None),
    ],
)
def test_naming_counts_words_and_masks(dataset, view, said, right):
    script = Scripted({QUESTIONS[0]["instruction"]: (said, [view.instances == 1])})
    [(sample, _)] = evaluate(script, read_dataset(dataset)[:1])
    assert sample.named is right


def test_dialogues_modes_and_frames_reach_the_engine(dataset, view):
    script = Scripted({q["instruction"]: (q["answer"], []) for q in QUESTIONS})
    list(evaluate(script, read_dataset(dataset), mode="mask"))
    instruction, mode, history, _ = script.asked[2]
    assert (instruction, mode) == ("And the knife?", "mask")
    assert history == [("Give me the red mug.", "It is the red mug [SEG].")]
    assert len({key for *_, key in script.asked}) == 1


def test_the_report_has_splits_and_kinds(dataset, view):
    script = {q["instruction"]: (q["answer"], []) for q in QUESTIONS}
    samples = [sample for sample, _ in evaluate(Scripted(script), read_dataset(dataset))]
    [seen] = report(samples).values()
    assert {name: row["samples"] for name, row in seen.items()} == {
        "plain": 1, "plural": 1, "absent": 1, "all": 3,
    }  # fmt: skip


def masks_that_follow(weights: dict[str, float], count: int, view, dataset) -> list:
    """Samples whose masks are right with the probability that `weights` give to their evidence."""
    random = np.random.default_rng(3)
    [item] = read_dataset(dataset)[:1]
    script = Scripted({item.instruction: (QUESTIONS[0]["answer"], [view.instances == 1])})
    [(sample, _)] = evaluate(script, [item])
    samples = []
    for _ in range(count):
        words = random.uniform(0.2, 1) if random.random() < 0.7 else None
        terms = evidence(random.uniform(0.55, 0.99), words)
        chance = probability(terms, weights)
        iou = 0.9 if random.random() < chance else 0.1
        samples.append(
            replace(sample, evidence=[terms], ious=np.array([[iou]]), scores=np.array([chance]))
        )
    return samples


def test_the_fit_finds_what_scores_mean(dataset, view):
    weights = {"bias": -1.0, "mask": 0.8, "words": 1.5, "wordless": -0.7}
    samples = masks_that_follow(weights, 4000, view, dataset)
    found = calibration.fit(samples)
    assert found == pytest.approx(weights, abs=0.3)
    scores = [probability(s.evidence[0], found) for s in samples]
    assert np.abs(np.array(scores) - [s.scores[0] for s in samples]).mean() < 0.03
    assert calibration.figures(samples)["calibration_error"] < 0.04


def test_too_few_masks_are_refused(dataset, view):
    samples = masks_that_follow(dict.fromkeys(SCORE_TERMS, 0.0), 20, view, dataset)
    with pytest.raises(LisaError, match="20 masks"):
        calibration.fit(samples)


def test_pictures_are_drawn(dataset, view, tmp_path):
    script = Scripted({q["instruction"]: (q["answer"], [view.instances == 1]) for q in QUESTIONS})
    answered = list(evaluate(script, read_dataset(dataset)))
    contact_sheet(answered, tmp_path / "new" / "sheet.png")
    calibration.draw_reliability([sample for sample, _ in answered], tmp_path / "new" / "r.png")
    for name in ("sheet.png", "r.png"):
        assert cv2.imread(str(tmp_path / "new" / name)).std() > 10
    assert len(choose(1000)) == 40
    assert choose(1000) == choose(1000)


def test_a_folder_of_another_make_cannot_be_checked(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "x.jpg")
    entry = {"text": ["x"], "is_sentence": True, "shapes": []}
    (tmp_path / "x.json").write_text(json.dumps(entry))
    with pytest.raises(DatasetError, match="no set of ours"):
        summarise(tmp_path)
