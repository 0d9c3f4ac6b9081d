"""The action `segment`: progress, dialogue, own images, several goals, and cancel at any moment."""

from __future__ import annotations

import base64
import io
import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from fake_engine import instance as fake_instance
from fake_engine import middle
from node_rig import FAKE, SegmentClient, drawn_image, image_message, rig, wait_for
from PIL import Image as Image

from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.requests import actions
from lisa_ros.node.requests.actions import DIALOGUES, TURNS, Dialogues
from lisa_ros.node.requests.query import Query
from lisa_ros.node.results.messages import coco_counts
from lisa_ros.node.status import Status


@pytest.fixture(scope="module")
def robot():
    with rig() as robot:
        robot.start("-p", "query.timeout:=20", "-p", "query.max_new_tokens:=2000")
        robot.film()
        wait_for(lambda: robot.ask("ready").status == Status.OK, "the first image")
        yield robot
        assert robot.processes[0].log.count("Traceback") <= 1, "more than the one asked for"


@pytest.fixture
def client(robot):
    return SegmentClient(robot)


def test_result_is_the_message_on_mask(robot, client):
    status, result = client.ask("the mug", mode="explain")
    assert status == GoalStatus.STATUS_SUCCEEDED and result.status == Status.OK
    assert (result.mode, result.source) == ("explain", result.SOURCE_ACTION)
    assert len(result.query_id) == 32 and len(result.instances) == 1

    def twin():
        return next((one for one in robot.results if one.query_id == result.query_id), None)

    assert wait_for(twin, "the message on mask") == result


def test_feedback_brings_the_early_mask_and_the_words_so_far(client):
    handle = client.send("long:40 the mug")
    status, result = client.end(handle)
    assert status == GoalStatus.STATUS_SUCCEEDED
    heard = client.feedback
    assert len(heard) > 2
    assert len(heard[0].instances) == 1, "the mask is there before the words"
    assert heard[0].instances[0].mask == result.instances[0].mask
    assert heard[0].header == result.header and heard[0].width == result.width
    assert all(result.answer.startswith(one.text) for one in heard)
    lengths = [len(one.text) for one in heard]
    assert lengths == sorted(lengths) and lengths[-1] > lengths[0]
    assert heard[-1].elapsed >= heard[0].elapsed > 0


def decoded(one, result) -> np.ndarray:
    """The mask of an instance, bool, at the size of its box."""
    roi = one.roi
    if one.mask.data:
        return np.frombuffer(one.mask.data, np.uint8).reshape(roi.height, roi.width) > 0
    if one.mask_text.startswith("{"):
        rle = json.loads(one.mask_text)
        assert rle["size"] == [result.height, result.width]
        whole = from_run_lengths(rle["counts"], *rle["size"])
        rows = slice(roi.y_offset, roi.y_offset + roi.height)
        columns = slice(roi.x_offset, roi.x_offset + roi.width)
        assert whole.sum() == whole[rows, columns].sum()
        return whole[rows, columns]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(one.mask_text)))) > 0


def from_run_lengths(text: str, height: int, width: int) -> np.ndarray:
    """As rleFrString and rleDecode of COCO's own C code do it."""
    runs: list[int] = []
    place = 0
    while place < len(text):
        run, shift, more = 0, 0, True
        while more:
            bits = ord(text[place]) - 48
            run |= (bits & 31) << shift
            more, shift, place = bool(bits & 32), shift + 5, place + 1
            if not more and bits & 16:
                run |= -1 << shift
        runs.append(run + (runs[-2] if len(runs) > 2 else 0))
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(width, height).T


def test_a_mask_goes_out_at_once_and_words_not_too_often(monkeypatch):
    monkeypatch.setattr(actions, "WORDS_PERIOD", 1e9)
    sent = []
    handle = SimpleNamespace(publish_feedback=sent.append, request=SimpleNamespace(masks=""))
    progress = actions.GoalProgress(handle)
    progress._sent = time.monotonic()
    frame = Frame(image_message(drawn_image()))
    query = Query("1", "it", "auto", 0, Time(), 1.0, 9, frame, text="Sure")
    progress(query)
    assert not sent
    for count in (1, 2):
        query.instances.append(fake_instance(middle(48, 64), "it"))
        for _ in range(3):
            progress(query)
        assert [len(one.instances) for one in sent] == list(range(1, count + 1))
    query.end()
    query.instances.append(query.instances[0])
    progress(query)
    assert len(sent) == 2, "nothing after the end"
    monkeypatch.setattr(actions, "WORDS_PERIOD", 0.0)
    query.ended = False
    query.text = "Sure, it"
    progress(query)
    assert sent[-1].text == "Sure, it"


