"""The figures and the scores, on questions about drawn things and a scripted engine."""

import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest
from drawn_questions import QUESTIONS
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lisa_ros.cli import main
from lisa_ros.engine.answer import Answer, AnswerStatus, Instance
from lisa_ros.engine.request_state import evidence, probability
from lisa_ros.errors import LisaError
from lisa_ros.evaluation import calibration
from lisa_ros.evaluation import evaluate as metrics
from lisa_ros.evaluation.evaluate import evaluate, figures, report
from lisa_ros.evaluation.plots import choose, contact_sheet, draw_reliability
from lisa_ros.evaluation.reasonseg import read_dataset
from lisa_ros.model.checkpoint import find
from lisa_ros.model.config import SCORE_TERMS, LisaConfig

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
        found = [Instance(m, self.score, 1.0, "", terms) for m in masks]
        text = transcript.replace(" [SEG]", "")
        status = AnswerStatus.OK if masks else AnswerStatus.NOT_FOUND
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
    instruction, mode, history, _ = script.asked[-1]
    assert (instruction, mode) == ("And the knife?", "mask")
    assert history == (("Give me the red mug.", "It is the red mug [SEG]."),)
    assert len({key for *_, key in script.asked}) == 1


def test_a_dialogue_follows_the_models_own_answers_about_the_same_image(dataset):
    script = {q["instruction"]: ("It is the green book [SEG].", []) for q in QUESTIONS}
    engine = Scripted(script)
    item = read_dataset(dataset)[2]
    list(evaluate(engine, [item]))
    (first, _, none, key), (second, _, history, same) = engine.asked
    assert (first, second) == ("Give me the red mug.", "And the knife?")
    assert not none
    assert history == (("Give me the red mug.", "It is the green book [SEG]."),)
    assert key == same == item.scene


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


def test_calibrating_asks_both_ways_and_writes_what_it_found(
    dataset, view, tmp_path, monkeypatch, capsys
):
    weights = {"bias": -1.0, "mask": 0.8, "words": 1.5, "wordless": -0.7}
    samples = masks_that_follow(weights, 300, view, dataset)
    samples.append(replace(samples[0], fault="the image is cut"))
    modes = []

    def ask(engine, items, mode):
        modes.append(mode)
        assert engine.lisa.config.score_calibration == {
            **dict.fromkeys(SCORE_TERMS, 0.0),
            "mask": 1,
        }
        return [(sample, None) for sample in samples]

    monkeypatch.setattr("lisa_ros.cli.eval.ask", ask)
    model = shutil.copytree(find("nano"), tmp_path / "model")
    assert main(["calibrate", "--model", str(model), "--dataset", str(dataset)]) == 0
    assert modes == ["auto", "mask"]
    said = capsys.readouterr().out
    assert "600 masks" in said
    assert "left out" in said
    found = LisaConfig.from_json(model / "config.json").score_calibration
    assert found == calibration.fit(samples[:-1] * 2)


def test_images_are_drawn(dataset, view, tmp_path):
    script = Scripted({q["instruction"]: (q["answer"], [view.instances == 1]) for q in QUESTIONS})
    answered = list(evaluate(script, read_dataset(dataset)))
    contact_sheet(answered, tmp_path / "new" / "sheet.png")
    draw_reliability([sample for sample, _ in answered], tmp_path / "new" / "r.png")
    for name in ("sheet.png", "r.png"):
        assert cv2.imread(str(tmp_path / "new" / name)).std() > 10
    assert len(choose(1000)) == 40
    assert choose(1000) == choose(1000)
