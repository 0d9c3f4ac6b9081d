"""What is drawn for people is drawn beside the queries, and the newest wins."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from node_rig import wait_for

from lisa_ros.node.results.publishers import NewestWins


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
        go_on.wait(20)
        done.append("overlay 1")

    drawing.submit("overlay", slow)
    assert begun.wait(20)
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
    assert drawn.wait(20)
    assert len(errors) == 1 and "ZeroDivisionError" in errors[0] and "overlay" in errors[0]
