"""How well a model answers about tabletops that it has not seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lisa_ros.engine import Answer, Engine
from lisa_ros.learn.metrics import SegmentationMeter
from lisa_ros.learn.scenes import TEST_SEEDS
from lisa_ros.sim.camera import Camera, View
from lisa_ros.sim.instructions import compose
from lisa_ros.sim.world import Tabletop


@dataclass(frozen=True)
class Sample:
    """One test question with its answer; `iou` of the union of all masks, `named`: the answer
    names the kinds meant (None where the answer is a mask alone)."""

    view: View
    question: dict
    answer: Answer
    iou: float
    named: bool | None


def test_views(scenes: int) -> Iterator[View]:
    """One view of each of the first `scenes` test seeds, 640x480."""
    for seed in TEST_SEEDS[:scenes]:
        scene = Tabletop(seed)
        camera = Camera(scene)
        camera.move(np.random.default_rng((seed, 1)))
        yield camera.look()
        camera.close()


def evaluate(
    engine: Engine, scenes: int, questions: int, split: str
) -> Iterator[tuple[Sample, dict[str, SegmentationMeter]]]:
    """Ask `questions` about each test scene; yield every sample with the meters so far.

    `split` chooses the sentences: "train" patterns on new scenes, or "test" patterns, which
    training never used. Questions with a text answer only are left out.
    """
    meters: dict[str, SegmentationMeter] = defaultdict(SegmentationMeter)
    for index, view in enumerate(test_views(scenes)):
        random = np.random.default_rng((view.record["seed"], 2))
        for question in compose(view.record, random, questions, split):
            if question["form"] == "text":
                continue
            sample = _ask(engine, view, question, key=index)
            truth = np.isin(view.instances, question["targets"])
            predicted = union(sample.answer, truth.shape)
            refused = not sample.answer.instances
            for name in (question["type"], "all"):
                meters[name].add(predicted, truth, refused)
            yield sample, meters


def union(answer: Answer, shape: tuple[int, int]) -> np.ndarray:
    """All masks of an answer in one, bool (H,W)."""
    combined = np.zeros(shape, dtype=bool)
    for instance in answer.instances:
        combined |= instance.mask
    return combined


def _ask(engine: Engine, view: View, question: dict, key: int) -> Sample:
    history = [tuple(turn) for turn in question.get("history", ())]
    answer = engine.segment(view.rgb, question["instruction"], history=history, key=key)
    truth = np.isin(view.instances, question["targets"])
    iou = SegmentationMeter().add(union(answer, truth.shape), truth, not answer.instances)
    return Sample(view, question, answer, iou, _named(view, question, answer))


def _named(view: View, question: dict, answer: Answer) -> bool | None:
    if question["form"] == "mask" or not question["targets"]:
        return None
    kinds = {o["kind"] for o in view.record["objects"] if o["id"] in question["targets"]}
    return all(kind in answer.text for kind in kinds)
