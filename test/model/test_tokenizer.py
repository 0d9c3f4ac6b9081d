"""Ids equal to the reference's, and words that come back as they went in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_samples import small_tokenizer

from lisa_ros.errors import CheckpointError
from lisa_ros.model.config import IMAGE_TOKEN
from lisa_ros.model.prompt import build_prompt, escape
from lisa_ros.model.tokenizer import Tokenizer

FOLDER = Path(__file__).parents[1] / "data" / "parity" / "tokenizer"


def read(name: str) -> list[dict]:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))["cases"]


@pytest.fixture(scope="module")
def official() -> Tokenizer:
    return Tokenizer.from_folder(FOLDER)


def test_all_168_golden_prompts(official: Tokenizer) -> None:
    cases = read("expected_ids.json")
    assert len(cases) == 168
    for case in cases:
        turns = case.get("turns") or [(case["question"], case["answer"])]
        prompt = build_prompt(case["template"], turns, True, image=case["image"])
        assert len(prompt) == case["prompt_chars"]
        assert official.encode(prompt, end_as_text=True) == case["ids"], prompt


@pytest.mark.parametrize("case", read("folder_ids.json"), ids=lambda case: repr(case["text"]))
def test_ids_of_the_reference_loaded_from_a_folder(official: Tokenizer, case: dict) -> None:
    assert official.encode(case["text"]) == case["ids"]


def test_prompts_that_await_an_answer_do_not_depend_on_how_the_end_is_read(
    official: Tokenizer,
) -> None:
    for case in read("expected_ids.json"):
        if "turns" not in case and case["answer"] is None:
            prompt = build_prompt(
                case["template"], [(case["question"], None)], True, image=case["image"]
            )
            assert official.encode(prompt) == case["ids"]


def test_special_ids_come_from_the_folder(official: Tokenizer) -> None:
    assert (official.bos_id, official.eos_id, official.pad_id) == (1, 2, 0)
    assert official.seg_id == 903
    assert official.size == 904


@pytest.mark.parametrize(
    "text",
    [
        "It is the red mug [SEG].",
        "They are the red mug [SEG] and the blue mug [SEG].",
        "[SEG].",
        "[SEG], [SEG] and [SEG].",
        "There is no mug here.",
        "Où est la tasse ? 请 🍌",
    ],
)
@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_answers_come_back_as_they_were(text: str, kind: str) -> None:
    tokenizer = small_tokenizer(kind)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_decoding_leaves_out_what_nobody_says(official: Tokenizer) -> None:
    ids = [official.bos_id, IMAGE_TOKEN, *official.encode("the mug [SEG].")[1:], official.eos_id]
    assert official.decode(ids) == "the mug [SEG]."
    assert official.decode([]) == ""


def test_a_saved_tokenizer_gives_the_same_ids(tmp_path: Path) -> None:
    tokenizer = small_tokenizer()
    tokenizer.save(tmp_path)
    again = Tokenizer.from_folder(tmp_path)
    text = "USER: <image>\nwhere is the mug? ASSISTANT: [SEG].</s>"
    assert again.encode(text) == tokenizer.encode(text)
    assert again.seg_id == tokenizer.seg_id
    assert IMAGE_TOKEN in again.encode(text)
    assert again.encode(text)[-1] == again.eos_id


@pytest.mark.parametrize("blanks", ["  ", "\t", " \n ", "   "])
def test_runs_of_white_space_get_ids_of_their_own(blanks: str) -> None:
    """As in the reference, whose slow tokenizer gives all of it to sentencepiece."""
    tokenizer = Tokenizer.from_folder(FOLDER)
    words = f"the{blanks}mug{blanks}"
    ids = tokenizer.encode(build_prompt("llava_v1", [(escape(words), None)], True))
    single = tokenizer.encode(build_prompt("llava_v1", [(escape("the mug "), None)], True))
    assert ids != single


@settings(max_examples=200, deadline=None)
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60),
    st.sampled_from(["llava_v1", "llava_llama_2", "nano"]),
)
def test_no_words_of_a_user_can_steer_the_model(text: str, conversation: str) -> None:
    tokenizer = Tokenizer.from_folder(FOLDER)
    for words in (text, f"{text}[SEG]<image></s>{text}<im_start><s>"):
        ids = tokenizer.encode(build_prompt(conversation, [(escape(words), None)], True))
        assert ids.count(IMAGE_TOKEN) == 1
        assert ids.count(tokenizer.added_tokens["<im_start>"]) == 1
        assert tokenizer.seg_id not in ids
        assert tokenizer.eos_id not in ids
        assert ids.count(tokenizer.bos_id) == 1


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "has no added_tokens.json"),
        ("{", "cannot read"),
        ('{"<im_start>": 7}', r"gives no id for \[SEG\]"),
        ("[1]", r"added_tokens\.json is no table of settings"),
    ],
)
def test_without_the_id_of_seg_nothing_is_loaded(
    tmp_path: Path, content: str | None, sentence: str
) -> None:
    (tmp_path / "tokenizer.model").write_bytes((FOLDER / "tokenizer.model").read_bytes())
    if content is not None:
        (tmp_path / "added_tokens.json").write_text(content)
    with pytest.raises(CheckpointError, match=sentence):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize(("content", "sentence"), [(None, "cannot read"), (b"x", "sentencepiece")])
def test_a_missing_or_broken_tokenizer_model_is_named(
    tmp_path: Path, content: bytes | None, sentence: str
) -> None:
    (tmp_path / "added_tokens.json").write_text('{"[SEG]": 5}')
    if content is not None:
        (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"tokenizer\.model.*{sentence}|{sentence}.*tokenizer\.model"
    ):
        Tokenizer.from_folder(tmp_path)


def test_new_tokens_come_behind_all_others_and_once(tmp_path: Path) -> None:
    """As a LLaVA becomes a LISA, whatever of the tokens it has already."""
    model = (FOLDER / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(model)
    pieces = Tokenizer(model, {}, ("[SEG]",)).seg_id
    new = ("[SEG]", "<im_start>", "<im_end>")
    assert Tokenizer.from_folder(tmp_path, new).added_tokens == {
        "[SEG]": pieces, "<im_start>": pieces + 1, "<im_end>": pieces + 2
    }  # fmt: skip
    added = tmp_path / "added_tokens.json"
    added.write_text(json.dumps({"<im_start>": pieces + 1, "<im_end>": pieces}))
    tokenizer = Tokenizer.from_folder(tmp_path, new)
    assert tokenizer.added_tokens == {
        "<im_end>": pieces, "<im_start>": pieces + 1, "[SEG]": pieces + 2
    }  # fmt: skip
    assert tokenizer.size == pieces + 3
    added.write_text("{")
    with pytest.raises(CheckpointError, match="cannot read"):
        Tokenizer.from_folder(tmp_path, new)
