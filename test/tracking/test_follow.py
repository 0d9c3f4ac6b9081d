"""The follower: where it begins, when it asks again, whom it believes. The model is a stand-in."""

import numpy as np
import pytest
from drawn_clip import BLUE, RED, draw, instance

from lisa_ros.engine.answer import Answer, AnswerStatus
from lisa_ros.errors import TrackingError
from lisa_ros.tracking.follow import FollowConfig, Follower
from lisa_ros.tracking.lisa import LisaTracker
from lisa_ros.tracking.tracker import TrackState, mask_iou

GREEN = (40, 150, 60)


class Model:
    """Answers with the masks that it was given, and counts."""

    def __init__(self):
        self.masks, self.runs = [], 0

    def segment(self, image, instruction, **options):
        self.runs += 1
        found = [instance(mask, instruction, 0.9 - 0.1 * n) for n, mask in enumerate(self.masks)]
        return Answer("", AnswerStatus.OK if found else AnswerStatus.NOT_FOUND, found)


def begun(things, **limits):
    """A follower of the first thing by an instruction."""
    image, masks = draw(things)
    model = Model()
    model.masks = [masks[0]]
    follower = Follower(model, LisaTracker(None, **limits))
    tracks = follower.begin(image, stamp=0.0, instruction="the red thing")
    return follower, model, tracks


def blind(follower):
    """The tracker cannot find its things by itself."""
    for thing in follower.tracker.things.values():
        thing.colors[:] = 0


def test_one_question_is_enough_while_the_thing_is_seen():
    follower, model, tracks = begun([(RED, 80, 120)])
    assert [t.label for t in tracks] == ["the red thing"]
    for n in range(1, 40):
        image, masks = draw([(RED, 80 + 3 * n, 120)])
        (track,) = follower.update(image, stamp=n / 15)
        assert track.id == 1 and mask_iou(track.mask, masks[0]) > 0.85
    assert model.runs == follower.asked == 1


def test_a_lost_thing_is_asked_for_at_a_bounded_rate_and_a_look_alike_gets_no_id():
    follower, model, _ = begun([(RED, 160, 120), (BLUE, 60, 200)])
    blind(follower)
    image, masks = draw([(GREEN, 160, 120), (BLUE, 60, 200)])
    model.masks = [masks[0], masks[1]]  # whatever the model says: neither is red
    for n in range(60):
        (track,) = follower.update(image if n % 2 else image.copy(), stamp=5 + n / 15)
        assert track.state != TrackState.VISIBLE and not track.mask.any()
    assert 4 <= model.runs - 1 <= 5  # four seconds, once a second
    image, masks = draw([(GREEN, 160, 120), (BLUE, 60, 200), (RED, 250, 60)])
    model.masks = [masks[2]]
    (track,) = follower.update(image, stamp=11.0)
    assert track.id == 1 and track.state == TrackState.VISIBLE
    assert mask_iou(track.mask, masks[2]) > 0.9


def test_a_place_that_cannot_be_reached_is_not_believed():
    follower, model, _ = begun([(RED, 160, 120)])
    follower.places = {1: np.zeros(3)}
    blind(follower)
    image, masks = draw([(RED, 60, 60)])
    model.masks = [masks[0]]
    # half a metre a second, and two seconds: three metres are too far
    (track,) = follower.update(image, stamp=2.0, locate=lambda mask: np.array([3.0, 0, 0]))
    assert track.state == TrackState.OCCLUDED and model.runs == 2
    (track,) = follower.update(
        draw([(RED, 61, 60)])[0], stamp=4.5, locate=lambda mask: np.array([0.8, 0, 0])
    )
    assert track.state == TrackState.VISIBLE and model.runs == 3
    np.testing.assert_array_equal(follower.places[1], [0.8, 0, 0])


def test_of_two_that_look_alike_the_surer_one_is_taken():
    follower, model, _ = begun([(RED, 160, 120)])
    blind(follower)
    image, masks = draw([(RED, 60, 60), (RED, 250, 170)])
    model.masks = list(masks)
    (track,) = follower.update(image, stamp=5.0)
    assert track.state == TrackState.VISIBLE and mask_iou(track.mask, masks[0]) > 0.9


def test_it_begins_from_a_box_a_point_or_an_instance_without_the_model():
    image, masks = draw([(RED, 80, 120), (BLUE, 220, 120)])
    model = Model()
    follower = Follower(model, LisaTracker(None))
    (track,) = follower.begin(image, stamp=0.0, box=(190, 90, 60, 60))
    assert mask_iou(track.mask, masks[1]) > 0.85
    (track,) = follower.begin(image, stamp=0.0, point=(80, 125))
    assert mask_iou(track.mask, masks[0]) > 0.8
    (track,) = follower.begin(image, stamp=0.0, instances=[instance(masks[1], "the blue one")])
    assert track.label == "the blue one" and mask_iou(track.mask, masks[1]) > 0.9
    assert track.id == 3 and model.runs == 0
    # a box may reach to the very edge
    image, masks = draw([(BLUE, 290, 210)])
    (track,) = follower.begin(image, stamp=0.0, box=(260, 180, 60, 60))
    assert mask_iou(track.mask, masks[0]) > 0.85
    for wrong in ({"box": (300, 10, 40, 20)}, {"box": (1, 2)}, {"point": (320, 5)}, {}):
        with pytest.raises(TrackingError):
            follower.begin(image, stamp=0.0, **wrong)


def test_nothing_found_is_no_track_and_too_many_are_the_surest():
    image, masks = draw([(RED, 60, 60), (BLUE, 160, 120), (GREEN, 260, 180)])
    model = Model()
    follower = Follower(model, LisaTracker(None, max_tracks=2), FollowConfig())
    assert follower.begin(image, stamp=0.0, instruction="a unicorn") == []
    assert follower.answer.status == AnswerStatus.NOT_FOUND
    assert follower.update(image, stamp=0.1) == [] and model.runs == 1
    model.masks = list(masks)
    tracks = follower.begin(image, stamp=0.0, instruction="everything")
    assert follower.left_out == 1
    assert all(mask_iou(t.mask, m) > 0.9 for t, m in zip(tracks, masks[:2], strict=True))
    follower.drop(tracks[0].id)
    assert [t.id for t in follower.update(image, stamp=0.1)] == [tracks[1].id]
