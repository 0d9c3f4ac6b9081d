"""How well a model answers the questions of a data set: asking, comparing, counting.

gIoU and cIoU are those of the LISA paper (Lai et al., arXiv 2308.00692, section 4.1).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lisa_ros.engine import Answer, Engine
from lisa_ros.engine.answer import label_of
from lisa_ros.engine.load import is_out_of_memory
from lisa_ros.engine.question import Mode
from lisa_ros.errors import LisaError
from lisa_ros.evaluation.reasonseg import IGNORED, TARGET, Item
from lisa_ros.model.config import SEG

ALL = "all"
HIT = 0.5  # IoU above which a mask shows what was meant


@dataclass(frozen=True)
class Overlap:
    """One answer's masks, taken as one, beside the truth: pixels of both, and of either."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """1 for an empty mask where nothing is meant."""
        return self.intersection / (self.union + 1e-5) + (self.union == 0)


def overlap(predicted: np.ndarray, truth: np.ndarray) -> Overlap:
    """Compare bool (H,W) with the truth uint8 (H,W), whose IGNORED pixels are left out of both."""
    counted = truth != IGNORED
    found, meant = predicted & counted, truth == TARGET
    return Overlap(int((found & meant).sum()), int((found | meant).sum()))


@dataclass(frozen=True)
class Sample:
    """One question in numbers, so that thousands can be kept.

    `overlap` of all masks as one; `absent`: nothing is meant; `refused`: no mask came; `named`: the
    words before the masks are the things meant, and `colored`: their colours too (None where there
    is nothing to compare); `scores` (N,) and `evidence` of the masks, `ious` (N,M) with the M
    objects meant. `fault`: why it could not be asked, else empty.
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
    fault: str = ""

    @property
    def hits(self) -> np.ndarray:
        """For every mask, whether it shows one of the objects meant."""
        return self.ious.max(1, initial=0.0) > HIT


def evaluate(
    engine: Engine, items: Iterable[Item], mode: Mode = "auto"
) -> Iterator[tuple[Sample, Answer | None]]:
    """Ask every question of a set, in order; one that cannot be asked has a fault and no answer."""
    for item in items:
        try:
            answer = ask(engine, item, mode)
            yield measure(item, answer), answer
        except Exception as error:
            if not (isinstance(error, LisaError) or is_out_of_memory(error)):
                raise
            yield _unasked(item, str(error) or type(error).__name__), None


def ask(engine: Engine, item: Item, mode: Mode) -> Answer:
    """Ask one question; earlier turns of its dialogue first, so that it follows the own answers.

    In mode `mask` a question of ReasonSeg is put to the letter as LISA's own validation puts it,
    with a blank before the instruction.
    """
    image, history = item.rgb(), []
    for instruction, _ in item.history:
        turn = engine.segment(image, instruction, mode=mode, history=tuple(history), key=item.scene)
        history.append((instruction, turn.transcript))
    instruction = item.instruction if item.ours or mode != "mask" else f" {item.instruction}"
    return engine.segment(image, instruction, mode=mode, history=tuple(history), key=item.scene)


def measure(item: Item, answer: Answer) -> Sample:
    """Compare one answer with what was meant."""
    truth, instances = item.truth()
    masks = [instance.mask for instance in answer.instances]
    named, colored = _named(item, answer)
    return Sample(
        item=item,
        text=answer.text,
        overlap=overlap(union(answer, truth.shape), truth),
        absent=not (truth == TARGET).any(),
        refused=not masks,
        named=named,
        colored=colored,
        scores=np.array([instance.score for instance in answer.instances]),
        evidence=[instance.evidence for instance in answer.instances],
        ious=instance_ious(masks, instances),
    )


def _unasked(item: Item, fault: str) -> Sample:
    """The sample of a question that counts as answered wrongly, if it counts."""
    try:
        truth, instances = item.truth()
        area, count = int((truth == TARGET).sum()), len(instances)
    except LisaError:
        area, count = 1, 1
    missed = Overlap(0, max(1, area))
    return Sample(
        item, "", missed, area == 0, False, None, None, np.zeros(0), [], np.zeros((0, count)), fault
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
        "giou": giou(overlaps),
        "ciou": ciou(overlaps),
        "refusal_accuracy": _share(sample.refused for sample in samples if sample.absent),
        "false_refusals": _share(sample.refused for sample in samples if not sample.absent),
        "ap50": average_precision([s.scores for s in several], [s.ious for s in several])
        if several
        else None,
        "named": _share(sample.named for sample in samples if sample.named is not None),
        "named_with_color": _share(s.colored for s in samples if s.colored is not None),
    }


def scores_and_hits(samples: Sequence[Sample]) -> tuple[np.ndarray, np.ndarray]:
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


def giou(overlaps: Sequence[Overlap]) -> float:
    """Mean IoU over masks: the paper's gIoU."""
    return sum(one.iou for one in overlaps) / len(overlaps)


