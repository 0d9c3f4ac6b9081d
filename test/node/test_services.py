"""What the running node tells and is told: parameters, diagnostics, self test, standing query."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lisa_ros.msg import Segmentation
from node_rig import drawn_image, rig, wait_for
from rcl_interfaces.srv import DescribeParameters, GetParameters
from std_srvs.srv import Trigger

from lisa_ros.node.inputs.camera_watchdog import CameraWatchdog
from lisa_ros.node.parameters import BY_NAME, PARAMETERS
from lisa_ros.node.requests.self_test import sample_image
from lisa_ros.node.results import diagnostics
from lisa_ros.node.results.diagnostics import Diagnostics
from lisa_ros.node.status import Status


@pytest.fixture(scope="module")
def robot():
    with rig() as robot:
        robot.start("-p", "query.max_new_tokens:=2000")
        robot.film()
        wait_for(lambda: robot.ask("ready").status == Status.OK, "the first image")
        yield robot


def test_descriptors(robot):
    names = [parameter.name for parameter in PARAMETERS]
    request = DescribeParameters.Request(names=names)
    described = robot.call(DescribeParameters, "perception/describe_parameters", request)
    for descriptor in described.descriptors:
        parameter = BY_NAME[descriptor.name]
        assert descriptor.description == parameter.text
        assert descriptor.read_only == (parameter.change == "start")
        for limits in (*descriptor.integer_range, *descriptor.floating_point_range):
            assert (limits.from_value, limits.to_value) == (parameter.low, parameter.high)
        assert descriptor.additional_constraints == (parameter.allowed or parameter.kind) != ""
        if parameter.choices:
            assert descriptor.additional_constraints == ", ".join(parameter.choices)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("query__mode", "guess", "auto, mask, explain, text"),
        ("query__timeout", "soon", "must be a number"),
        ("query__timeout", -1.0, "range"),
        ("query__queue_size", 1.5, "whole number"),
        ("model__path", "other", "unconfigured"),
        ("autostart", False, "read-only"),
    ],
)
def test_unusable_changes_are_refused_with_a_reason(robot, name, value, words):
    result = robot.set(**{name: value})
    assert not result.successful and words in result.reason
    assert robot.ask("hello").status == Status.OK


def test_changes_take_effect_at_once(robot):
    assert robot.set(query__max_length=5).successful
    assert "limit of 5" in robot.ask("too long").error
    assert robot.set(query__max_length=1000, query__mode="explain").successful
    assert robot.ask("hello").mode == "explain"
    assert robot.set(query__mode="auto", query__timeout=1).successful
    assert robot.ask("endless").status == Status.TIMEOUT
    assert robot.set(query__timeout=30).successful
    names = ["query.timeout"]
    request = GetParameters.Request(names=names)
    got = robot.call(GetParameters, "perception/get_parameters", request)
    assert got.values[0].integer_value == 30, "a whole number stands where a float is meant"


def test_changes_while_busy(robot):
    before = len(robot.results)
    robot.say("long:60")
    time.sleep(0.1)
    assert robot.set(query__timeout=20.0, input__max_age=2.0).successful
    assert not robot.set(model__device="cuda").successful
    wait_for(lambda: len(robot.results) > before, "the result")
    assert robot.results[before].status == Status.OK
    assert robot.set(query__timeout=30.0, input__max_age=1.0).successful


PARTS = ("model", "camera", "depth", "queries")


def test_diagnostics_once_a_second(robot):
    with robot.hearing(DiagnosticArray, "/diagnostics") as heard:
        robot.ask("exception")
        robot.ask("hello")
        heard.clear()
        wait_for(lambda: len(heard) >= 3, "three diagnostics")
        stamps = [one.header.stamp.sec + one.header.stamp.nanosec * 1e-9 for one in heard[:3]]
        assert 1.0 < stamps[2] - stamps[0] < 6.0
        parts = {one.name: one for one in heard[-1].status}
        assert set(parts) == {f"lisa/perception: {part}" for part in PARTS}
        values = {
            name.split(": ")[1]: {value.key: value.value for value in one.values}
            for name, one in parts.items()
        }
        assert all(one.level == DiagnosticStatus.OK for one in parts.values())
        model = values["model"]
        assert (model["state"], model["model"], model["device"]) == ("active", "fake", "cpu")
        assert float(model["memory [MB]"]) > 20
        camera = values["camera"]
        assert camera["topic"] == "/lisa/image" and camera["reliability"] == "RELIABLE"
        assert float(camera["seconds since the last image"]) < 3
        assert float(camera["published images per second"]) > 1
        assert (
            int(camera["images looked at"]) >= 3 and int(camera["images passed over or lost"]) > 3
        )
        queries = values["queries"]
        assert int(queries["ended OK"]) >= 2 and int(queries["ended MODEL_ERROR"]) >= 1
        assert queries["last error"].startswith("MODEL_ERROR: the model failed with RuntimeError")
        assert "median" in queries["total [ms]"] and "95 %" in queries["sam [ms]"]
        robot.cut()
        wait_for(lambda: heard[-1].status[1].level == DiagnosticStatus.WARN, "a warning")
        assert "no image since" in heard[-1].status[1].message
        robot.film()
        wait_for(lambda: robot.ask("ready").status == Status.OK, "images again")


def test_a_new_reason_is_warned_of_at_once_and_the_same_one_not_again():
    told = []
    node = SimpleNamespace(get_logger=lambda: SimpleNamespace(warning=told.append))
    watchdog = CameraWatchdog(node, None, None, None)
    for reason in ("b", "b", "c", "c", "a"):
        watchdog._warn("/camera", f"no image: {reason}", reason, {})
    watchdog._warn("/depth", "no depth: a", "a", {})
    assert told == ["no image: b", "no image: c", "no image: a", "no depth: a"]


def test_where_the_system_tells_no_memory_it_is_zero(monkeypatch):
    def nothing(*_, **__):
        raise FileNotFoundError("/proc/self/statm")

    assert diagnostics.resident_bytes() > 2**20
    monkeypatch.setattr(diagnostics, "open", nothing, raising=False)
    assert diagnostics.resident_bytes() == 0


def test_median_and_percentile_are_of_the_answered_ones():
    """Of the last two hundred; what failed took no time that means anything."""
    node = SimpleNamespace(create_publisher=lambda *_: None)
    queries, following = SimpleNamespace(waiting=3), SimpleNamespace(things=2)
    made = Diagnostics(node, None, queries, following, None, None)
    statuses = [Status.OK] * 300 + [Status.TIMEOUT] * 50
    for number, status in enumerate(statuses):
        result = Segmentation(status=int(status))
        result.timings.total = 2.0 * number if number >= 100 else 1000.0
        made.results.append(result)
    _, told, values = made._queries_report()
    assert told == "350 answered" and values["ended TIMEOUT"] == 50
    assert values["total [ms]"] == "median 399.0, 95 % 578.1"  # of 200, 202, ... 598
    assert (values["waiting"], values["things followed"]) == (3, 2)


def test_a_change_of_state_is_told_before_the_second_is_over(monkeypatch):
    told: list = []
    node = SimpleNamespace(create_publisher=lambda *_: SimpleNamespace(publish=told.append))
    diagnostics = Diagnostics(node, None, None, None, None, None)
    monkeypatch.setattr(diagnostics, "_message", lambda: "state")
    diagnostics._due += 3600  # however slow the machine
    diagnostics.publish_if_due()
    assert told == []
    diagnostics.publish_soon()
    diagnostics.publish_if_due()
    diagnostics.publish_if_due()
    assert told == ["state"]


def test_the_level_says_whose_fault_it_is(robot):
    """The user's is a warning, an exception of the model an error, until the next answer."""
    levels = {
        "exception": DiagnosticStatus.ERROR,
        "": DiagnosticStatus.WARN,
        "image": DiagnosticStatus.WARN,
        "could not be configured": DiagnosticStatus.OK,
    }
    with robot.hearing(DiagnosticArray, "/diagnostics") as heard:
        for words, level in levels.items():
            robot.ask(words)
            heard.clear()
            wait_for(lambda n=level: heard and heard[-1].status[3].level == n, f"{words!r}")


