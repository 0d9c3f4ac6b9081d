"""Spatial relations: answered only where a person would not hesitate, and then rightly."""

import pytest
from tabletop_questions import KNOWLEDGE, ROW, ask, scene, thing

from lisa_tabletop.language import relations
from lisa_tabletop.language.draft import read_scene


def cups(*places: tuple[float, float]) -> list[dict]:
    """Mugs at these pixels, numbered from 1; where they stand on the table follows from that."""
    return [thing(n, "mug", "red", "ceramic", u, v) for n, (u, v) in enumerate(places, 1)]


def found(relation, things: list[dict], *more) -> int | None:
    """The number of what is nearest, next to, ... the first of the things."""
    read = read_scene(scene(*things), KNOWLEDGE)
    anchor = next(one for one in read.things if one.id == 1)
    first = read if relation is relations.next_to else read.things
    target = relation(first, anchor, *more)
    return target and target.id


@pytest.mark.parametrize(("second", "clear"), [(115, False), (130, False), (140, True)])
def test_the_nearest_is_clearly_nearer_than_the_next(second, clear):
    things = cups((300, 240), (400, 240), (300 - second, 240))
    assert found(relations.nearest, things) == (2 if clear else None)
    assert found(relations.nearest, things, True) == (3 if clear else None)  # the farthest


def test_what_is_nearest_in_the_image_and_not_on_the_table_is_not_said():
    """Seen along the table, what stands far behind looks near."""
    things = cups((300, 240), (400, 240), (300, 440))
    assert found(relations.nearest, things) == 2
    things[1]["position"] = [0.3, -0.9, 0.05]
    assert found(relations.nearest, things) is None


@pytest.mark.parametrize(("share", "number"), [(0.25, 2), (0.35, None)])
def test_what_is_next_to_a_thing_is_near_it(share, number):
    things = cups((200, 240), (200 + share * 480, 240), (200, 475))
    assert found(relations.next_to, things) == number


def test_the_longest_is_longer_than_whatever_lies_across_its_own_box():
    """A fork that lies across its box is longer than either side of it."""
    spoon = thing(1, "spoon", "grey", "metal", 200, 240, size=(0.17, 0.02, 0.01))
    fork = thing(2, "fork", "grey", "metal", 400, 240, size=(0.14, 0.14, 0.01))
    read = read_scene(scene(spoon, fork), KNOWLEDGE)
    assert relations.longest(read.things) is None
    shorter = {**fork, "size": [0.08, 0.08, 0.01]}
    assert relations.longest(read_scene(scene(spoon, shorter), KNOWLEDGE).things).id == 1


def test_the_image_does_not_contradict_a_size_that_is_asked_for():
    """The larger one of two stands far behind and looks smaller: nothing asks for it by size."""
    near = thing(1, "mug", "red", "ceramic", 200, 400, size=(0.08, 0.08, 0.08), area=9000)
    far = thing(2, "mug", "blue", "ceramic", 400, 100, size=(0.12, 0.12, 0.12), area=4000)
    by_size = ("larg", "bigg", "small", "little")
    for kind in ("relation", "attribute"):
        for question in ask(scene(near, far), kind, 200):
            assert not any(word in question["instruction"].lower() for word in by_size), question


def test_what_the_image_shows_below_the_square_of_the_model_is_not_asked_for():
    """A tall image: the language model is shown its middle."""
    record = {**scene(*cups((240, 320), (240, 600))), "width": 480, "height": 640}
    read = read_scene(record, KNOWLEDGE)
    assert [one.askable for one in sorted(read.things, key=lambda one: one.id)] == [True, False]


def test_the_other_one_is_the_other_one():
    pair = scene(
        thing(1, "mug", "red", "ceramic", 200, 240), thing(2, "mug", "blue", "ceramic", 400, 240)
    )
    asked = 0
    for question in ask(pair, "followup", 300):
        if "other" in question["instruction"]:
            named = question["history"][0][1]
            assert question["targets"] == [2 if "red" in named else 1], question
            asked += 1
    assert asked > 5


def test_partners_go_both_ways():
    assert all(
        one in KNOWLEDGE.pairs[other] for one in KNOWLEDGE.pairs for other in KNOWLEDGE.pairs[one]
    )


def test_what_is_at_a_place_is_not_called_absent_from_there():
    refusals = {question["answer"] for question in ask(ROW, "absent", 900)}
    assert any(" left of the " in refusal for refusal in refusals)
    for book in ("book", "blue book"):  # the mug is left of it, the bottle and the spoon are right
        assert f"There is no mug left of the {book}." not in refusals
        assert f"There is no bottle right of the {book}." not in refusals
