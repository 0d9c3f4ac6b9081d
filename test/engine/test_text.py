"""Words, labels and what may be said before an answer is complete."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lisa_ros.engine.answer import label_of, plain_text, settled_text

PIECES = ("It is", " the red mug", " [SEG]", "[SEG]", ".", ",", " ,", ", and", " ", "Sure", "�")
pieces = st.lists(st.sampled_from((*PIECES, "é", "\n", "!", ":", " <im_end>", "S", "[")))


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("It is [SEG].", "It is."),
        ("[SEG].", ""),
        ("Sure, [SEG].", "Sure."),
        ("Sure,[SEG] .", "Sure."),
        ("[SEG]. The mug  can\nhold water.", "The mug can hold water."),
        ("It is the mug [SEG], and the cup [SEG].", "It is the mug, and the cup."),
        ("no mask", "no mask"),
    ],
)
def test_plain_text(raw: str, plain: str) -> None:
    assert plain_text(raw) == plain


@given(pieces, pieces)
def test_what_was_said_is_never_taken_back(before: list[str], after: list[str]) -> None:
    raw = "".join(before)
    assert plain_text(raw + "".join(after)).startswith(settled_text(raw))


@pytest.mark.parametrize(
    ("raw", "label"),
    [
        ("It is the red mug", "the red mug"),
        ("They are the red mug [SEG] and the blue mug", "the blue mug"),
        ("They are the mug [SEG], the cup", "the cup"),
        ("There are two things. Sure, it is the bowl", "the bowl"),
        ("Sure, the segmentation result is", "the thing asked for"),
        ("Sure,", "the thing asked for"),
        ("", "the thing asked for"),
        ("The orange", "The orange"),
        ("The red mug is", "The red mug"),
    ],
)
def test_a_mask_is_labelled_by_its_own_words(raw: str, label: str) -> None:
    assert label_of(raw, "the thing asked for") == label
