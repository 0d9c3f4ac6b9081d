"""The action `follow` and the topics `tracks`, over real DDS; the tracker is a fake, which knows
things by their exact colour (fake_engine.py)."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from depth_rig import check_is_the_thing, metres
from fake_engine import FAULTY, STALLING
from follow_rig import ABORTED, CANCELED, LIMIT, Goal, Stage, following, scene
from lisa_ros.msg import Instance, Segmentation
from node_rig import Manager, image_message, rig, wait_for
from sensor_msgs.msg import Image

from lisa_ros.errors import CheckpointError
from lisa_ros.node.loading import load_model
from lisa_ros.node.parameters import BY_NAME
from lisa_ros.node.results import messages
from lisa_ros.node.status import Status


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with rig() as robot:
        robot.start()
        stage = Stage(robot)
        yield stage


def roi(instance: Instance) -> tuple[int, int, int, int]:
    found = instance.roi
    return found.x_offset, found.y_offset, found.width, found.height


def test_a_thing_is_followed_until_the_client_ends_it(stage):
    """Asked once, one result on `mask`; then one message for each image, header and all."""
    stage.show(scene(red=(5, 5)))
    before = len(stage.robot.results)
    with (
        stage.robot.hearing(Segmentation, "tracks") as tracks,
        stage.robot.hearing(Image, "tracks/labels") as labels,
    ):
        goal = stage.followed(instruction="color:ff0000")
        first = wait_for(lambda: goal.feedback[3:], "messages")[0]
        [one] = first.instances
        assert roi(one) == (5, 5, 10, 10) and (one.id, one.track_state) == (1, Instance.VISIBLE)
        stage.show(scene(red=(30, 20)))
        wait_for(lambda: roi(goal.feedback[-1].instances[0]) == (30, 20, 10, 10), "the move")
        status, result = goal.cancel()
    assert status == CANCELED and result.reason == "the client ended it"
    assert result.frames >= len(goal.feedback) > 4 and result.seconds > 0
    source = Segmentation.SOURCE_FOLLOW
    answers = [one for one in stage.robot.results[before:] if one.source == source]
    assert [(one.query, one.tracked) for one in answers] == [("color:ff0000", False)]
    last = goal.feedback[-1]
    for message in (last, *tracks):
        assert message.tracked and message.query_id == answers[0].query_id
        assert message.status == Status.OK and message.source == source
        [one] = message.instances
        assert one.track_id == first.instances[0].track_id and one.area == 100
        assert message.forwards == 0, "the model is not asked again"
        assert not one.has_pose and "nobody publishes" in one.pose_reason
    stamps = [message.header.stamp.sec for message in tracks]
    assert stamps == sorted(set(stamps)), "one for each image, the newest wins"
    assert last.header.frame_id == "camera_optical"
    assert last.instances[0].track_age > 0 and last.timings.total > 0
    by_stamp = {message.header.stamp.sec: message for message in tracks}
    for image in labels:
        pixels = np.frombuffer(image.data, np.uint8).reshape(48, 64)
        assert roi(by_stamp[image.header.stamp.sec].instances[0])[:2] == tuple(
            int(axis[0]) for axis in np.nonzero(pixels == 1)[::-1]
        )
    assert labels and image.header == by_stamp[image.header.stamp.sec].header


def test_queries_are_answered_meanwhile(stage):
    stage.show(scene(red=(5, 5)))
    with following(stage, instruction="color:ff0000") as goal:
        for _ in range(3):
            assert stage.robot.ask("several").status == Status.OK
        assert goal.next().status == Status.OK


def test_a_hidden_thing_has_no_mask_and_keeps_its_numbers(stage):
    stage.show(scene(red=(5, 5)))
    with following(stage, instruction="color:ff0000") as goal:
        begun = goal.next().instances[0]
        stage.show(scene())
        wait_for(lambda: goal.feedback[-1].status == Status.NOT_FOUND, "it to be hidden")
        hidden = goal.next()
        [one] = hidden.instances
        assert one.track_state == Instance.OCCLUDED and one.unseen > 0
        assert roi(one) == (0, 0, 0, 0) and one.area == 0 and not one.mask.data
        assert one.pose_reason == "it is not visible in this image" and hidden.error == ""
        stage.show(scene(red=(40, 30)))
        wait_for(lambda: goal.feedback[-1].status == Status.OK, "it to be seen again")
        again = goal.next().instances[0]
        assert (again.id, again.track_id) == (begun.id, begun.track_id) and again.unseen == 0


def test_two_at_once_have_numbers_of_their_own_and_free_ones_are_used_again(stage):
    stage.show(scene(red=(5, 5), blue=(30, 20)))
    with (
        stage.robot.hearing(Image, "tracks/labels") as labels,
        following(stage, instruction="color:0000ff") as blue,
    ):
        red = stage.followed(instruction="color:ff0000")
        numbers = [goal.next().instances[0].id for goal in (blue, red)]
        assert numbers == [1, 2]
        wait_for(lambda: set(labels[-1].data) == {0, 1, 2}, "both in one image")
        track = red.feedback[-1].instances[0].track_id
        red.cancel()
        with following(stage, instruction="color:ff0000") as red:
            again = red.next().instances[0]
            assert again.id == 2 and again.track_id > track
        assert blue.next().instances[0].id == 1


def test_it_begins_with_an_instance_of_an_earlier_answer(stage):
    stage.show(scene(red=(5, 5), blue=(30, 20)))
    answer = stage.robot.ask("color:0000ff")
    with following(stage, query_id=answer.query_id, instance_id=1) as goal:
        message = goal.next()
        assert roi(message.instances[0]) == (30, 20, 10, 10)
        assert message.query == "color:0000ff", "what is asked again when it is lost"
    for query_id, number in ((answer.query_id, 2), ("no such", 1)):
        status, result = stage.follow(query_id=query_id, instance_id=number).end()
        assert status == ABORTED and result.segmentation.status == Status.REJECTED
        assert f"there is no instance {number} in an answer" in result.reason


@pytest.mark.parametrize("place", [{"box": [28, 18, 14, 14]}, {"point": [35, 25]}])
def test_it_begins_with_a_place_in_the_image(stage, place):
    stage.show(scene(blue=(30, 20)))
    with following(stage, **place) as goal:
        stage.show(scene(blue=(10, 20)))
        wait_for(lambda: roi(goal.feedback[-1].instances[0]) == (10, 20, 10, 10), "the move")


BAD = {
    "nothing": ({}, Status.REJECTED, "gives nothing to follow: give exactly one of"),
    "two ways": (
        {"instruction": "it", "point": [3, 3]},
        Status.REJECTED,
        "gives instruction and point: give exactly one of",
    ),
    "form": ({"instruction": "it", "masks": "gif"}, Status.REJECTED, "masks 'gif' are unknown"),
    "beside": ({"point": [64, 3]}, Status.REJECTED, "does not lie in the image of 64x48 pixels"),
    "half a box": ({"box": [3, 3, 2]}, Status.REJECTED, "this one has 3 numbers"),
    "absent": ({"instruction": "nothing"}, Status.NOT_FOUND, "There is no such thing."),
    "unsure": ({"instruction": "score:0.1"}, Status.NOT_FOUND, "nothing was found surely enough"),
    "words": ({"instruction": "words"}, Status.TEXT_ONLY, "Sure, it is here."),
    "fault": ({"instruction": "exception"}, Status.MODEL_ERROR, "failed with RuntimeError"),
    "no message": ({"instruction": "label"}, Status.MODEL_ERROR, "cannot be published"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_followed_ends_with_a_sentence(stage, name):
    fields, status, words = BAD[name]
    goal = stage.follow(**fields)
    state, result = goal.end()
    assert state == ABORTED and words in result.reason, result.reason
    assert result.segmentation.status == status and not goal.feedback and result.frames == 0


def test_more_things_than_the_limit(stage):
    stage.show(scene(red=(5, 5), blue=(30, 20)))
    stage.set(follow__max_things=1)
    try:
        with following(stage, instruction="several") as goal:
            assert len(goal.next().instances) == 1, "the surest"
            status, result = stage.follow(instruction="color:0000ff").end()
            assert status == ABORTED and result.segmentation.status == Status.OK
            assert "1 things are followed already (follow.max_things)" in result.reason
        assert "1 thing more than can be followed" in stage.robot.processes[0].log
    finally:
        stage.set(follow__max_things=16)


def test_a_lost_thing_ends_the_goal_by_its_limit(stage):
    stage.show(scene(red=(5, 5)))
    goal = stage.followed(instruction="color:ff0000", lost_timeout=LIMIT)
    stage.show(scene())
    status, result = goal.end()
    assert status == ABORTED and "it was last seen" in result.reason
    assert result.reason.endswith(f"the limit (lost_timeout) is {LIMIT:g} s")
    last = result.segmentation
    assert last.tracked and last.instances[0].track_state == Instance.LOST
    assert last.instances[0].unseen > LIMIT and last.instances[0].area == 0


def test_a_dead_camera_ends_the_goal_by_its_limit(stage):
    stage.show(scene(red=(5, 5)))
    goal = stage.followed(instruction="color:ff0000", lost_timeout=LIMIT)
    stage.robot.cut()
    status, result = goal.end()
    assert status == ABORTED
    assert "no image has arrived on /lisa/image for 0.6 s (lost_timeout)" in result.reason


def test_images_that_cannot_be_used_are_passed_over_and_named_in_the_end(stage):
    """The encoding changes in the middle; a usable image in time goes on as before."""
    stage.show(scene(red=(5, 5)))
    goal = stage.followed(instruction="color:ff0000", lost_timeout=LIMIT)
    stage.robot.cut()
    bad = image_message(scene())
    bad.encoding = "cmyk9"
    stage.robot.images.publish(bad)
    time.sleep(0.1)
    stage.show(scene(red=(20, 5)))
    wait_for(lambda: roi(goal.feedback[-1].instances[0])[0] == 20, "the next usable image")
    stage.robot.cut()
    end = wait_for_end(stage, goal, bad)
    assert "no image could be used for 0.6 s" in end.reason and "cmyk9" in end.reason


def wait_for_end(stage: Stage, goal: Goal, message: Image) -> Any:
    """The result while this image is published over and over."""

    def ended() -> bool:
        stage.robot.images.publish(message)
        time.sleep(0.05)
        return goal.ended

    wait_for(ended, "the end")
    return goal.end()[1]


def test_another_size_of_image_goes_on(stage):
    stage.show(scene(red=(5, 5)))
    with following(stage, instruction="color:ff0000") as goal:
        stage.show(np.kron(scene(red=(5, 5)), np.ones((2, 2, 1), np.uint8)))
        wait_for(lambda: goal.feedback[-1].width == 128, "the larger image")
        assert roi(goal.next().instances[0]) == (10, 10, 20, 20)


def test_other_encodings_black_images_and_a_clock_that_jumps_back(stage):
    stage.show(scene(red=(5, 5)))
    with following(stage, instruction="color:ff0000") as goal:
        begun = goal.next().instances[0]
        # 1. the camera's driver now says bgr8
        stage.robot.cut()
        other = image_message(np.ascontiguousarray(scene(red=(30, 5))[..., ::-1]))
        other.encoding, other.header.stamp.sec = "bgr8", stage.robot.filmed + 1
        stage.robot.images.publish(other)
        wait_for(lambda: roi(goal.feedback[-1].instances[0])[0] == 30, "the other encoding")
        assert goal.feedback[-1].header == other.header
        # 2. black images show nothing
        stage.show(np.zeros((48, 64, 3), np.uint8))
        wait_for(lambda: goal.feedback[-1].status == Status.NOT_FOUND, "black images")
        assert goal.feedback[-1].instances[0].area == 0
        # 3. stamps begin again, and ages go on
        before = goal.feedback[-1].instances[0].track_age
        stage.robot.film(20.0, scene(red=(5, 5)))
        wait_for(lambda: goal.feedback[-1].header.stamp.sec < 20, "earlier stamps")
        wait_for(lambda: goal.feedback[-1].status == Status.OK, "it to be seen")
        one = goal.feedback[-1].instances[0]
        assert one.track_id == begun.track_id and one.track_age > before and one.unseen == 0


def test_a_cancel_in_the_middle_of_an_image(stage):
    """The image that the tracker is at work on gives no message after the end."""
    stage.show(scene(red=(5, 5)))
    with stage.robot.hearing(Segmentation, "tracks") as tracks:
        goal = stage.followed(instruction="color:ff0000")
        image = scene(red=(5, 5))
        image[0, 0] = STALLING
        stage.show(image)
        status, result = goal.cancel()
        assert status == CANCELED and result.reason == "the client ended it"
        stage.show(scene(red=(5, 5)))
        wait_for(lambda: len(tracks) >= result.frames - 1, "the messages")
        assert stage.robot.ask("it").status == Status.OK
        assert result.frames - 1 <= len(tracks) <= result.frames, "the first may be missed"


def test_a_fault_of_the_tracker_ends_one_goal_and_no_more(stage):
    stage.show(scene(red=(5, 5)))
    goal = stage.followed(instruction="color:ff0000")
    image = scene(red=(5, 5))
    image[0, 0] = FAULTY
    stage.show(image)
    status, result = goal.end()
    assert status == ABORTED and "failed with RuntimeError" in result.reason
    stage.show(scene(red=(5, 5)))
    with following(stage, instruction="color:ff0000") as goal:
        assert goal.next().status == Status.OK


def test_masks_come_in_the_form_that_was_asked_for(stage):
    stage.show(scene(red=(5, 5)))
    with (
        stage.robot.hearing(Segmentation, "tracks") as tracks,
        following(stage, instruction="color:ff0000", masks="none") as goal,
    ):
        assert not goal.next().instances[0].mask.data and goal.next().instances[0].area == 100
        wait_for(lambda: tracks, "the topic")
        assert tracks[-1].instances[0].mask.data


def test_a_cancel_while_the_question_is_being_answered(stage):
    """One result on `mask`, one end of the goal, nothing is followed."""
    before = len(stage.robot.results)
    goal = stage.follow(instruction="endless it")
    status, result = goal.cancel()
    assert status == CANCELED and result.segmentation.status == Status.CANCELLED
    wait_for(lambda: len(stage.robot.results) > before, "the result")
    assert stage.robot.ask("it").status == Status.OK
    assert len(stage.robot.results) == before + 2 and not goal.feedback


def test_the_standing_query_follows(stage):
    stage.show(scene(red=(5, 5)))
    with stage.robot.hearing(Segmentation, "tracks") as tracks:
        stage.set(standing__follow=True, follow__lost_timeout=LIMIT, standing__period=0.1)
        stage.set(standing__instruction="color:ff0000")
        first = wait_for(lambda: tracks[5:], "tracks")[0]
        assert first.source == Segmentation.SOURCE_STANDING and first.query == "color:ff0000"
        same = {message.query_id for message in tracks}
        assert same == {first.query_id}, "asked once"
        stage.show(scene())
        wait_for(lambda: tracks[-1].status == Status.NOT_FOUND, "it to be hidden")
        wait_for(lambda: tracks[-1].instances[0].track_state == Instance.LOST, "it to be lost")
        stage.show(scene(red=(5, 5)))
        wait_for(lambda: tracks[-1].query_id != first.query_id, "it to be asked for again")
        stage.set(standing__instruction="")
        log = stage.robot.processes[0]
        words = "CANCELLED: standing.instruction or standing.follow has changed"
        wait_for(lambda: words in log.log, "the end")


def test_the_place_in_space_and_the_velocity(camera):
    """A box on a table that moves away along the camera's axis is as its tracker sees it."""
    stage = Stage(camera.robot)
    with stage.robot.hearing(Segmentation, "tracks") as tracks:
        camera.show(depth=metres())
        goal = stage.follow(instruction="it")
        for _ in range(40):
            if len(tracks) >= 5:
                break
            camera.show(depth=metres())
            time.sleep(0.1)
        goal.cancel()
    message = tracks[-1]
    [one] = message.instances
    check_is_the_thing(one)
    assert one.pose.header == message.header
    # stamps a second apart are too far apart for a velocity
    assert not one.has_velocity and message.timings.geometry > 0


