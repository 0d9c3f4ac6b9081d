"""Start, stop and everything between: the node's life cycle, and what becomes of queries in it."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lisa_ros.action import Follow, Segment
from node_rig import START, WAIT, Manager, Process, Rig, SegmentClient, rig, wait_for
from rclpy.action import ActionClient
from std_msgs.msg import String

from lisa_ros.node.client import claimed_domain
from lisa_ros.node.perception_node import PerceptionNode
from lisa_ros.node.status import Status


@pytest.fixture(scope="module")
def robot():
    with rig() as robot:
        robot.start("-p", "autostart:=false", ready=False)
        robot.film()
        yield robot


@pytest.fixture
def manager(robot):
    """A manager of a node that is brought back to unconfigured."""
    manager = Manager(robot)
    assert manager.state == "unconfigured"
    yield manager
    if manager.state == "active":
        manager.change("deactivate")
    if manager.state == "inactive":
        assert manager.change("cleanup")
    assert manager.set_path("nano").successful


def threads_of(robot: Rig) -> int:
    return len(list(Path(f"/proc/{robot.processes[0].process.pid}/task").iterdir()))


def test_up_and_down_again_and_again(robot, manager):
    result = robot.ask("hello")
    assert result.status == Status.NOT_READY and "not configured" in result.error
    threads = []
    for _ in range(4):
        assert manager.change("configure") and manager.state == "inactive"
        result = robot.ask("hello")
        assert result.status == Status.NOT_READY and "activate" in result.error
        assert manager.change("activate") and manager.state == "active"
        wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")
        assert manager.change("deactivate") and manager.state == "inactive"
        assert robot.ask("hello").status == Status.NOT_READY
        assert manager.change("activate")
        wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")
        threads.append(threads_of(robot))
        assert manager.change("deactivate") and manager.change("cleanup")
        assert manager.state == "unconfigured"
    assert threads[-1] == threads[0], "a thread was left over"


def test_impossible_transitions_are_refused_and_answered(robot, manager):
    assert not manager.change("activate")
    assert not manager.change("deactivate")
    assert not manager.change("cleanup")
    assert manager.state == "unconfigured" and robot.processes[0].alive
    assert manager.change("configure")
    assert not manager.change("configure")
    assert manager.state == "inactive"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("missing", "there is no file /models/missing/config.json"),
        ("big", "not enough memory on cpu"),
    ],
)
def test_model_that_cannot_be_loaded(robot, manager, path, words):
    before = robot.processes[0].log
    assert manager.set_path(path).successful
    assert not manager.change("configure") and manager.state == "unconfigured"
    said = robot.processes[0].log[len(before) :]
    assert words in said and "Traceback" not in said
    result = robot.ask("hello")
    assert result.status == Status.NOT_READY and words in result.error
    assert manager.set_path("nano").successful
    assert manager.change("configure") and manager.change("activate")
    wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")


def test_bug_in_the_loader_is_logged_and_survived(robot, manager):
    before = robot.processes[0].log
    assert manager.set_path("damaged").successful
    assert not manager.change("configure") and manager.state == "unconfigured"
    assert "header too large" in robot.processes[0].log[len(before) :]
    assert robot.ask("hello").status == Status.NOT_READY


@pytest.mark.parametrize(
    ("path", "level"),
    [("missing", DiagnosticStatus.WARN), ("damaged", DiagnosticStatus.ERROR)],
)
def test_diagnostics_of_a_failed_configuration(robot, manager, path, level):
    """A fault that the user can mend is a warning, a bug is an error: told by its type."""
    assert manager.set_path(path).successful
    assert not manager.change("configure")
    with robot.hearing(DiagnosticArray, "/diagnostics") as heard:
        wait_for(lambda: heard, "diagnostics")
        assert heard[-1].status[0].level == level, heard[-1].status[0].message
        assert manager.set_path("nano").successful
        assert manager.change("configure")
        heard.clear()
        wait_for(lambda: heard, "diagnostics")
        assert heard[-1].status[0].level == DiagnosticStatus.WARN  # inactive
        assert "inactive" in heard[-1].status[0].message


def test_model_parameters_change_only_without_a_model(robot, manager):
    assert manager.change("configure")
    refused = manager.set_path("other")
    assert not refused.successful and "unconfigured" in refused.reason


@pytest.mark.parametrize(
    ("transitions", "work"),
    [
        (["deactivate"], "endless"),
        (["deactivate"], "endless deaf"),
        (["deactivate", "cleanup"], "endless"),
        (["deactivate", "cleanup"], "stall:2"),
    ],
)
def test_stopping_in_the_middle_of_an_answer(robot, manager, transitions, work):
    assert manager.change("configure") and manager.change("activate")
    wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")
    before = len(robot.results)
    robot.say(work)
    robot.say("waiting behind it")
    time.sleep(0.5)
    for name in transitions:
        assert manager.change(name)
    wait_for(lambda: len(robot.results) == before + 2, "the results")
    assert [one.status for one in robot.results[before:]] == [Status.CANCELLED] * 2
    assert all("deactivated" in one.error for one in robot.results[before:])
    if transitions[-1] == "cleanup":
        assert manager.change("configure")
    assert manager.change("activate")
    wait_for(lambda: robot.ask("hello").status == Status.OK, "the next answer")
    assert len({one.query_id for one in robot.results}) == len(robot.results)


@pytest.mark.parametrize("work", ["endless", "stall:2"])
def test_the_shutdown_transition_in_the_middle_of_an_answer(work):
    with rig() as robot:
        process = robot.start()
        robot.film()
        wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")
        manager = Manager(robot)
        before = len(robot.results)
        robot.say(work)
        robot.say("waiting behind it")
        time.sleep(0.5)
        assert len(robot.results) == before
        assert manager.change("active_shutdown") and manager.state == "finalized"
        wait_for(lambda: len(robot.results) == before + 2, "the results")
        assert [one.status for one in robot.results[before:]] == [Status.CANCELLED] * 2
        assert all("shut down" in one.error for one in robot.results[before:])
        refused = robot.ask("too late")
        assert refused.status == Status.NOT_READY and "shut down" in refused.error
        assert process.alive and robot.images.get_subscription_count() == 0
        time.sleep(0.5)
        assert len(robot.results) == before + 3, "the first answer came after its cancellation"
        assert process.stop() == 0
        assert "Traceback" not in process.log


@pytest.mark.parametrize(
    ("number", "work"), [(signal.SIGINT, "stall:120"), (signal.SIGTERM, "endless")]
)
def test_a_signal_ends_the_process_and_answers_what_is_in_flight(number, work):
    with rig() as robot:
        process = robot.start()
        robot.film()
        wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")
        before = len(robot.results)
        robot.say(work)
        time.sleep(0.4)
        began = time.monotonic()
        assert process.stop(number) == 0
        assert time.monotonic() - began < 80, "long before the model would have answered"
        wait_for(lambda: len(robot.results) == before + 1, "the result")
        result = robot.results[-1]
        assert result.status == Status.CANCELLED and "stopped" in result.error
        assert "Traceback" not in process.log


def test_a_signal_brings_goals_in_flight_their_results():
    with rig() as robot:
        process = robot.start()
        robot.film()
        wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")
        client = SegmentClient(robot)
        handles = [client.send(words) for words in ("endless", "waiting")]
        results = [robot.do(handle.get_result_async) for handle in handles]
        time.sleep(0.3)
        assert process.stop() == 0
        for one in results:
            result = wait_for(one.result, "the goal's result").result.segmentation
            assert result.status == Status.CANCELLED and "stopped" in result.error
        assert "Traceback" not in process.log


def test_a_signal_while_the_model_is_loaded():
    with rig() as robot:
        process = robot.start("-p", "model.path:=slow:30", ready=False)
        wait_for(lambda: "loading the model" in process.log, "the beginning")
        robot.say("too early")
        began = time.monotonic()
        assert process.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 4
        assert "Traceback" not in process.log
        assert "[ERROR]" not in process.log and "the process is stopping" in process.log


def test_who_asks_during_the_loading_hears_at_once_that_the_node_is_not_ready():
    """On the topic as by an action."""
    with rig() as robot:
        process = robot.start("-p", "model.path:=slow:90", ready=False)
        result = robot.ask("early bird")
        assert result.status == Status.NOT_READY and "slow:90 is being loaded" in result.error
        for kind, name in ((Segment, "segment"), (Follow, "follow")):
            client = robot.do(lambda k=kind, n=name: ActionClient(robot.node, k, n))
            assert client.wait_for_server(WAIT)
            goal = robot.do(lambda c=client, k=kind: c.send_goal_async(k.Goal(instruction="it")))
            wait_for(goal.done, "the goal to be accepted")
            ended = robot.do(goal.result().get_result_async)
            wait_for(ended.done, "its result")
            answer = ended.result().result.segmentation
            assert answer.status == Status.NOT_READY and "slow:90 is being" in answer.error, name
        assert "configure: done" not in process.log and "Traceback" not in process.log


def test_the_time_of_a_query_counts_from_its_arrival():
    """The executor may have been busy with something else meanwhile."""
    taken = []
    queries = SimpleNamespace(new=lambda *_, **details: details["arrived"], ask=taken.append)
    received = {"received_timestamp": time.time_ns() - 3 * 10**9}
    PerceptionNode._on_query(SimpleNamespace(queries=queries), String(data="the mug"), received)
    assert taken[0] <= time.monotonic() - 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("-p query.timeout:=often", "query.timeout must be a number"),
        ("-p query.queue_size:=0", "query.queue_size"),
        ("-p model.device:=tpu", "model.device"),
        ("--params-file /no/such/file.yaml", "/no/such/file.yaml"),
    ],
)
def test_unusable_parameters_end_the_start_with_a_sentence(arguments, words):
    command = [sys.executable, "-m", "lisa_ros.cli", "node", "--ros-args", *arguments.split()]
    with claimed_domain() as domain:
        process = Process(command, domain)
        assert process.process.wait(START) == 2
        assert words in process.log and "Traceback" not in process.log
        process.folder.cleanup()


def without(package: str) -> list[str]:
    """The command of a node in whose Python a package is not installed."""
    hide = f"import sys; sys.modules[{package!r}] = None"
    return [
        sys.executable,
        "-c",
        f"{hide}; from lisa_ros.cli import main; sys.exit(main())",
        "node",
    ]


def test_without_what_the_node_itself_needs_it_ends_with_one_sentence():
    with claimed_domain() as domain:
        process = Process(without("PIL"), domain)
        assert process.process.wait(START) == 2
        told = process.log.strip().splitlines()
        assert len(told) == 1 and "the package PIL is missing from" in told[0], told
        process.folder.cleanup()


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_without_what_the_model_needs_clients_hear_the_reason(package):
    with rig() as robot:
        process = robot.start(command=without(package), ready=False)
        wait_for(lambda: "cannot configure" in process.log, "the refusal", START)
        result = robot.ask("the mug")
        assert result.status == Status.NOT_READY
        assert f"the package {package} is missing from" in result.error
        assert "Traceback" not in process.log


def test_a_whole_number_starts_where_a_float_is_meant_and_a_misspelt_name_is_told():
    with rig() as robot:
        process = robot.start("-p", "query.timeout:=3", "-p", "query.timeot:=5")
        assert robot.ask("hello").status == Status.NO_IMAGE
        hint = "there is no parameter query.timeot; did you mean query.timeout?"
        assert process.log.count("there is no parameter") == 1 and hint in process.log
