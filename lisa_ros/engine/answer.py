"""What the engine hands back: events while it works, and one answer at the end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

import cv2
import numpy as np

# The openings that LISA's answers begin with; they say nothing about which thing is meant.
_LEAD_IN = re.compile(
    r"^(?:(?:sure|yes|and|or|it is|they are|the segmentation result is|here (?:is|are))\b"
    r"|[\s,.;:!])+",
    re.IGNORECASE,
)
# Text that a later piece may still change: white space, dangling punctuation, an unfinished [SEG]
# and the replacement character of an unfinished multi-byte letter.
_UNSETTLED = re.compile(r"(?:[\s,;:.�]|\[S?E?G?$)+$")


class AnswerStatus(str, Enum):
    """How a question ended."""

    OK = "OK"
    """at least one mask that is not empty"""
    NOT_FOUND = "NOT_FOUND"
    """a mask was asked for and the model says the thing is not there, or every mask is empty"""
    TEXT_ONLY = "TEXT_ONLY"
    """an answer in words without a mask"""
    CANCELLED = "CANCELLED"
    """the caller's `cancel` was set; the answer holds what there was by then"""
    TIMEOUT = "TIMEOUT"
    """the deadline passed; the answer holds what there was by then"""


ABORTED = {"cancel": AnswerStatus.CANCELLED, "deadline": AnswerStatus.TIMEOUT}
"""How an answer ended that its caller broke off, by the reason in `stopped_by`."""


@dataclass(frozen=True)
class Instance:
    """One mask of the answer."""

    mask: np.ndarray
    """(H, W) bool, at the size of the image that was asked about"""
    score: float
    """0..1. With a model whose scores are calibrated: the probability that the mask shows what was
    meant, overlapping it with an IoU above 0.5. With any other: mean probability that the mask
    decoder gives to the pixels of the mask, which says how sharp it is and no more."""
    seg_probability: float
    """0..1: the probability that the language model gave to `[SEG]` at this place"""
    label: str
    """the words of the answer that this mask belongs to, or the instruction where there are none"""
    evidence: Mapping[str, float] = field(default_factory=dict)
    """what a calibrated score was made from (request_state.py); empty where it is not calibrated"""
    seg_embedding: np.ndarray | None = None
    """(C,) float32, the `[SEG]` embedding as SAM's prompt, by which `Engine.decode_masks` finds the
    thing in other images; None for a mask that no model made"""

    @cached_property
    def box(self) -> tuple[int, int, int, int]:
        """x, y, width, height in pixels; zeros for an empty mask."""
        return mask_box(self.mask)

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True)
class TextDelta:
    """The next words of the answer. All deltas joined are `Answer.text`."""

    text: str


@dataclass(frozen=True)
class MaskReady:
    """A mask, handed over as soon as the state that predicts `[SEG]` exists."""

    instance: Instance


@dataclass(frozen=True)
class Finished:
    """The last event of every question."""

    answer: Answer


Event = TextDelta | MaskReady | Finished


@dataclass
class Answer:
    """The whole answer to one question."""

    text: str
    """plain words, `[SEG]` removed"""
    status: AnswerStatus
    instances: list[Instance]
    """in the order of their `[SEG]` in the answer"""
    timings: dict[str, float] = field(default_factory=dict)
    """milliseconds of work: clip, sam, prefill, decode, mask (missing where not needed); since the
    question: first_mask, total"""
    counters: dict[str, int] = field(default_factory=dict)
    """sam_encodes, clip_encodes, forwards (passes through the language model), tokens (answered),
    drafted and accepted (draft tokens checked, and found right)"""
    stopped_by: str = "end"
    """end | tokens (cut at its longest) | repetition | masks (one more would be too many) | cancel
    | deadline"""
    transcript: str = ""
    """the answer as the model wrote it, `[SEG]` included: what `history` wants"""

    @property
    def truncated(self) -> bool:
        """Whether the answer reached its longest length and was cut there."""
        return self.stopped_by == "tokens"


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width, height of a mask (H, W) bool in pixels; zeros for an empty one."""
    return tuple(cv2.boundingRect(mask.view(np.uint8)))


def plain_text(raw: str) -> str:
    """The answer as a person would read it: `[SEG]` removed, spaces and punctuation mended."""
    text = re.sub(r"\[SEG\]|<im_(?:start|end|patch)>", " ", raw)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", text)
    text = re.sub(r"[,;:]+(?=[,.;:!?])", "", text)
    return text.lstrip(" ,.;:!?").rstrip()


def settled_text(raw: str) -> str:
    """The part of `plain_text` that no continuation of `raw` can change any more."""
    return _UNSETTLED.sub("", plain_text(_UNSETTLED.sub("", raw)))


def label_of(raw: str, instruction: str) -> str:
    """The words of the answer that its last `[SEG]` belongs to.

    `raw` is the answer up to and without that `[SEG]`: the label is what stands between it and the
    previous `[SEG]` or the end of the previous sentence, without LISA's lead-in words.
    """
    clause = re.split(r"\[SEG\]|[.!?]\s", raw)[-1]
    clause = _LEAD_IN.sub("", plain_text(clause)).strip(" ,;:(")
    return re.sub(r"\s+(?:is|are|at|here)$", "", clause) or instruction.strip()
