"""What LISA is trained on, drawn as its authors draw it: a data set, an image, up to three things.

Shares of the groups and sentences are those of the released script (9 semantic : 3 referring : 3
dialogues : 1 reasoning; the paper gives no shares). Chance comes from one generator, in the order
of that script, so that equal draws give equal conversations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisa_ros.evaluation.dataset_types import (
    UNLABELLED,
    Grounded,
    LabelMaps,
    Parts,
    Published,
    Reasoning,
    Referring,
    VisualDialogues,
)
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.reasonseg import TARGET
from lisa_ros.model.prompt import INSTANCE_SUFFIXES, Turn, escape

MOST_THINGS = 3  # asked for in one image
NO_MASKS = np.zeros((0, 1, 1), bool)
MOST_TRIES = 100  # images without anything to ask for, one after the other
SHORT_QUESTIONS = (
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)
LONG_QUESTIONS = (
    "{} Please respond with segmentation mask.",
    "{} Please output segmentation mask.",
)
EXPLANATIONS = (
    "Please output segmentation mask and explain why.",
    "Please output segmentation mask and explain the reason.",
    "Please output segmentation mask and give some explanation.",
)
ANSWERS = (
    "It is [SEG].",
    "Sure, [SEG].",
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
    "[SEG].",
)


@dataclass(frozen=True)
class Drawn:
    """An image and dialogues about it, each of its own; a mask for every [SEG], in their order.

    `groups`: of each mask the number of its group, within which their order means nothing.
    """

    image: Path
    dialogues: Sequence[Sequence[Turn]]
    masks: np.ndarray  # bool (N,H,W), of the image's size; N may be 0
    groups: Sequence[int] = ()


@dataclass(frozen=True)
class Mixture:
    """Groups of data sets, by name; of a group, every set is drawn equally often.

    `rates`: how often each group is drawn, in any unit. `explanatory`: of the answers of ReasonSeg
    that have a reason, the share that are words alone (half of the others are masks with it).
    """

    groups: Mapping[str, Sequence[Published]]
    rates: Sequence[float]
    explanatory: float = 0.1

    def draw(self, random: np.random.Generator) -> Drawn:
        """An image with what is asked about it. DatasetError where nothing can be asked."""
        shares = np.array(self.rates, float) / sum(self.rates)
        group = list(self.groups.values())[int(random.choice(len(self.groups), p=shares))]
        return self.from_group(group, random)

    def from_group(self, group: Sequence[Published], random: np.random.Generator) -> Drawn:
        """The same of one group."""
        for _ in range(MOST_TRIES):
            data = group[int(random.integers(len(group)))] if len(group) > 1 else group[0]
            drawn = self._of(data, random)
            if drawn is not None:
                return drawn
        raise DatasetError(
            f"{MOST_TRIES} images drawn from {type(data).__name__} one after the other have"
            " nothing that can be asked for: `lisa-ros data check` looks for the reason"
        )

    def _of(self, data: Published, random: np.random.Generator) -> Drawn | None:
        index = int(random.integers(len(data)))
        match data:
            case LabelMaps():
                return _from_label_map(data, index, random)
            case Parts():
                return _from_parts(data, index, random)
            case Referring():
                return _from_references(data, index, random)
            case Reasoning():
                return _from_reasonseg(data, index, random, self.explanatory)
            case Grounded():
                return _from_grounded(data, index)
            case VisualDialogues():
                turns = [(escape(q), escape(a)) for q, a in data.turns[index]]
                return Drawn(data.images[index], [turns], NO_MASKS)


def _some(count: int, random: np.random.Generator) -> list[int]:
    """MOST_THINGS of `count`; without a draw, in order, where there are fewer."""
    if count < MOST_THINGS:
        return list(range(count))
    return [int(one) for one in random.choice(count, size=MOST_THINGS, replace=False)]


def _one(words: Sequence[str], random: np.random.Generator) -> str:
    return words[int(random.integers(len(words)))]


def _asked(name: str, random: np.random.Generator) -> list[Turn]:
    """The dialogue about a thing by its name."""
    question = _one(SHORT_QUESTIONS, random).format(escape(name.lower()))
    return [(question, _one(ANSWERS, random))]


def _from_label_map(data: LabelMaps, index: int, random: np.random.Generator) -> Drawn | None:
    label = data.label(index)
    there = [int(one) for one in np.unique(label) if one != UNLABELLED]
    if not there:
        return None
    names = [data.classes[there[one]] for one in _some(len(there), random)]
    dialogues = [_asked(name, random) for name in names]
    # of two classes with one name the first is meant
    masks = np.stack([label == list(data.classes).index(name) for name in names])
    return Drawn(data.images[index], dialogues, masks)


def _from_parts(data: Parts, index: int, random: np.random.Generator) -> Drawn | None:
    annotations = data.coco.of_image.get(data.ids[index], [])
    if not annotations:
        return None
    chosen, names = [annotations[one] for one in _some(len(annotations), random)], []
    for annotation in chosen:
        name = data.names[annotation["category_id"]]
        if isinstance(name, tuple):
            thing, part = name
            name = f"{thing} {part}" if random.random() < 0.5 else f"the {part} of the {thing}"
        names.append(name)
    dialogues = [_asked(name, random) for name in names]
    data.coco.check_size(chosen, data.images[index])
    try:
        masks = np.stack([data.coco.drawn(one) for one in chosen])
    except ValueError:
        return None  # some real ones have no area; `lisa-ros data check` lists them
    return Drawn(data.images[index], dialogues, masks)


def _from_references(data: Referring, index: int, random: np.random.Generator) -> Drawn:
    sentences, coco, image = data.sentences[index], data.coco, data.images[index]
    chosen = [sentences[one] for one in _some(len(sentences), random)]
    dialogues = [_asked(words.strip(), random) for words, _ in chosen]
    masks = coco.masks([coco.annotations[one] for _, one in chosen], image)
    return Drawn(image, dialogues, masks)


def _from_reasonseg(
    data: Reasoning, index: int, random: np.random.Generator, explanatory: float
) -> Drawn:
    item = data.items[index]
    texts = [item.texts[one] for one in _some(len(item.texts), random)]
    reason, kind = data.reasons.get(item.image.name), ""
    if reason is not None:
        words_alone = random.random() < explanatory
        kind = "words" if words_alone else ("mask", "both")[int(random.integers(2))]
    dialogues: list[Sequence[Turn]] = []
    for text in texts:
        if item.is_sentence:
            question = _one(LONG_QUESTIONS, random).format(escape(text))
        else:
            question = _one(SHORT_QUESTIONS, random).format(escape(text.lower()))
        if kind == "words":
            question, answer = escape(text), escape(reason)
        else:
            answer = _one(ANSWERS, random)
        if kind == "both":
            answer = f"{answer} {escape(reason)}"
            question = f"{escape(text)} {_one(EXPLANATIONS, random)}"
        dialogues.append([(question, answer)])
    mask = (item.truth()[0] == TARGET)[None]
    return Drawn(item.image, dialogues, mask.repeat(0 if kind == "words" else len(texts), axis=0))


def _from_grounded(data: Grounded, index: int) -> Drawn:
    asked = INSTANCE_SUFFIXES["mask"] if data.instances else INSTANCE_SUFFIXES["explain"]
    turns = [(escape(question) + asked, answer) for question, answer in data.turns[index]]
    own, image = [data.coco.annotations[one] for one in data.annotations[index]], data.images[index]
    return Drawn(image, [turns], data.coco.masks(own, image), data.groups[index])
