"""How a question is put to the model, in token ids."""

from __future__ import annotations

from collections.abc import Sequence

from lisa_ros.engine.answer import SEG
from lisa_ros.engine.question import Mode, Question
from lisa_ros.engine.speculative import known_texts
from lisa_ros.model.checkpoint import Lisa
from lisa_ros.model.network import IMAGE_TOKEN
from lisa_ros.model.prompt import (
    INSTANCE_SUFFIXES,
    MODE_SUFFIXES,
    Turn,
    build_prompt,
    escape,
)


class Prompts:
    """Prompts and answers of one model as its tokenizer sees them."""

    def __init__(self, lisa: Lisa) -> None:
        self.config, self.tokenizer = lisa.config, lisa.tokenizer
        prompt = self._encode([("", None)])
        self.prefix = prompt[: prompt.index(IMAGE_TOKEN) + 1]
        """the beginning of every prompt, up to and with the image"""
        self.refusal = self.answer(lisa.config.refusal_prefix)
        """how an answer begins that says that a thing is not there; empty: there is none"""

    def ids(self, question: Question) -> list[int]:
        """The prompt that ends where the model goes on, IMAGE_TOKEN in place of the image."""
        # nano names its instances but was trained with the suffixes of LISA
        instances = self.config.mask_instances and self.config.conversation != "nano"
        suffix = (INSTANCE_SUFFIXES if instances else MODE_SUFFIXES)[question.mode]
        turns: list[Turn] = [(escape(q), _escape_answer(a)) for q, a in question.history]
        return self._encode([*turns, (escape(question.instruction) + suffix, None)])

    def answer(self, text: str) -> list[int]:
        """The ids of an answer behind a prompt, without the end token."""
        if not text:
            return []
        prompt, whole = self._encode([("-", None)]), self._encode([("-", text)])
        ids = whole[len(prompt) :]
        return ids[: ids.index(self.tokenizer.eos_id)]

    def known_answers(self) -> dict[Mode, list[list[int]]]:
        """What the model was trained to say, for each mode."""
        texts = known_texts(self.config)
        return {mode: [self.answer(text) for text in some] for mode, some in texts.items()}

    def _encode(self, turns: Sequence[Turn]) -> list[int]:
        prompt = build_prompt(self.config.conversation, turns, self.config.image_start_end)
        return self.tokenizer.encode(prompt)


def _escape_answer(transcript: str) -> str:
    """A model's own `[SEG]` may stay: masks are decoded for what it writes now, not for history."""
    return f" {SEG} ".join(escape(part) for part in transcript.split(SEG))