def test_deactivation_and_shutdown_end_what_is_followed():
    with rig() as robot:
        process = robot.start()
        stage, manager = Stage(robot), Manager(robot)
        stage.show(scene(red=(5, 5)))
        goal = stage.followed(instruction="color:ff0000")
        assert manager.change("deactivate")
        status, result = goal.end()
        assert status == ABORTED and result.reason == "the node was deactivated"
        _, result = stage.follow(point=[3, 3]).end()
        assert "the node is inactive" in result.reason
        assert result.segmentation.status == Status.NOT_READY
        assert manager.change("activate")
        goal = stage.followed(instruction="color:ff0000")
        process.process.send_signal(2)
        status, result = goal.end()
        assert status == ABORTED and result.reason == "the node was stopped"


def test_a_tracker_that_is_no_folder_of_weights_is_told_before_the_model_is_loaded():
    settings = {name: parameter.default for name, parameter in BY_NAME.items()}
    settings |= {"follow.tracker": "/no/such/folder", "model.path": "/nothing/either"}
    with pytest.raises(CheckpointError, match=r"^/no/such/folder has no config\.json"):
        load_model(settings)


def test_a_velocity_is_fitted_to_the_last_half_second():
    from lisa_ros.node.results.tracks import FollowedThing

    thing = FollowedThing(1, 1, 0.0, 0.0)
    for step in range(20):
        place = SimpleNamespace(centroid=np.array([0.1 * step / 15, 0.0, 1.0]))
        thing.note_place(10 + step / 15, place, "camera")
    assert np.allclose(thing.velocity, [0.1, 0.0, 0.0])
    thing.note_place(5.0, place, "camera")
    assert thing.velocity is None, "the clock jumped back"
    thing.note_place(5.1, SimpleNamespace(centroid=None), "camera")
    thing.note_place(5.2, place, "base")
    assert thing.velocity is None, "another frame"


