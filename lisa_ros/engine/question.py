"""What can be asked: a question, its limits, and how it is put to the model in token ids."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypedDict

import numpy as np

from lisa_ros.errors import ImageError, InstructionError
from lisa_ros.model.config import IMAGE_TOKEN, SEG, ClipView
from lisa_ros.model.prompt import (
    Turn,
    build_prompt,
    check_rgb,
    check_text,
    escape,
    mode_suffixes,
)

if TYPE_CHECKING:
    from lisa_ros.model.checkpoint import Lisa

Mode = Literal["auto", "mask", "explain", "text", "semantic", "conversation", "chain_of_thought"]
MODES: dict[Mode, str] = {
    "auto": "the model decides",
    "mask": "a mask, in one pass",
    "explain": "mask and reason",
    "text": "words",
    "semantic": "one mask for a whole category (LISA++)",
    "conversation": "words with such a mask (LISA++)",
    "chain_of_thought": "a reasoning in steps (LISA++)",
}
"""What each asks for; a model of the LISA++ kind alone was trained for the last three."""


class Cancel(Protocol):
    """Anything like a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the caller has lost interest."""


@dataclass(frozen=True)
class Interruption:
    """Called between passes: gives the reason to break off from outside, or an empty string."""

    cancel: Cancel | None = None
    deadline: float | None = None
    """a time of `time.monotonic()`"""

    def __post_init__(self) -> None:
        if self.cancel is not None and not callable(getattr(self.cancel, "is_set", None)):
            raise InstructionError(f"cancel must be like a threading.Event, not {self.cancel!r}")
        is_time = type(self.deadline) in (int, float, np.float64)
        if self.deadline is not None and not (is_time and self.deadline == self.deadline):  # NaN
            raise InstructionError(
                f"deadline must be a time of time.monotonic(), not {self.deadline!r}"
            )

    def __call__(self) -> str:
        if self.cancel is not None and self.cancel.is_set():
            return "cancel"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "deadline"
        return ""


# The openings of the answers that LISA was trained on (Lai et al., 2023).
TEMPLATES = (
    "[SEG].",
    "Sure, [SEG].",
    "It is [SEG].",
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
)
OPENINGS = ("It is the", "They are the")  # of models that name every thing they mask
VARIETY = 5  # an instruction that says each of its words so often on average means nothing
_STAMMERED = re.compile(r"\b(\w+)(?:\W+\1\b){3,}", re.IGNORECASE)
MOST_INSTANCES = 4  # masks in a row that a draft of bare masks offers


@dataclass(frozen=True)
class EngineConfig:
    """Settings of an engine; the defaults suit a robot with one camera."""

    max_new_tokens: int = 256
    """longest answer, in tokens"""
    max_masks: int = 16
    """most masks of an answer; it is stopped where one more would come"""
    max_repeats: int = 24
    """tokens that repeat one short pattern before an answer is stopped, and words from which on an
    instruction that says the same few over and over is refused; 0: never"""
    longest_instruction: int = 2000
    """characters; the models were trained on sentences"""
    keep_empty_masks: bool = False
    """whether a `[SEG]` whose mask has no pixel is an instance too"""
    smallest_side: int = 16
    """pixels; an image with less shows nothing"""
    largest_ratio: float = 20
    """longer side of an image over its shorter side"""
    cache_bytes: int = 512 * 2**20
    """bound on the features of earlier images that stay in memory"""
    draft_tokens: int = 128
    """most draft tokens that one pass checks; 0: no drafts"""
    clip_view: ClipView | None = None
    """what the language model sees of an image that is no square: the central square; all of it,
    pressed; or three squares, of which the surest answer is taken. None: as in its training"""
    threads: int | None = None
    """processor threads for torch; None: leave them as they are"""


DEFAULTS = EngineConfig()


@dataclass(frozen=True, eq=False)
class Question:
    """One instruction about one image."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB"""
    instruction: str
    mode: Mode = "auto"
    """what is asked for, see `MODES`"""
    history: Sequence[tuple[str, str]] = ()
    """earlier instructions about this image, each with its `Answer.transcript`, the oldest first"""
    key: Hashable | None = None
    """name of the image, for example camera and stamp; equal keys are encoded once"""
    max_new_tokens: int | None = None
    """longest answer; None: the engine's own limit"""


class AskOptions(TypedDict, total=False):
    """What may be said beside image and instruction, wherever one question is asked."""

    mode: Mode
    history: Sequence[tuple[str, str]]
    key: Hashable | None
    max_new_tokens: int | None
    """these four as in `Question`"""
    cancel: Cancel | None
    """asked between the passes; what there is by then is the answer"""
    deadline: float | None
    """a time of `time.monotonic()`, after which what there is by then is the answer"""


