"""How well a model answers the questions of a data set."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lisa_ros.engine import Answer, Engine
from lisa_ros.engine.answer import SEG, label_of
from lisa_ros.engine.question import Mode
from lisa_ros.evaluation import metrics
from lisa_ros.evaluation.metrics import HIT, Overlap
from lisa_ros.evaluation.reasonseg import TARGET, Item
from lisa_tabletop.evaluation.fixed_test_set import look_at
from lisa_tabletop.training.scenes import TEST_SEEDS
from lisa_tabletop.world.camera import View

ALL = "all"


@dataclass(frozen=True)
class Sample:
    """One answered question in numbers, so that thousands can be kept.

    `overlap` of all masks as one; `absent`: nothing is meant; `refused`: no mask came; `named`: the
    words before the masks are the things meant, and `colored`: their colours too (None where there
    is nothing to compare); `scores` (N,) and `evidence` of the masks, `ious` (N,M) with the M
    objects meant.
    """

    item: Item
    text: str
    overlap: Overlap
    absent: bool
    refused: bool
    named: bool | None
    colored: bool | None
    scores: np.ndarray
    evidence: list[dict[str, float]]
    ious: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """For every mask, whether it shows one of the objects meant."""
        return self.ious.max(1, initial=0.0) > HIT


def evaluate(
    engine: Engine, items: Iterable[Item], mode: Mode = "auto"
) -> Iterator[tuple[Sample, Answer]]:
    """Ask every question of a set, in order."""
    for item in items:
        answer = engine.segment(
            item.rgb(), item.instruction, mode=mode, history=item.history, key=item.scene
        )
        yield measure(item, answer), answer


def measure(item: Item, answer: Answer) -> Sample:
    """Compare one answer with what was meant."""
    truth, instances = item.truth()
    masks = [instance.mask for instance in answer.instances]
    named, colored = _named(item, answer)
    return Sample(
        item=item,
        text=answer.text,
        overlap=metrics.overlap(union(answer, truth.shape), truth),
        absent=not (truth == TARGET).any(),
        refused=not masks,
        named=named,
        colored=colored,
        scores=np.array([instance.score for instance in answer.instances]),
        evidence=[instance.evidence for instance in answer.instances],
        ious=metrics.instance_ious(masks, instances),
    )


def union(answer: Answer, shape: tuple[int, int]) -> np.ndarray:
    """All masks of an answer in one, bool (H,W)."""
    combined = np.zeros(shape, dtype=bool)
    for instance in answer.instances:
        combined |= instance.mask
    return combined


def report(samples: Sequence[Sample]) -> dict[str, dict[str, dict]]:
    """Figures by split and kind of question; `ALL` of a split, and of everything, come last."""
    groups: dict[str, dict[str, list[Sample]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        groups[sample.item.split][sample.item.kind].append(sample)
    for split in groups.values():
        if len(split) > 1:
            split[ALL] = [sample for some in split.values() for sample in some]
    if len(groups) > 1:
        groups[ALL][ALL] = list(samples)
    return {
        split: {kind: figures(some) for kind, some in kinds.items()}
        for split, kinds in groups.items()
    }


def figures(samples: Sequence[Sample]) -> dict[str, float | int | None]:
    """The figures of some answers; None where nothing was asked that the figure is about.

    `refusal_accuracy`: of the questions about absent things, those answered without a mask;
    `false_refusals`: of the others, those answered without a mask; `ap50`: over the questions that
    mean two objects or more; `named`: of the answers about things that are there, those whose words
    before the masks are just the kinds meant, and `named_with_color`, colours included.
    """
    overlaps = [sample.overlap for sample in samples]
    several = [sample for sample in samples if sample.ious.shape[1] > 1]
    return {
        "samples": len(samples),
        "giou": metrics.giou(overlaps),
        "ciou": metrics.ciou(overlaps),
        "refusal_accuracy": _share(sample.refused for sample in samples if sample.absent),
        "false_refusals": _share(sample.refused for sample in samples if not sample.absent),
        "ap50": metrics.average_precision([s.scores for s in several], [s.ious for s in several])
        if several
        else None,
        "named": _share(sample.named for sample in samples if sample.named is not None),
        "named_with_color": _share(s.colored for s in samples if s.colored is not None),
    }


def calibration(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
    """Score of every mask, and whether it shows an object that was meant."""
    scores = [sample.scores for sample in samples] or [np.zeros(0)]
    hits = [sample.hits for sample in samples] or [np.zeros(0, bool)]
    return np.concatenate(scores), np.concatenate(hits)


def _share(truths: Iterable[bool]) -> float | None:
    values = list(truths)
    return sum(values) / len(values) if values else None


def _named(item: Item, answer: Answer) -> tuple[bool | None, bool | None]:
    """Whether the words before the masks are the things meant, by kind and with colour."""
    targets = item.ours.get("targets")
    # 'They are the red mug [SEG] and the book [SEG].' -> 'the red mug', 'the book'
    labels = [label_of(part, "") for part in answer.transcript.split(SEG)[:-1]]
    if not targets or (labels and not any(labels)):
        return None, None  # nothing is meant, or masks alone were asked for
    kinds = [one["name"] for one in targets]
    looks = [f"{one['color']} {one['name']}" for one in targets]
    return _same(labels, kinds), _same(labels, looks)


def _same(labels: Sequence[str], nouns: Sequence[str]) -> bool:
    """Whether each noun is the end of one label, and no label is left."""
    left = list(labels)
    for noun in nouns:
        found = next((label for label in left if f" {label}".endswith(f" {noun}")), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def test_views(scenes: int) -> Iterator[View]:
    """One view of each of the first `scenes` tables of the test set."""
    return map(look_at, TEST_SEEDS[:scenes])