def plain(**fields: Any) -> Callable[..., SimpleNamespace]:
    """A message class with these fields, made anew for each message."""
    return lambda **given: SimpleNamespace(
        **{name: make() for name, make in fields.items()} | given
    )


def test_detections_for_programs_that_know_vision_msgs(monkeypatch):
    """vision_msgs is not among the wheels; these fields are those of its version 4."""
    point = plain(x=float, y=float)
    hypothesis = plain(class_id=str, score=float)
    module = SimpleNamespace(
        Detection2DArray=plain(detections=list),
        Detection3DArray=plain(detections=list),
        Detection2D=plain(
            id=str,
            bbox=plain(center=plain(position=point, theta=float), size_x=float, size_y=float),
        ),
        Detection3D=plain(id=str, bbox=plain(center=object, size=object)),
        ObjectHypothesisWithPose=plain(hypothesis=hypothesis, pose=plain(pose=object)),
    )
    monkeypatch.setitem(sys.modules, "vision_msgs", SimpleNamespace(msg=module))
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", module)
    one, hidden = Instance(id=3, label="a mug", score=0.5, area=7), Instance(id=4)
    box = one.roi
    box.x_offset, box.y_offset, box.width, box.height = 10, 20, 4, 6
    one.has_pose, one.track_id = True, 12
    one.pose.header.frame_id, one.pose.pose.position.z = "base", 0.7
    message = Segmentation(instances=[one, hidden])
    message.header.frame_id = "camera"
    flat, deep = messages.detections_2d(message), messages.detections_3d(message)
    assert (flat.header.frame_id, deep.header.frame_id) == ("camera", "base")
    [found] = flat.detections
    center = found.bbox.center.position
    assert (center.x, center.y, found.bbox.size_x, found.bbox.size_y) == (12, 23, 4, 6)
    assert found.id == "12" and found.results[0].hypothesis.class_id == "a mug"
    [found] = deep.detections
    assert found.bbox.center == one.pose.pose and found.results[0].hypothesis.score == 0.5
    assert found.results[0].pose.pose.position.z == 0.7 and found.bbox.size == one.size