def ciou(overlaps: Sequence[Overlap]) -> float:
    """All intersections over all unions: the paper's cIoU, in which large objects weigh most."""
    union = sum(one.union for one in overlaps)
    return sum(one.intersection for one in overlaps) / (union + 1e-10)


def instance_ious(masks: Sequence[np.ndarray], instances: np.ndarray) -> np.ndarray:
    """IoU (N,M) of N masks bool (H,W) with M instances bool (M,H,W)."""
    if not len(masks) or not len(instances):
        return np.zeros((len(masks), len(instances)))
    a = np.stack(masks).reshape(len(masks), -1).astype(np.float32)
    b = instances.reshape(len(instances), -1).astype(np.float32)
    both = a @ b.T
    return both / np.maximum(a.sum(1)[:, None] + b.sum(1) - both, 1)


def average_precision(
    scores: Sequence[Sequence[float]], ious: Sequence[np.ndarray], threshold: float = HIT
) -> float:
    """AP of instance masks at IoU `threshold`, without classes, as COCO computes it.

    For every question its masks' `scores` (N,) and their `ious` (N,M) with the M objects meant. All
    masks of all questions are ranked together by score; from the top down, a mask is right if an
    object of its question that no mask before it has taken overlaps it by at least that (it takes
    the one with the highest IoU). AP is the mean, over the 101 recalls 0, 0.01 .. 1, of the highest
    precision reached at that recall or a higher one. Masks that show nothing meant count against
    it, objects without a mask as well.
    """
    ranked = sorted(
        (-score, question, mask)
        for question, some in enumerate(scores)
        for mask, score in enumerate(some)
    )
    free = [np.array(one, dtype=float) for one in ious]
    right = np.zeros(len(ranked))
    for place, (_, question, mask) in enumerate(ranked):
        row = free[question][mask]
        if row.size and row.max() >= threshold:
            right[place] = 1
            free[question][:, row.argmax()] = -1
    objects = sum(one.shape[1] for one in ious)
    recall = right.cumsum() / objects
    precision = right.cumsum() / np.arange(1, len(ranked) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    places = np.searchsorted(recall, np.linspace(0, 1, 101) - 1e-9)
    return float(np.mean([best[place] if place < len(best) else 0.0 for place in places]))


def score_bins(
    scores: np.ndarray, right: np.ndarray, bins: int = 10
) -> list[tuple[int, float, float]]:
    """Masks by score in `bins` bins of equal width: how many, mean score, share that is right."""
    which = np.minimum((scores * bins).astype(int), bins - 1)
    members = [which == index for index in range(bins)]
    return [
        (int(m.sum()), float(scores[m].mean()), float(right[m].mean())) if m.any() else (0, 0, 0)
        for m in members
    ]


def calibration_error(scores: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: how far scores and shares that are right lie apart on average."""
    bins = score_bins(scores, right)
    return sum(count * abs(mean - share) for count, mean, share in bins) / max(1, len(scores))
