"""One question while it is answered: from tokens to words, labels, masks, scores and a status.

LISA never learnt to score masks. Where a model's configuration has a `score_calibration`, fitted by
`lisa-ros calibrate`, the score is the probability that the mask shows what was meant; elsewhere it
is the mean probability that the mask decoder gives to the pixels of the mask.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from lisa_ros.engine.answer import (
    ABORTED,
    Answer,
    AnswerStatus,
    Event,
    Instance,
    MaskReady,
    TextDelta,
    label_of,
    plain_text,
    settled_text,
)
from lisa_ros.engine.generation import BROKEN_NUMBERS, Sequence, Step
from lisa_ros.engine.image_features import ImageFeatures
from lisa_ros.engine.question import Question
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.config import SEG

LEAST = 1e-4  # how far from 0 and 1 a probability stays before its logarithm is taken
_SUMMED = ("sam_encodes", "clip_encodes", "forwards", "drafted", "accepted")  # over all views


@dataclass(eq=False, kw_only=True)
class RequestState(Sequence):
    """A question about one view of its image: what is decoded for it, and what has been answered.

    `Sequence` is the part that decoding knows; it is tested without questions and images.
    """

    question: Question
    features: ImageFeatures
    lisa: Lisa
    keep_empty_masks: bool = False
    instances: list[Instance] = field(default_factory=list)
    text: str = ""
    """the words that have been handed over"""
    probabilities: list[float] = field(default_factory=list)
    """of every token so far, where scores are calibrated"""
    sam_encodes: int = 0
    clip_encodes: int = 0

    @property
    def forced(self) -> bool:
        """Whether the mask is taken from the prompt's last state and nothing is generated."""
        return self.is_single_pass(self.ids)

    def seg_places(self, step: Step) -> list[int]:
        """Which states of a step a mask must be decoded from."""
        if self.question.mode == "text":
            return []
        if self.forced:
            return [0]
        return [i for i, token in enumerate(step.tokens) if token == self.lisa.tokenizer.seg_id]

    def events(self, step: Step, masks: dict[int, tuple[Tensor, Tensor]]) -> Iterator[Event]:
        """What a step brings, in the order of the answer.

        `masks`: full-size logits (H, W), and the SAM prompt (C,) that they were decoded from, by
        the index of the state that predicts their `[SEG]`.
        """
        tokenizer = self.lisa.tokenizer
        before = len(self.ids) - len(step.tokens)  # tokens of earlier steps
        if self.lisa.config.score_calibration is not None:
            self.probabilities += token_probabilities(step.logits, step.tokens)
        for place, (logits, prompt) in masks.items():
            raw = tokenizer.decode(self.ids[: before + place])
            yield from self._advance_text("" if self.forced else settled_text(raw))
            seg_probability = step.logits[place].float().softmax(-1)[tokenizer.seg_id]
            label = label_of("" if self.forced else raw, self.question.instruction)
            instance = measure(logits, label, float(seg_probability))
            if instance.area or self.keep_empty_masks:
                # probabilities of the tokens before its [SEG]
                words = self.probabilities[: before + place] if plain_text(raw) else []
                embedding = prompt.float().cpu().numpy()
                instance = replace(instance, seg_embedding=embedding)
                weights = self.lisa.config.score_calibration
                if weights is not None:
                    terms = evidence(instance.score, min(words, default=None))
                    score = probability(terms, weights)
                    instance = replace(instance, score=score, evidence=terms)
                self.instances.append(instance)
                yield MaskReady(instance)
        if not self.forced:
            raw = tokenizer.decode(self.ids)
            whole = plain_text(raw) if self.stopped_by else settled_text(raw)
            yield from self._advance_text(whole)

    def flush(self) -> Iterator[Event]:
        """The words held back so far, of an answer that was broken off between two steps."""
        if not self.forced:
            yield from self._advance_text(plain_text(self.lisa.tokenizer.decode(self.ids)))

    def _advance_text(self, text: str) -> Iterator[Event]:
        if len(text) > len(self.text):
            delta, self.text = text[len(self.text) :], text
            yield TextDelta(delta)

    def answer(self, group: list[RequestState], timings: dict[str, float]) -> Answer:
        """The answer as it stands; `group`: all views that were asked for it, itself included."""
        counters = {name: sum(getattr(one, name) for one in group) for name in _SUMMED}
        # a forced state stands for a [SEG]: a dialogue shall know that a mask was given
        given = self.forced and self.forwards
        return Answer(
            text=self.text,
            status=self._status(),
            transcript=f"{SEG}." if given else self.lisa.tokenizer.decode(self.ids),
            instances=self.instances,
            timings=timings,
            counters={**counters, "tokens": 0 if self.forced else len(self.ids)},
            stopped_by=self.stopped_by,
        )

    def _status(self) -> AnswerStatus:
        if self.stopped_by in ABORTED:
            return ABORTED[self.stopped_by]
        mode = self.question.mode
        if mode == "text":
            return AnswerStatus.TEXT_ONLY
        # "There is no" for example, with which "There is nothing here to cut with" begins as well
        refusal = self.lisa.config.refusal_prefix
        if refusal and self.text.startswith(refusal):
            return AnswerStatus.NOT_FOUND
        if any(instance.area for instance in self.instances):
            return AnswerStatus.OK
        wanted = mode not in ("auto", "chain_of_thought") or self.lisa.tokenizer.seg_id in self.ids
        return AnswerStatus.NOT_FOUND if wanted else AnswerStatus.TEXT_ONLY


def aborted_answer(reason: str) -> Answer:
    """The answer to a question that was broken off before it began."""
    counters = dict.fromkeys((*_SUMMED, "tokens"), 0)
    return Answer("", ABORTED[reason], [], counters=counters, stopped_by=reason)


def measure(logits: Tensor, label: str, seg_probability: float) -> Instance:
    """Turn mask logits (H, W) into an instance; the mask is where they are above zero.

    Raises:
        FloatingPointError: a logit is not a finite number, so that nothing can be told by them.
    """
    if not logits.isfinite().all():
        raise FloatingPointError(f"mask logits are not finite: {BROKEN_NUMBERS}")
    inside = logits > 0
    probabilities = torch.sigmoid(logits[inside])  # (area,)
    score = float(probabilities.mean()) if len(probabilities) else 0.0
    return Instance(inside.cpu().numpy(), score, seg_probability, label)


def evidence(mask_probability: float, word_probability: float | None) -> dict[str, float]:
    """What a score rests on, as the terms of a logistic regression.

    `mask_probability`: mean over the pixels of the mask, which says how sharp it is;
    `word_probability`: of the least certain token of the answer before the mask, which says how
    sure the model is of the thing; None where it wrote no word before it.
    """
    mask = min(max(mask_probability, LEAST), 1 - LEAST)
    wordless = word_probability is None
    return {
        "bias": 1.0,
        "mask": math.log(mask / (1 - mask)),
        "words": 0.0 if wordless else math.log(max(word_probability, LEAST)),
        "wordless": float(wordless),
    }


def probability(terms: Mapping[str, float], weights: Mapping[str, float]) -> float:
    """0..1: the logistic function of the weighted terms."""
    total = sum(weights[name] * value for name, value in terms.items())
    return 1 / (1 + math.exp(-total))


def token_probabilities(logits: Tensor, tokens: list[int]) -> list[float]:
    """The probability of each token (n) in the logits (n, V) that it was chosen from."""
    chosen = torch.tensor(tokens, dtype=torch.long, device=logits.device)
    return logits.float().log_softmax(-1).gather(1, chosen[:, None])[:, 0].exp().tolist()