def check_question(
    question: Question, config: EngineConfig = DEFAULTS, modes: Collection[str] = MODES
) -> None:
    """Raise `InstructionError` or `ImageError`, which say why a question cannot be asked.

    `modes`: those that the model was trained for.
    """
    check_image(question.image, config, question.key)
    check_mode(question.mode, modes)
    check_instruction(question.instruction, config)
    turns, limit = question.history, question.max_new_tokens
    pairs = isinstance(turns, Sequence) and all(isinstance(turn, tuple | list) for turn in turns)
    if not pairs or any(len(turn) != 2 for turn in turns):
        raise InstructionError(
            f"history must be pairs of instruction and transcript, not {turns!r:.80}"
        )
    for words in (words for turn in turns for words in turn):
        check_text(words)
    is_whole = isinstance(limit, int | np.integer) and limit is not True
    if limit is not None and not (is_whole and limit >= 1):
        raise InstructionError(
            f"max_new_tokens must be a whole number of at least 1, not {limit!r}"
        )


def check_mode(mode: str, modes: Collection[str]) -> None:
    """Raise `InstructionError` for a mode that is none, or none of a model's `modes`."""
    if not isinstance(mode, str) or mode not in modes:
        known = "this model was not trained for" if str(mode) in MODES else "unknown"
        raise InstructionError(f"{known} mode {mode!r}; use one of {', '.join(modes)}")


def check_instruction(instruction: str, config: EngineConfig = DEFAULTS) -> None:
    """Raise `InstructionError`, which says why an instruction cannot be asked."""
    check_text(instruction)
    if not instruction.strip():
        raise InstructionError("the instruction is empty; say what to look for")
    if len(instruction) > config.longest_instruction:
        raise InstructionError(
            f"the instruction has {len(instruction)} characters; "
            f"at most {config.longest_instruction} can be used"
        )
    words = instruction.lower().split()
    if config.max_repeats and len(words) >= max(config.max_repeats, VARIETY * len(set(words))):
        raise InstructionError(
            f"the instruction says {len(set(words))} different words in {len(words)}, over and "
            "over; say once what to look for"
        )


def check_image(image: np.ndarray, config: EngineConfig = DEFAULTS, key: Hashable = None) -> None:
    """Raise `ImageError`, which says why an image, or the name that it is given, cannot be used."""
    check_rgb(image)
    try:
        hash(key)
    except TypeError:
        raise ImageError(f"key must name the image by a text or a tuple, not {key!r:.80}") from None
    height, width, _ = image.shape
    if min(height, width) < config.smallest_side:
        raise ImageError(
            f"the image is {width}x{height} pixels; each side must have at least "
            f"{config.smallest_side}"
        )
    if max(height, width) > config.largest_ratio * min(height, width):
        raise ImageError(
            f"the image is {width}x{height} pixels; one side may be at most "
            f"{config.largest_ratio:g} times as long as the other"
        )


class Prompts:
    """Prompts and answers of one model as its tokenizer sees them."""

    def __init__(self, lisa: Lisa) -> None:
        self.config, self.tokenizer = lisa.config, lisa.tokenizer
        self.suffixes = mode_suffixes(lisa.config)
        prompt = self._encode([("", None)])
        self.prefix = prompt[: prompt.index(IMAGE_TOKEN) + 1]
        """the beginning of every prompt, up to and with the image"""
        self.refusal = self.answer(lisa.config.refusal_prefix)
        """how an answer begins that says that a thing is not there; empty: there is none"""

    def ids(self, question: Question) -> list[int]:
        """The prompt that ends where the model goes on, IMAGE_TOKEN in place of the image."""
        # a model's own [SEG] may stay: masks are decoded for what it writes now, not for history
        turns: list[Turn] = [
            (self._words(asked), f" {SEG} ".join(map(escape, said.split(SEG))))
            for asked, said in question.history
        ]
        asked = self._words(question.instruction) + self.suffixes[question.mode]
        return self._encode([*turns, (asked, None)])

    def _words(self, instruction: str) -> str:
        """A user's words as they stand in the prompt.

        nano has only ever seen single blanks, and knows few words in capitals: what is shouted is
        asked in small letters. What is stammered, a word four times or more, is asked once: after
        a dozen of "the" nano takes anything for the mug.
        """
        if self.config.conversation == "nano":
            instruction = _STAMMERED.sub(r"\1", " ".join(instruction.split()))
            if instruction.isupper():
                instruction = instruction.capitalize()
        return escape(instruction)

    def answer(self, text: str) -> list[int]:
        """The ids of an answer behind a prompt, without the end token."""
        if not text:
            return []
        prompt, whole = self._encode([("-", None)]), self._encode([("-", text)])
        ids = whole[len(prompt) :]
        return ids[: ids.index(self.tokenizer.eos_id)]

    def known_answers(self) -> dict[Mode, list[list[int]]]:
        """Answers or beginnings of answers that the model was trained to give, for each mode."""
        refusals = [self.config.refusal_prefix] if self.config.refusal_prefix else []
        masks, openings = [], []
        if self.config.mask_instances:
            masks = [" ".join([SEG] * count) + "." for count in range(1, MOST_INSTANCES + 1)]
            openings = list(OPENINGS)
        templates = [*openings, *TEMPLATES, *refusals]
        texts = dict.fromkeys(("auto", "explain", "semantic", "conversation"), templates)
        texts |= {"mask": masks + refusals, "text": [], "chain_of_thought": []}
        return {mode: [self.answer(text) for text in some] for mode, some in texts.items()}

    def _encode(self, turns: Sequence[Turn]) -> list[int]:
        prompt = build_prompt(self.config.conversation, turns, self.config.image_start_end)
        return self.tokenizer.encode(prompt)
