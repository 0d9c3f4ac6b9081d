"""Images and words into the model's terms: what is drawn from a mixture, what a folder asks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lisa_ros.evaluation.reasonseg import TARGET, Item
from lisa_ros.image_files import image_size, read_image
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.config import SEG, LisaConfig
from lisa_ros.model.processor import Processor
from lisa_ros.model.prompt import MODE_SUFFIXES, Turn, encode_turns, escape, mode_suffixes
from lisa_ros.training.feature_cache import FeatureCache
from lisa_ros.training.mixture import Drawn, Mixture
from lisa_ros.training.objective import ImageExample

MOST_IDS = 512 - 255  # of a dialogue in training: the authors cut what is longer
ANSWER = "It is [SEG]."  # to questions that come without one
AUTHORS_SUFFIXES = (
    " Please output segmentation mask.",
    " Please respond with segmentation mask.",
)
"""With which LISA's authors train on sentences that want a mask."""


@dataclass(frozen=True)
class MixtureBatches:
    """Batches of a mixture; images are read and resized anew, unless `cache` has them."""

    mixture: Mixture
    encode: Callable[[str], list[int]]
    config: LisaConfig
    processor: Processor
    size: int
    cache: FeatureCache | None = None

    def batch(self, random: np.random.Generator) -> tuple[ImageExample, ...]:
        return tuple(self.example(self.mixture.draw(random)) for _ in range(self.size))

    def example(self, drawn: Drawn) -> ImageExample:
        """ImageError, DatasetError: the image is damaged, or its masks do not fit."""
        width, height = image_size(drawn.image)
        view, frame, keep = looked_at(drawn.image, self.processor, self.cache)
        ids, learnt, kept, first = [], [], [], 0
        for turns in drawn.dialogues:
            row, marks = encoded(turns, self.encode, self.config)
            segs = marks & (row == self.config.seg_token_id)
            ids.append(row[:MOST_IDS])
            learnt.append(marks[:MOST_IDS])
            kept += range(first, first + int(segs[:MOST_IDS].sum()))
            first += int(segs.sum())
        masks = drawn.masks if len(drawn.masks) else np.zeros((0, height, width), bool)
        truth = torch.from_numpy(masks[kept])
        groups = tuple(drawn.groups[one] for one in kept) if drawn.groups else ()
        return ImageExample(view, frame, tuple(ids), tuple(learnt), truth, groups, keep)


@dataclass(frozen=True)
class Questions:
    """Batches of a folder's questions: of each one an example for every form in which it is asked.

    The frozen parts have seen each image once, before; what they say of it is kept.
    """

    forms: Sequence[Sequence[ImageExample]]
    size: int

    def batch(self, random: np.random.Generator) -> tuple[ImageExample, ...]:
        """`size` questions, none twice while there are others; half of them plainly asked."""
        chosen = np.resize(random.permutation(len(self.forms)), self.size)
        forms = random.integers(1, [len(self.forms[i]) for i in chosen])
        forms *= random.random(self.size) < 0.5
        return tuple(self.forms[i][form] for i, form in zip(chosen, forms, strict=True))

    @classmethod
    @torch.no_grad()
    def prepare(
        cls, lisa: Lisa, items: Sequence[Item], size: int, cache: FeatureCache | None = None
    ) -> Questions:
        """Ask the frozen parts about each image, and lay out every form of every question."""
        network, processor = lisa.network, lisa.processor
        device = network.no_mask_embed.weight.device
        seen: dict[Hashable, tuple[Tensor, Tensor]] = {}
        questions = []
        for item in items:
            if item.scene not in seen:
                view, frame, keep = looked_at(item.image, processor, cache)
                view, frame = view.to(device), frame.to(device)
                if view.dim() == 3:
                    view = network.encode_view(view[None])[0]
                    frame = network.encode_frame(frame[None])[0]
                if keep is not None:
                    cache.keep(keep, view, frame)
                seen[item.scene] = view, frame.float()
            answer, masks = _answer(item, lisa.config.mask_instances)
            truth, forms = torch.from_numpy(masks), []
            for suffix, said in _forms(lisa, item, answer):
                turns = [*item.history, (escape(item.instruction) + suffix, said)]
                ids, learnt = encoded(turns, lisa.tokenizer.encode, lisa.config, last_alone=True)
                forms.append(ImageExample(*seen[item.scene], (ids,), (learnt,), truth))
            questions.append(forms)
        return cls(questions, size)


def looked_at(
    image: Path, processor: Processor, cache: FeatureCache | None
) -> tuple[Tensor, Tensor, Path | None]:
    """`view` and `frame` of an ImageExample: what a cache has, else pixels, and then
    where what is said of them is to be kept."""
    keep, known = cache.find(image) if cache is not None else (None, None)
    if known is not None:
        return *known, None
    rgb = read_image(image)
    return processor.clip_pixels(rgb), processor.sam_pixels(rgb), keep


def encoded(
    turns: Sequence[Turn],
    encode: Callable[[str], list[int]],
    config: LisaConfig,
    *,
    last_alone: bool = False,
) -> tuple[Tensor, Tensor]:
    """Ids (T,) of a dialogue, and which of them are to be learnt: the answers, or the last one."""
    row, answers = encode_turns(turns, encode, config)
    learnt = torch.zeros(len(row), dtype=torch.bool)
    for first, last in answers[-1:] if last_alone else answers:
        learnt[first:last] = True
    return torch.tensor(row), learnt


def validation_example(
    item: Item, lisa: Lisa, device: torch.device, cache: FeatureCache | None = None
) -> tuple[ImageExample, np.ndarray]:
    """A question as LISA's authors put it in validation, its answer given; and its truth."""
    truth, _ = item.truth()
    view, frame, keep = looked_at(item.image, lisa.processor, cache)
    question = f" {escape(item.instruction)}{MODE_SUFFIXES['mask']}"
    ids, learnt = encoded([(question, f"{SEG}.")], lisa.tokenizer.encode, lisa.config)
    example = ImageExample(
        view.to(device), frame.to(device), (ids.to(device),), (learnt.to(device),),
        torch.from_numpy(truth == TARGET)[None].to(device), keep=keep,
    )  # fmt: skip
    return example, truth


def _answer(item: Item, instances: bool) -> tuple[str, np.ndarray]:
    """What is to be said, and a mask for each [SEG] in it; one for all without `instances`."""
    mask, each = item.truth()
    if item.ours and (instances or not len(each)):
        return item.ours["answer"], each
    return ANSWER, (mask == TARGET)[None]


def _forms(lisa: Lisa, item: Item, answer: str) -> Iterator[tuple[str, str]]:
    """With what suffix a question is asked, and what is said then: in words, or bare masks.

    The words that mode `mask` adds, and for LISA's own models both of the authors', come beside the
    plain question: a model that learns that one alone does not know the others any more.
    """
    yield "", answer
    masks = answer.count(SEG)
    bare = " ".join([SEG] * masks) + "." if masks else answer
    for suffix in {mode_suffixes(lisa.config)["mask"]: None, **dict.fromkeys(AUTHORS_SUFFIXES)}:
        yield suffix, bare
