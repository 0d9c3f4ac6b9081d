"""A bag with answers of version 0.1.0, whose messages had fewer fields, stays readable."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from fake_engine import FakeEngine

from lisa_ros.recordings.annotate import Annotator
from lisa_ros.recordings.bag import Bag

OLD = Path(__file__).parent.parent / "data" / "answers_0_1_0"
ANSWERS = ["It is the yellow mug.", "It is the red wrench. A wrench has jaws that fit a nut."]


def test_its_answers_are_read_by_the_definitions_that_it_holds():
    with Bag(OLD) as bag:
        read = [bag.decode(one) for one in bag.messages(["/robot/mask"])]
    assert [one.answer for one in read] == ANSWERS
    assert all(one.instances[0].area > 100 for one in read)
    assert not any(hasattr(one, "frame_key") for one in read), "the old definition, not today's"


def test_it_can_be_asked_anew_and_what_cannot_stand_beside_is_named(tmp_path):
    annotator = Annotator(OLD, tmp_path / "again", ["the mug"], every=0.0)
    assert len([words for words in annotator.run(FakeEngine()) if words]) == 2
    assert annotator.summary.copied == {"/camera/image/compressed": 2, "/robot/answer": 2}
    assert list(annotator.summary.left_out.values()) == [["/robot/mask"]]
    assert not annotator.summary.faults
    with Bag(tmp_path / "again") as bag:
        [new, *_] = [bag.decode(one) for one in bag.messages(["/lisa/mask"])]
    assert new.frame_key == "" and new.answer
