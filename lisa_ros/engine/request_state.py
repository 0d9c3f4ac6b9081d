"""One question while it is answered: from tokens to words, labels, masks and a status."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from lisa_ros.engine.answer import (
    SEG,
    Answer,
    Event,
    Instance,
    MaskReady,
    Status,
    TextDelta,
    label_of,
    plain_text,
    settled_text,
)
from lisa_ros.engine.frames import Frame
from lisa_ros.engine.generation import BROKEN_NUMBERS, Row, Step
from lisa_ros.engine.question import Question
from lisa_ros.engine.scoring import evidence, probability, token_probabilities
from lisa_ros.model.tokenizer import Tokenizer

_BROKEN_OFF = {"cancel": Status.CANCELLED, "deadline": Status.TIMEOUT}


@dataclass(eq=False)
class Ask:
    """A question about one view of its frame, and what has been answered so far."""

    question: Question
    frame: Frame
    row: Row
    refusal: list[int]
    """ids with which the model says that a thing is not there; empty: it never does"""
    calibration: Mapping[str, float] | None = None
    """what turns evidence into the score of a mask; None: the model has no such thing"""
    instances: list[Instance] = field(default_factory=list)
    said: str = ""
    probabilities: list[float] = field(default_factory=list)
    """of every token so far, where scores are calibrated"""
    sam_encodes: int = 0
    clip_encodes: int = 0

    @property
    def forced(self) -> bool:
        """Whether the mask is taken from the prompt's last state and nothing is generated."""
        return self.row.single_pass_unless is not None and not self.refused

    @property
    def refused(self) -> bool:
        """Whether the model says that the thing is not there."""
        return bool(self.refusal) and self.row.ids[: len(self.refusal)] == self.refusal

    def seg_places(self, step: Step, seg_id: int) -> list[int]:
        """Which states of a step a mask must be decoded from."""
        if self.question.mode == "text":
            return []
        if self.forced:
            return [0]
        return [i for i, token in enumerate(step.tokens) if token == seg_id]

    def events(self, tokenizer: Tokenizer, step: Step, masks: dict[int, Tensor]) -> Iterator[Event]:
        """What a step brings, in the order of the answer.

        `masks`: full-size logits (H, W) by the index of the state they come from.
        """
        before = len(self.row.ids) - len(step.tokens)
        if self.calibration is not None:
            self.probabilities += token_probabilities(step.logits, step.tokens)
        for place, logits in masks.items():
            raw = tokenizer.decode(self.row.ids[: before + place])
            yield from self._say("" if self.forced else settled_text(raw))
            probability = step.logits[place].float().softmax(-1)[tokenizer.seg_id]
            label = label_of("" if self.forced else raw, self.question.instruction)
            instance = measure(logits, label, float(probability))
            if instance.area:
                words = self.probabilities[: before + place] if plain_text(raw) else []
                instance = self._calibrated(instance, words)
                self.instances.append(instance)
                yield MaskReady(instance)
        if not self.forced:
            raw = tokenizer.decode(self.row.ids)
            yield from self._say(plain_text(raw) if self.row.stopped_by else settled_text(raw))

    def _calibrated(self, instance: Instance, words: list[float]) -> Instance:
        """The instance with its score; `words`: probabilities of the tokens before its `[SEG]`."""
        if self.calibration is None:
            return instance
        terms = evidence(instance.score, min(words, default=None))
        return replace(instance, score=probability(terms, self.calibration), evidence=terms)

    def last_words(self, tokenizer: Tokenizer) -> Iterator[Event]:
        """The last words of an answer that was broken off between two steps."""
        if not self.forced:
            yield from self._say(plain_text(tokenizer.decode(self.row.ids)))

    def _say(self, text: str) -> Iterator[Event]:
        if len(text) > len(self.said):
            delta, self.said = text[len(self.said) :], text
            yield TextDelta(delta)

    def answer(self, group: list[Ask], tokenizer: Tokenizer, timings: dict[str, float]) -> Answer:
        """The answer as it stands; `group`: all views that were asked for it, itself included."""
        counters = {
            "sam_encodes": sum(ask.sam_encodes for ask in group),
            "clip_encodes": sum(ask.clip_encodes for ask in group),
            "forwards": sum(ask.row.forwards for ask in group),
            "tokens": 0 if self.forced else len(self.row.ids),
            "drafted": sum(ask.row.drafted for ask in group),
            "accepted": sum(ask.row.accepted for ask in group),
        }
        return Answer(
            text=self.said,
            status=self._status(tokenizer.seg_id),
            transcript=f"{SEG}." if self.forced else tokenizer.decode(self.row.ids),
            instances=self.instances,
            timings=timings,
            counters=counters,
            stopped_by=self.row.stopped_by,
        )

    def _status(self, seg_id: int) -> Status:
        if self.row.stopped_by in _BROKEN_OFF:
            return _BROKEN_OFF[self.row.stopped_by]
        mode = self.question.mode
        if mode == "text":
            return Status.TEXT_ONLY
        if self.refused:
            return Status.NOT_FOUND
        if self.instances:
            return Status.OK
        wanted = mode in ("mask", "explain") or seg_id in self.row.ids
        return Status.NOT_FOUND if wanted else Status.TEXT_ONLY


def unasked(reason: str) -> Answer:
    """The answer to a question that was broken off before it began."""
    names = ("sam_encodes", "clip_encodes", "forwards", "tokens", "drafted", "accepted")
    counters = dict.fromkeys(names, 0)
    return Answer("", _BROKEN_OFF[reason], [], counters=counters, stopped_by=reason)


def measure(logits: Tensor, label: str, seg_probability: float) -> Instance:
    """Turn mask logits (H, W) into an instance; the mask is where they are above zero.

    Raises:
        FloatingPointError: a logit is not a finite number, so that nothing can be told by them.
    """
    if not logits.isfinite().all():
        raise FloatingPointError(f"mask logits are not finite: {BROKEN_NUMBERS}")
    inside = logits > 0
    area = int(inside.sum())
    mask = inside.cpu().numpy()
    if not area:
        return Instance(mask, 0.0, seg_probability, label, (0, 0, 0, 0), 0)
    score = float(torch.sigmoid(logits[inside]).mean())
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    box = (x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1)
    return Instance(mask, score, seg_probability, label, box, area)