def test_masks_come_back_in_the_form_that_was_asked_for(robot, client):
    """In the result and in the feedback; the message on `mask` is the same for all."""
    expected = None
    for form in ("image", "png", "rle", "none"):
        client.feedback.clear()
        _, result = client.ask("several long:2", masks=form)
        for message in (result, client.feedback[-1]):
            assert [one.area > 0 and one.roi.width > 0 for one in message.instances] == [True] * 2
            if form == "none":
                assert not any(one.mask.data or one.mask_text for one in message.instances)
                continue
            found = [decoded(one, message) for one in message.instances]
            expected = expected or found
            assert all(np.array_equal(*pair) for pair in zip(found, expected, strict=True)), form
        twin = next(one for one in robot.results if one.query_id == result.query_id)
        assert all(one.mask.data and not one.mask_text for one in twin.instances)
    status, result = client.ask("several", masks="gif")
    assert (status, result.status) == (GoalStatus.STATUS_ABORTED, Status.REJECTED)
    assert "image, png, rle, none" in result.error


@pytest.mark.parametrize("seed", range(4))
def test_run_lengths_say_the_mask(seed):
    """Of every shape, also full, empty, and with runs that need several letters."""
    chance = np.random.default_rng(seed)
    masks = [chance.random((37, 53)) < share for share in (0, 0.01, 0.5, 0.99, 1)]
    masks.append(np.repeat(np.arange(300) < 200, 400).reshape(300, 400))
    for mask in masks:
        assert np.array_equal(from_run_lengths(coco_counts(mask), *mask.shape), mask)
    assert coco_counts(np.zeros((2, 3), bool)) == "6" and coco_counts(np.ones((1, 1), bool)) == "01"


def test_feedback_has_no_mask_that_the_model_is_not_sure_of(client):
    _, result = client.ask("score:0.1 long:20")
    assert result.status == Status.NOT_FOUND and not result.instances
    assert client.feedback and not any(one.instances for one in client.feedback)


def test_own_image(client):
    message = image_message(drawn_image(100, 60), stamp=(77, 7))
    message.header.frame_id = "wrist_camera"
    status, result = client.ask("the mug", image=message)
    assert status == GoalStatus.STATUS_SUCCEEDED
    assert result.header == message.header and (result.width, result.height) == (100, 60)
    message.step = 5
    status, result = client.ask("the mug", image=message)
    assert status == GoalStatus.STATUS_ABORTED and result.status == Status.REJECTED
    assert "step of the image" in result.error


def test_several_goals_are_answered_in_order(client):
    handles = [client.send(f"long:5 goal{number}") for number in range(5)]
    ends = [client.end(handle) for handle in handles]
    assert [status for status, _ in ends] == [GoalStatus.STATUS_SUCCEEDED] * 5
    assert [result.query[-1] for _, result in ends] == list("01234")


def test_unknown_mode_and_empty_instruction(client):
    status, result = client.ask("the mug", mode="guess")
    assert status == GoalStatus.STATUS_ABORTED and result.status == Status.REJECTED
    assert "auto, mask, explain, text" in result.error
    status, result = client.ask("")
    assert (status, result.status) == (GoalStatus.STATUS_ABORTED, Status.REJECTED)


def test_own_time_limit_and_length(robot, client):
    status, result = client.ask("endless", timeout=2.0)
    assert (status, result.status) == (GoalStatus.STATUS_ABORTED, Status.TIMEOUT)
    assert result.answer.startswith("Sure, it is here. on")
    for timeout in (float("inf"), 1e30, float("nan")):
        assert client.ask("the mug", timeout=timeout)[1].status == Status.OK
    status, result = client.ask("long:50", max_new_tokens=6)
    assert result.answer == "Sure, it is here. word0 word1"
    assert robot.set(query__max_new_tokens=8).successful
    _, result = client.ask("long:50", max_new_tokens=1000)  # the node's own limit holds
    assert robot.set(query__max_new_tokens=2000).successful
    assert result.answer == "Sure, it is here. word0 word1 word2 word3"


def test_dialogue_is_remembered_by_name_and_cleared(client):
    assert client.ask("history one", dialogue="kitchen")[1].answer == "I remember 0: "
    assert client.ask("history two", dialogue="kitchen")[1].answer == "I remember 1: history one"
    assert client.ask("history x", dialogue="garage")[1].answer == "I remember 0: "
    assert client.ask("history y")[1].answer == "I remember 0: "
    assert client.ask("history z")[1].answer == "I remember 0: "
    assert client.ask("exception", dialogue="kitchen")[1].status == Status.MODEL_ERROR
    answer = client.ask("history three", dialogue="kitchen")[1].answer
    assert answer == "I remember 2: history one | history two"
    answer = client.ask("history four", dialogue="kitchen", clear=True)[1].answer
    assert answer == "I remember 0: "


