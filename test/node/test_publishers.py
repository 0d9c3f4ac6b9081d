"""What is drawn for people is drawn beside the queries, and the newest wins."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from builtin_interfaces.msg import Time
from depth_rig import COLOR, INFO, SEEN, metres
from node_rig import WAIT, image_message, wait_for

from lisa_ros.engine.answer import Answer, AnswerStatus, Instance
from lisa_ros.node.inputs.frame import DepthMatch, Frame
from lisa_ros.node.parameters import BY_NAME
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.results import messages, objects3d, publishers
from lisa_ros.node.results.publishers import NewestWins, ResultPublishers
from lisa_ros.node.status import Status


@pytest.fixture
def errors():
    return []


@pytest.fixture
def drawing(errors):
    thread = NewestWins(SimpleNamespace(error=errors.append))
    yield thread
    thread.close()


def test_of_one_name_the_newest_wins_and_others_keep_their_place(drawing):
    done: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        go_on.wait(WAIT)
        done.append("overlay 1")

    drawing.submit("overlay", slow)
    assert begun.wait(WAIT)
    for name in ("overlay 2", "scene 2", "grasps 2", "overlay 3", "scene 3", "grasps 3"):
        kind = name if name.startswith("grasps") else name.split()[0]
        drawing.submit(kind, lambda name=name: done.append(name))
    assert not done, "nobody waits for what is drawn"
    go_on.set()
    expected = ["overlay 1", "overlay 3", "scene 3", "grasps 2", "grasps 3"]
    wait_for(lambda: len(done) == 5, "the rest")
    assert done == expected


def test_a_fault_while_drawing_is_logged_and_the_next_is_drawn(drawing, errors):
    drawn = threading.Event()
    drawing.submit("overlay", lambda: 1 / 0)
    drawing.submit("points", drawn.set)
    assert drawn.wait(WAIT)
    assert len(errors) == 1 and "ZeroDivisionError" in errors[0] and "overlay" in errors[0]


def test_a_result_does_not_wait_for_overlay_markers_and_clouds(monkeypatch, errors):
    """They are drawn while the next query is answered, and come in the end."""
    go_on, sent = threading.Event(), []
    for place, name in (
        (publishers, "draw_overlay"),
        (messages, "marker_array"),
        (objects3d, "object_cloud"),
        (objects3d, "scene_cloud"),
    ):
        draw = getattr(place, name)
        slow = lambda *given, draw=draw, **more: go_on.wait(WAIT) and draw(*given, **more)  # noqa: E731
        monkeypatch.setattr(place, name, slow)

    def create_publisher(kind, name, qos):
        return SimpleNamespace(
            publish=lambda message: sent.append(name), get_subscription_count=lambda: 1
        )

    logger = SimpleNamespace(error=errors.append, warning=errors.append)
    node = SimpleNamespace(create_publisher=create_publisher, get_logger=lambda: logger)
    settings = {name: parameter.default for name, parameter in BY_NAME.items()}
    outputs = ResultPublishers(node, settings)
    frame = Frame(image_message(COLOR), key=("camera", 1), match=DepthMatch(metres(), INFO))
    frame.pixels(settings["input.max_pixels"])
    found = [Instance(SEEN == 0, 0.9, 0.9, "it")]
    objects = objects3d.localize([found[0].mask], frame.match, frame.header, settings)
    outcome = Outcome(Status.OK, "", Answer("It is it.", AnswerStatus.OK, found), objects)
    query = Query("1", "it", "auto", 1, Time(), 30.0, 9, frame)
    outputs.publish_rest(query, outcome, outputs.publish_result(query, outcome, "fake"))
    beside = {"overlay", "markers", "points", "scene/points"}
    assert {"mask", "answer", "mask/image", "grasps"} <= set(sent) and not beside & set(sent)
    go_on.set()
    wait_for(lambda: beside <= set(sent), "what is drawn")
    outputs._drawing.close()
    assert not errors
