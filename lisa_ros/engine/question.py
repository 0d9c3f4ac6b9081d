"""What can be asked, and how it is put to the model."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lisa_ros.errors import InstructionError

Mode = Literal["auto", "mask", "explain", "text"]
LONGEST_INSTRUCTION = 2000  # characters; the models were trained on sentences


@dataclass(frozen=True, eq=False)
class Question:
    """One instruction about one image."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB"""
    instruction: str
    mode: Mode = "auto"
    """auto: the model decides; mask: a mask, in one pass; explain: mask and reason; text: words"""
    history: Sequence[tuple[str, str]] = ()
    """earlier instructions about this image, each with its `Answer.transcript`, the oldest first"""
    key: Hashable | None = None
    """name of the frame, for example camera and stamp; equal keys are encoded once"""
    max_new_tokens: int | None = None
    """longest answer; None: the engine's own limit"""


def check_question(question: Question) -> Question:
    """The question itself, if it can be asked; `InstructionError` says why not."""
    if question.mode not in get_args(Mode):
        raise InstructionError(
            f"unknown mode {question.mode!r}; use one of {', '.join(get_args(Mode))}"
        )
    if not question.instruction.strip():
        raise InstructionError("the instruction is empty; say what to look for")
    if len(question.instruction) > LONGEST_INSTRUCTION:
        raise InstructionError(
            f"the instruction has {len(question.instruction)} characters; "
            f"at most {LONGEST_INSTRUCTION} can be used"
        )
    if question.max_new_tokens is not None and question.max_new_tokens < 1:
        raise InstructionError("max_new_tokens must be at least 1")
    return question