def test_of_long_dialogues_the_end_is_remembered_and_of_many_those_used_last():
    dialogues = Dialogues()
    for turn in range(TURNS + 3):
        dialogues.add("kitchen", f"question {turn}", f"answer {turn}")
    last = tuple((f"question {turn}", f"answer {turn}") for turn in range(3, TURNS + 3))
    assert dialogues.history("kitchen") == last
    for number in range(DIALOGUES - 1):
        dialogues.add(f"room {number}", "a", "b")
    dialogues.add("kitchen", "again", "yes")  # no longer the one unused for longest
    dialogues.add("one more", "a", "b")
    assert dialogues.history("room 0") == () and dialogues.history("room 1") == (("a", "b"),)
    assert dialogues.history("kitchen") == (*last[1:], ("again", "yes"))
    dialogues.add("", "nameless", "no")
    assert dialogues.history("") == ()


@pytest.mark.parametrize("mode", ["auto", "mask"])
def test_dialogue_keeps_what_the_model_wrote_with_its_masks(client, mode):
    """Words alone would tell the model that it had shown nothing."""
    assert client.ask("the mug", dialogue=mode, mode=mode, clear=True)[1].status == Status.OK
    answer = client.ask("transcripts", dialogue=mode)[1].answer
    assert answer == "Sure, it is here. [SEG]"


def test_truncated_means_cut_at_the_longest_length(client):
    assert client.ask("long:50", max_new_tokens=6)[1].truncated
    for words in ("the mug", "circles", "nothing"):
        assert not client.ask(words, max_new_tokens=6)[1].truncated, words


def test_the_model_is_warmed_up_once(client):
    assert client.ask("warm")[1].answer == "1 times"


def test_cancel_before_the_model_begins(robot, client):
    first = client.send("endless", timeout=60.0)
    second = client.send("waiting")
    time.sleep(0.2)
    assert client.cancel(second)
    status, result = client.end(second)
    assert (status, result.status) == (GoalStatus.STATUS_CANCELED, Status.CANCELLED)
    assert not result.instances
    assert client.cancel(first)
    assert client.end(first)[0] == GoalStatus.STATUS_CANCELED
    assert robot.ask("next").status == Status.OK


@pytest.mark.parametrize("work", ["endless", "endless deaf", "stall:2"])
def test_cancel_during_an_answer(robot, client, work):
    before = len(robot.results)
    handle = client.send(work)
    time.sleep(0.4)
    assert client.cancel(handle)
    status, result = client.end(handle)
    assert (status, result.status) == (GoalStatus.STATUS_CANCELED, Status.CANCELLED)
    if work == "endless":
        assert result.answer.startswith("Sure") and len(result.instances) == 1
        assert result.tokens == 3, "the model itself has stopped, and nobody had to wait for it"
    assert robot.ask("next").status == Status.OK
    assert len(robot.results) == before + 2


def test_cancel_after_the_end(robot, client):
    handle = client.send("the mug")
    assert client.end(handle)[0] == GoalStatus.STATUS_SUCCEEDED
    assert not client.cancel(handle)
    assert robot.ask("next").status == Status.OK


def test_cancel_at_every_moment_gives_one_result_each(robot, client):
    before = len(robot.results)
    for pause in range(12):
        handle = client.send("long:5")
        time.sleep(pause * 0.008)
        client.cancel(handle)
        status, result = client.end(handle)
        expected = (GoalStatus.STATUS_SUCCEEDED, GoalStatus.STATUS_CANCELED)
        assert status in expected and result.status in (Status.OK, Status.CANCELLED)
    wait_for(lambda: len(robot.results) == before + 12, "twelve results")
    assert robot.ask("next").status == Status.OK


def test_a_result_can_be_fetched_for_a_while_and_then_no_more():
    """With a shorter while than the node's own, for the sake of the test."""
    code = "\n".join(
        [
            "import runpy",
            "from lisa_ros.node.requests import actions",
            "actions.RESULT_KEPT = 3",
            f"runpy.run_path({FAKE[-1]!r}, run_name='__main__')",
        ]
    )
    with rig() as robot:
        process = robot.start(command=[sys.executable, "-c", code])
        robot.film()
        wait_for(lambda: robot.ask("ready").status == Status.OK, "the first image")
        client = SegmentClient(robot)
        before = len(robot.results)
        handle = client.send("the mug")
        wait_for(lambda: len(robot.results) > before, "the answer on mask")
        status, result = client.end(handle)
        assert (status, result.status) == (GoalStatus.STATUS_SUCCEEDED, Status.OK)
        time.sleep(4.0)
        status, result = client.end(handle)
        assert status == GoalStatus.STATUS_UNKNOWN and not result.instances
        assert client.ask("the mug")[0] == GoalStatus.STATUS_SUCCEEDED
        assert "Traceback" not in process.log


def test_goal_whose_client_has_gone(robot):
    client = SegmentClient(robot)
    before = len(robot.results)
    client.send("long:5 orphan")
    robot.do(client._client.destroy)
    wait_for(lambda: len(robot.results) > before, "the result on mask")
    assert robot.ask("next").status == Status.OK
