"""Prompt strings to the letter."""

from __future__ import annotations

import hashlib

import pytest

from lisa_ros.model.prompt import INSTANCE_SUFFIXES, MODE_SUFFIXES, build_prompt, escape

CUP = "Where is the cup?"


def fingerprint(text: str) -> tuple[int, str]:
    return len(text), hashlib.sha256(text.encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("conversation", "answer", "expected"),
    [
        ("llava_v1", None, (217, "e77db7ea3c1e45e0")),
        ("llava_v1", "Sure, [SEG].", (234, "69b9cb4051a93f7e")),
        ("llava_llama_2", None, (263, "97aa43ef6bd8885d")),
    ],
)
def test_prompts_are_those_of_the_reference(
    conversation: str, answer: str | None, expected: tuple[int, str]
) -> None:
    assert fingerprint(build_prompt(conversation, [(CUP, answer)], True)) == expected


def test_vicuna_says_user_where_llava_says_human() -> None:
    vicuna = build_prompt("vicuna_v1", [(CUP, None)], False)
    assert fingerprint(vicuna.split(" USER:")[0]) == (154, "1fa69e2371b762d1")


def test_nano_has_no_system_text() -> None:
    assert build_prompt("nano", [(CUP, None)], False) == f"USER: <image>\n{CUP} ASSISTANT:"


@pytest.mark.parametrize("conversation", ["llava_v1", "llava_llama_2", "vicuna_v1", "nano"])
def test_history_shows_the_image_once_and_ends_where_the_model_goes_on(conversation: str) -> None:
    turns = [("first", "It is [SEG]."), ("second", "No."), ("third", None)]
    prompt = build_prompt(conversation, turns, True)
    assert prompt.count("<image>") == 1
    assert prompt.index("<image>") < prompt.index("first")
    assert prompt.index("It is [SEG].") < prompt.index("second") < prompt.index("third")
    assert prompt.count("</s>") == 2
    assert prompt.endswith("[/INST]" if conversation == "llava_llama_2" else "ASSISTANT:")


def test_history_of_llama_2_follows_its_layout() -> None:
    turns = [("a", "b"), ("c", None)]
    prompt = build_prompt("llava_llama_2", turns, False, image=False)
    assert prompt.endswith("<</SYS>>\n\na [/INST] b </s><s>[INST] c [/INST]")
    assert prompt.startswith("[INST] <<SYS>>\nYou are")


@pytest.mark.parametrize(
    ("words", "safe"),
    [
        ("the [SEG] mug", "the (SEG) mug"),
        ("<image> <im_start>x<im_end>", "(image) (im_start)x(im_end)"),
        ("end</s>USER:", "end(/s)USER:"),
        ("[INST] <<SYS>> [/INST]", "(INST) (SYS) (/INST)"),
        ("[S[SEG]EG] <im<image>age>", "[S(SEG)EG] <im(image)age>"),
        ("  two\n\nlines \t ", "  two\n\nlines \t "),
        ("the mug [left] of <b>", "the mug [left] of <b>"),
    ],
)
def test_escaping(words: str, safe: str) -> None:
    assert escape(words) == safe


def test_every_mode_has_words_for_both_kinds_of_model() -> None:
    assert MODE_SUFFIXES.keys() == {"auto", "mask", "explain", "text"}
    assert INSTANCE_SUFFIXES.keys() - MODE_SUFFIXES.keys() == {
        "semantic",
        "conversation",
        "chain_of_thought",
    }
    assert MODE_SUFFIXES["auto"] == MODE_SUFFIXES["text"] == ""
    for mode in ("mask", "explain"):
        assert "segmentation mask" in MODE_SUFFIXES[mode]
        assert "instance segmentation mask" in INSTANCE_SUFFIXES[mode]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("mask", (168, "b516e7d1fd71cc39")),
        ("explain", (218, "c31b1e8ef828e042")),
        ("text", (81, "1ced4c5dc58aaa35")),
        ("semantic", (163, "22ebea981bedfd92")),
        ("conversation", (148, "5824548c3b940b4b")),
        ("chain_of_thought", (53, "48da5e7dbea723d0")),
    ],
)
def test_the_forms_of_lisa_plus_plus_are_those_it_was_trained_with(
    mode: str, expected: tuple[int, str]
) -> None:
    assert fingerprint(INSTANCE_SUFFIXES[mode]) == expected
