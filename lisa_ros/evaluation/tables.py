"""The tables of the papers: their splits, their figures, and ours beside them in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisa_ros.errors import LisaError
from lisa_ros.evaluation.coco import CocoFile
from lisa_ros.evaluation.dataset_types import Grounded
from lisa_ros.evaluation.evaluate import Sample, average_precision, ciou, giou
from lisa_ros.evaluation.published import open_published, open_reasonseg, open_referring
from lisa_ros.evaluation.reasonseg import PHRASE, TARGET, Item
from lisa_ros.text_tables import markdown_table

SPLITS: dict[str, tuple[str, ...]] = {
    "refcoco": ("val", "testA", "testB"),
    "refcoco+": ("val", "testA", "testB"),
    "refcocog": ("val", "test"),
    "reasonseg": ("val", "test"),
    "lisa_plus_instances": ("train",),
}
"""The sets that `lisa-ros eval` knows by name, and their splits in the papers' order."""

CLASSES_OF_AP = np.linspace(0.5, 0.95, 10)  # IoUs over which COCO's AP is the mean

PAPER: dict[tuple[str, str, str], dict[str, tuple[float | None, float]]] = {
    ("refcoco", "val", "all"): {"LISA-7B": (None, 74.1), "LISA-7B (ft)": (None, 74.9)},
    ("refcoco", "testA", "all"): {"LISA-7B": (None, 76.5), "LISA-7B (ft)": (None, 79.1)},
    ("refcoco", "testB", "all"): {"LISA-7B": (None, 71.1), "LISA-7B (ft)": (None, 72.3)},
    ("refcoco+", "val", "all"): {"LISA-7B": (None, 62.4), "LISA-7B (ft)": (None, 65.1)},
    ("refcoco+", "testA", "all"): {"LISA-7B": (None, 67.4), "LISA-7B (ft)": (None, 70.8)},
    ("refcoco+", "testB", "all"): {"LISA-7B": (None, 56.5), "LISA-7B (ft)": (None, 58.1)},
    ("refcocog", "val", "all"): {"LISA-7B": (None, 66.4), "LISA-7B (ft)": (None, 67.9)},
    ("refcocog", "test", "all"): {"LISA-7B": (None, 68.5), "LISA-7B (ft)": (None, 70.6)},
    ("reasonseg", "val", "all"): {
        "LISA-7B": (44.4, 46.0), "LISA-7B (ft)": (52.9, 54.0),
        "LISA-13B": (48.9, 46.9), "LISA-13B (ft)": (56.2, 62.9),
    },
    ("reasonseg", "test", "short"): {
        "LISA-7B": (37.6, 34.4), "LISA-7B (ft)": (40.6, 40.6),
        "LISA-13B": (39.9, 43.3), "LISA-13B (ft)": (44.3, 42.0),
    },
    ("reasonseg", "test", "long"): {
        "LISA-7B": (36.6, 34.7), "LISA-7B (ft)": (49.4, 51.0),
        "LISA-13B": (46.4, 46.5), "LISA-13B (ft)": (54.0, 54.3),
    },
    ("reasonseg", "test", "all"): {
        "LISA-7B": (36.8, 34.1), "LISA-7B (ft)": (47.3, 48.4),
        "LISA-13B": (44.8, 45.8), "LISA-13B (ft)": (51.7, 51.1),
    },
}  # fmt: skip
"""gIoU and cIoU in percent, tables 1 and 2 of arXiv 2308.00692; of referring sets it gives cIoU."""


@dataclass(frozen=True)
class AnnotatedItem(Item):
    """A question whose masks are annotations of a COCO file, one each for what is meant."""

    coco: CocoFile | None = None
    annotations: Sequence[int] = ()

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """The mask that is meant and its instances, as `Item.truth`.

        DatasetError where one cannot be drawn, or was drawn for an image of another size.
        """
        masks = self.coco.masks(
            [self.coco.annotations[one] for one in self.annotations], self.image
        )
        return masks.any(0).astype(np.uint8) * TARGET, masks


def published_items(root: Path, name: str, splits: Sequence[str] | None = None) -> list[Item]:
    """The questions of some splits of a published set in the authors' words; of all, without any.

    Raises:
        LisaError: there is no such set, a split is not there, or what it needs.
    """
    if name not in SPLITS:
        raise LisaError(f"--root needs --dataset, one of {', '.join(SPLITS)}")
    return [item for split in splits or SPLITS[name] for item in _items(root, name, split)]


def _items(root: Path, name: str, split: str) -> list[Item]:
    if name == "reasonseg":
        return list(open_reasonseg(root, split).items)
    if name == "lisa_plus_instances":
        data = open_published(root, name)
        assert isinstance(data, Grounded)
        return [
            AnnotatedItem(split, image, turns[0][0], (), {}, [turns[0][0]], True, data.coco, ids)
            for image, turns, ids in zip(data.images, data.turns, data.annotations, strict=True)
        ]
    data = open_referring(root, name, split)
    return [
        AnnotatedItem(
            split, image, PHRASE.format(words), (), {}, [words], False, data.coco, (annotation,)
        )
        for image, sentences in zip(data.images, data.sentences, strict=True)
        for words, annotation in ((said.strip().lower(), one) for said, one in sentences)
    ]


def markdown(name: str, model: str, samples: Sequence[Sample]) -> str:
    """A table of splits (ReasonSeg's test by short and long queries too), the paper's figures
    beside ours; for LISA++'s instances their AP."""
    if name == "lisa_plus_instances":
        figures = instance_ap(samples)
        row = [model, *(f"{100 * value:.1f}" for value in figures.values())]
        return markdown_table(["model", *figures], [row], words=len(row)) + "\n"
    rows: list[tuple[tuple[str, str, str], list[Sample]]] = []
    for split in dict.fromkeys(sample.item.split for sample in samples):
        own = [sample for sample in samples if sample.item.split == split]
        for kind in ("short", "long") if (name, split) == ("reasonseg", "test") else ():
            rows.append(((name, split, kind), [s for s in own if s.item.kind == kind]))
        rows.append(((name, split, "all"), own))
    papers = list(dict.fromkeys(one for key, _ in rows for one in PAPER.get(key, {})))
    head, cells = [name, "masks", model, *(f"{one}, paper" for one in papers)], []
    for key, some in rows:
        overlaps = [sample.overlap for sample in some]
        ours = f"{100 * giou(overlaps):.1f} / {100 * ciou(overlaps):.1f}" if some else "–"
        theirs = [_cell(PAPER.get(key, {}).get(one)) for one in papers]
        where = key[1] if key[2] == "all" else f"{key[1]}, {key[2]} queries"
        cells.append([where, str(len(some)), ours, *theirs])
    table = markdown_table(head, cells, words=len(head))
    return f"{table}\n\ngIoU / cIoU in percent; the paper gives cIoU of referring sets.\n"


def instance_ap(samples: Sequence[Sample]) -> Mapping[str, float]:
    """LISA++'s figures: AP of instance masks at IoU 0.5, at 0.75, and the mean from 0.5 to 0.95."""
    scores, ious = [one.scores for one in samples], [one.ious for one in samples]
    at = [average_precision(scores, ious, float(threshold)) for threshold in CLASSES_OF_AP]
    return {"AP50": at[0], "AP75": at[5], "mAP": float(np.mean(at))}


def _cell(figures: tuple[float | None, float] | None) -> str:
    if figures is None:
        return ""
    return " / ".join("–" if one is None else f"{one:.1f}" for one in figures)
