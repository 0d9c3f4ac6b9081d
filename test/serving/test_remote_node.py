"""A perception node whose model is that of a server, and what it says when the server fails."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from drawn_clip import RED, draw
from fake_server import LINES, always, hang, itself, reply, server
from follow_rig import Stage, following
from lisa_ros.msg import Instance, Segmentation
from node_rig import SegmentClient, rig, wait_for

from lisa_ros.serving.remote_tracker import TRACK, TrackSessions
from lisa_ros.serving.wire import read_question, write_refusal

RIGHT = reply(*LINES)
MOST_MEMORY = 200e6  # bytes


class Behaviour:
    """A server that can be changed, stopped and started on the same port."""

    def __init__(self) -> None:
        self.answer = always(RIGHT)
        self.sessions = TrackSessions(None, 640 * 480)
        self.running = None
        self.port = 0
        self.start()

    def __call__(self, connection, path: str, body: bytes) -> None:
        if path == TRACK:
            code, line = self.sessions.answer(body)
            connection.sendall(reply(line, code=code))
        else:
            self.answer(connection, path, body)

    def start(self) -> None:
        self.running = server(itself(self), self.port)
        self.address = self.running.__enter__()
        self.port = int(self.address.rpartition(":")[2])

    def stop(self) -> None:
        self.running.__exit__(None, None, None)

    @contextmanager
    def saying(self, answer):
        self.answer = answer
        yield
        self.answer = always(RIGHT)


@pytest.fixture(scope="module")
def behaviour():
    one = Behaviour()
    yield one
    one.stop()


@pytest.fixture(scope="module")
def robot(behaviour):
    with rig() as one:
        command = [sys.executable, "-m", "lisa_ros.cli", "node", "--model", behaviour.address]
        ros = ("--ros-args", "-p", "query.timeout:=2.0")
        one.start(*ros, command=command)
        one.film()
        wait_for(lambda: one.ask("the mug").status == Segmentation.OK, "a first answer")
        yield one


def test_answers_of_the_server_are_results_of_the_node(robot):
    result = robot.ask("the mug")
    assert (result.status, result.answer) == (Segmentation.OK, "It is here.")
    assert [one.label for one in result.instances] == ["the mug"]
    assert "distant on http" in robot.processes[0].log


def test_a_goals_endless_timeout_becomes_one_that_the_server_takes(robot, behaviour):
    asked = []

    def answer(connection, path, body):
        asked.append(read_question(body))
        connection.sendall(RIGHT)

    client = SegmentClient(robot)
    with behaviour.saying(answer):
        _, result = client.ask("the mug", timeout=float("inf"))
    assert result.status == Segmentation.OK
    assert 60 < asked[-1].time_left <= 3600


@pytest.mark.parametrize(
    ("answer", "status", "sentence"),
    [
        (hang, Segmentation.TIMEOUT, "time limit"),
        (always(b""), Segmentation.NOT_READY, "closed the connection"),
        (always(b"\0" * 1000), Segmentation.NOT_READY, "server"),
        (always(reply(*LINES[:2])), Segmentation.NOT_READY, "broke off"),
        (always(reply(b"x", header=b"", code=503)), Segmentation.REJECTED, "too many"),
        (always(reply(write_refusal("image", "too dark"))), Segmentation.REJECTED, "too dark"),
        (always(reply(write_refusal("model", "no"))), Segmentation.MODEL_ERROR, "RemoteFailure"),
    ],
)
def test_a_failing_server_ends_each_query_once_with_a_sentence(
    robot, behaviour, answer, status, sentence
):
    count = len(robot.results)
    with behaviour.saying(answer):
        result = robot.ask("the mug")
    assert (result.status, len(robot.results)) == (status, count + 1)
    assert sentence in result.error
    assert robot.ask("the mug").status == Segmentation.OK


def test_a_server_that_goes_and_returns(robot, behaviour):
    behaviour.stop()
    for _ in range(2):
        result = robot.ask("the mug")
        assert result.status == Segmentation.NOT_READY
        assert "cannot be reached" in result.error
    behaviour.start()
    assert robot.ask("the mug").status == Segmentation.OK


def test_following_goes_on_when_the_server_has_gone_and_returned(robot, behaviour):
    """The tracker is the server's; another process at its address knows of nothing."""
    image, masks = draw([(RED, 160, 120)])
    stage = Stage(robot)
    robot.film(10.0, image)
    wait_for(lambda: robot.ask("the mug").width == 320, "the new image")
    with following(stage, box=[130, 90, 60, 60]) as goal:
        first = goal.next()
        [one] = first.instances
        assert abs(one.area - masks[0].sum()) < 0.2 * masks[0].sum() and not first.error
        behaviour.stop()
        wait_for(lambda: goal.feedback[-1].status == Segmentation.NOT_FOUND, "the outage")
        away = goal.next()
        assert "cannot be reached" in away.error
        assert away.instances[0].track_state == Instance.OCCLUDED and not away.instances[0].area
        behaviour.sessions = TrackSessions(None, 640 * 480)
        behaviour.start()
        wait_for(lambda: goal.feedback[-1].status == Segmentation.OK, "its return")
        [again] = goal.next().instances
        assert again.track_id == one.track_id
        assert abs(again.area - masks[0].sum()) < 0.2 * masks[0].sum()
    goal = stage.followed(point=[160, 120], lost_timeout=1.0)
    behaviour.stop()
    _, result = goal.end()
    behaviour.start()
    assert "it was last seen" in result.reason and "cannot be reached" in result.reason
    robot.film()


def test_the_robot_needs_no_memory_for_a_model(robot):
    statm = Path(f"/proc/{robot.processes[0].process.pid}/statm").read_text()
    assert int(statm.split()[1]) * os.sysconf("SC_PAGE_SIZE") <= MOST_MEMORY


def test_a_node_starts_before_its_server(behaviour):
    behaviour.stop()
    with rig() as one:
        command = [sys.executable, "-m", "lisa_ros.cli", "node", "--model", behaviour.address]
        one.start(command=command)
        one.film()
        assert wait_for(lambda: one.ask("a").status == Segmentation.NOT_READY, "the first refusal")
        behaviour.start()
        result = one.ask("the mug")
        assert (result.status, result.model) == (Segmentation.OK, "distant")