def test_the_image_of_the_self_test_shows_the_red_ball_that_is_asked_for():
    red = sample_image().astype(int)
    ball = (red[..., 0] > 2 * red[..., 1]) & (red[..., 0] > 60)
    rows, columns = np.nonzero(ball)
    assert (rows.mean(), columns.mean()) == pytest.approx((130, 170), abs=1)
    assert ball.sum() == pytest.approx(np.pi * 48**2, rel=0.02)


def test_self_test_does_not_answer_on_the_result_topic(robot):
    before = len(robot.results)
    result = robot.call(Trigger, "self_test", Trigger.Request())
    assert result.success and result.message.startswith("fake on cpu answered 'the red ball' in ")
    assert "OK, 1 mask" in result.message
    assert robot.ask("hello").status == Status.OK
    assert len(robot.results) == before + 1


def test_self_test_says_what_is_wrong():
    with rig() as robot:
        robot.start("-p", "autostart:=false", ready=False)
        result = robot.call(Trigger, "self_test", Trigger.Request())
        assert not result.success and "not configured" in result.message


def test_self_test_gives_a_hanging_model_up(robot):
    assert robot.set(query__timeout=0.5).successful
    robot.say("stall:4")
    time.sleep(0.1)
    result = robot.call(Trigger, "self_test", Trigger.Request())
    assert not result.success and "busy or hangs" in result.message
    assert robot.set(query__timeout=30.0).successful
    wait_for(lambda: robot.ask("hello").status == Status.OK, "the model to come back")


def test_standing_query_by_the_clock(robot):
    before = len(robot.results)
    assert robot.set(standing__period=0.2, standing__instruction="watch the door").successful
    wait_for(lambda: len(robot.results) >= before + 4, "four answers")
    assert robot.set(standing__instruction="").successful
    results = robot.results[before:]
    assert {one.query for one in results} == {"watch the door"}
    assert {one.source for one in results} == {results[0].SOURCE_STANDING}
    assert len({one.query_id for one in results}) == len(results)
    time.sleep(0.5)
    settled = len(robot.results)
    time.sleep(0.6)
    assert len(robot.results) == settled, "it goes on although it was ended"


def test_standing_query_on_every_image_that_differs(robot):
    robot.film(pixels=drawn_image(seed=1))
    time.sleep(0.3)
    before = len(robot.results)
    assert robot.set(standing__period=0, standing__instruction="what is new").successful
    for count, seed in enumerate((2, 3), start=1):
        wait_for(lambda n=count: len(robot.results) - before >= n, "an answer about the image")
        robot.film(pixels=drawn_image(seed=seed))
    wait_for(lambda: len(robot.results) - before >= 3, "an answer about the last image")
    time.sleep(1.0)
    assert robot.set(standing__instruction="").successful
    assert len(robot.results) - before == 3, "one for each image, none for its repetitions"
