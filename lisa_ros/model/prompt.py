"""Prompt strings: the conversation layouts that LISA models were trained with.

Layouts after LLaVA (arXiv 2304.08485) and LISA (arXiv 2308.00692); the wording is part of the
trained model and must be met to the letter. Beside them, what words and an image must be like to
be given to a model at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lisa_ros.errors import ImageError, InstructionError
from lisa_ros.model.config import Conversation, LisaConfig

IMAGE_PLACEHOLDER = "<image>"

MODE_SUFFIXES = {
    "auto": "",
    "mask": " Please output segmentation mask.",
    "explain": " Please output segmentation mask and explain why.",
    "text": "",
}
"""The modes that every model knows, and with them node and page: what is added to an instruction so
that the model does what the mode asks for."""

INSTANCE_SUFFIXES = {
    "auto": "",
    "mask": " Generate instance segmentation masks. Each countable object within the same category"
    " should have a separate mask. Ignore uncountable categories for individual masking.",
    "explain": " Respond with text and provide instance segmentation mask predictions. Different"
    " instances within the same countable category should be identified with separate masks."
    " A single mask suffices for uncountable categories.",
    "text": " Respond to the question using text only. Do not generate any segmentation masks.",
    "semantic": " Generate a mask for semantic segmentation. Focus on identifying the category as a"
    " whole; do not distinguish between individual instances within the same category.",
    "conversation": " Provide a textual answer and generate a semantic segmentation mask. Focus on"
    " categorizing the entire class without separating individual instances.",
    "chain_of_thought": " Answer the question with a step-by-step explanation.",
}
"""The same for models of the LISA++ kind (arXiv 2312.17240): one [SEG] an instance, and three forms
more: one mask for a whole category, words with such a mask, and a reasoning in steps."""


def mode_suffixes(config: LisaConfig) -> Mapping[str, str]:
    """The modes that a model was trained for, with what each adds to an instruction."""
    # nano names its instances but was trained with the suffixes of LISA
    instances = config.mask_instances and config.conversation != "nano"
    return INSTANCE_SUFFIXES if instances else MODE_SUFFIXES


_SYSTEM = {
    "llava_v1": "A chat between a curious human and an artificial intelligence assistant."
    " The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "vicuna_v1": "A chat between a curious user and an artificial intelligence assistant."
    " The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "llava_llama_2": "You are a helpful language and vision assistant."
    " You are able to understand the visual content that the user provides,"
    " and assist the user with a variety of tasks using natural language.",
    "nano": "",
}

Turn = tuple[str, str | None]
"""A question and its answer; None where the answer is awaited."""


def build_prompt(
    conversation: Conversation, turns: Sequence[Turn], image_start_end: bool, *, image: bool = True
) -> str:
    """Lay out a conversation; the image, if any, stands before the first question.

    The last turn's answer is usually None, and the prompt then ends where the model goes on.
    """
    placeholder = f"<im_start>{IMAGE_PLACEHOLDER}<im_end>" if image_start_end else IMAGE_PLACEHOLDER
    first = f"{placeholder}\n" if image else ""
    rounds = [
        (first + question if i == 0 else question, a) for i, (question, a) in enumerate(turns)
    ]
    if conversation == "llava_llama_2":
        return _llama_2(_SYSTEM[conversation], rounds)
    text = f"{_SYSTEM[conversation]} " if _SYSTEM[conversation] else ""
    for question, answer in rounds:
        text += f"USER: {question} ASSISTANT:"
        if answer is not None:
            text += f" {answer}</s>"
    return text


def encode_dialogue(
    question: Mapping, encode: Callable[[str], list[int]], config: LisaConfig
) -> tuple[list[int], list[int]]:
    """Ids of the prompt, `history` included, and of the answer to its instruction with the end.

    `encode` is the tokenizer's.
    """
    turns = [tuple(turn) for turn in question.get("history", ())]
    ids, answers = encode_turns(
        [*turns, (question["instruction"], question["answer"])], encode, config
    )
    first, last = answers[-1]
    return ids[:first], ids[first:last]


def encode_turns(
    turns: Sequence[Turn], encode: Callable[[str], list[int]], config: LisaConfig
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids of a whole dialogue about one image, and where in them each answer with its end lies.

    Answers are found in the ids of the whole, for the pieces of two texts are not those of their
    sum.
    """
    style, marks = config.conversation, config.image_start_end
    answers = []
    for count, (question, _) in enumerate(turns):
        before = build_prompt(style, [*turns[:count], (question, None)], marks)
        through = build_prompt(style, turns[: count + 1], marks)
        answers.append((len(encode(before)), len(encode(through))))
    return encode(build_prompt(style, turns, marks)), answers


def _llama_2(system: str, rounds: Sequence[Turn]) -> str:
    parts = []
    for index, (question, answer) in enumerate(rounds):
        opening = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if index == 0 else ""
        # the tokenizer itself puts the first <s>
        start = "<s>" if index else ""
        reply = f" {answer} </s>" if answer is not None else ""
        parts.append(f"{start}[INST] {opening}{question} [/INST]{reply}")
    return "".join(parts)


def check_text(words: str) -> None:
    """Raise `InstructionError` unless words can be written in UTF-8, as tokenizer and ROS do.

    A shell with another code page and JSON's `\\ud800` bring in halves of letters. ROS ends a text
    at its first NUL: half an instruction would be asked.
    """
    if not isinstance(words, str):
        raise InstructionError(f"the instruction is no text but of the type {type(words).__name__}")
    if "\0" in words:
        raise InstructionError(
            f"the instruction is no text: its character {words.index(chr(0)) + 1} is a NUL"
        )
    try:
        words.encode()
    except UnicodeEncodeError as error:
        raise InstructionError(
            f"the instruction is no text: its character {error.start + 1} is half a letter, or of "
            "another code page; write it in UTF-8"
        ) from None


def check_rgb(image: np.ndarray) -> None:
    """Raise `ImageError` unless this is an image, uint8 (H,W,3) RGB."""
    kind, shape = getattr(image, "dtype", type(image).__name__), getattr(image, "shape", ())
    if kind != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise ImageError(
            f"an image must be an RGB array of uint8, (height, width, 3); this is {kind} {shape}"
        )


_CONTROL = re.compile(r"<(image|im_patch|im_start|im_end|s|/s|unk)>|\[(SEG|/?INST)\]|<<(/?SYS)>>")


def escape(instruction: str) -> str:
    """Make a user's words safe to stand in a prompt.

    Words that steer the model (`[SEG]`, `<image>`, `</s>`, ...) lose their brackets' meaning by
    becoming round ones. White space stays as it is, for the reference gives ids to runs of it.
    """
    return _CONTROL.sub(lambda match: f"({next(g for g in match.groups() if g)})", instruction)
