"""The configurations for RViz and Foxglove show topics of the node, and the overlay is seen."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import yaml

from lisa_ros.node.interfaces import INTERFACES
from lisa_ros.node.results.overlay import draw_overlay, load_font, wrap_words
from lisa_ros.resources import shared_file

TOPICS = {one.name if one.name[0] == "/" else f"/lisa/{one.name}" for one in INTERFACES}


def test_rviz_configuration():
    tree = yaml.safe_load(shared_file("config/perception.rviz").read_text())
    displays = tree["Visualization Manager"]["Displays"]
    shown = {one["Topic"]["Value"] for one in displays}
    assert shown <= TOPICS and {"/lisa/overlay", "/lisa/points", "/lisa/markers"} <= shown


def test_foxglove_layout():
    layout = json.loads(shared_file("config/foxglove_layout.json").read_text())
    text = json.dumps(layout)
    named = {match.split(".")[0] for match in re.findall(r"/lisa/[\w/.]+|/diagnostics", text)}
    assert named <= TOPICS and {"/lisa/overlay", "/lisa/points", "/lisa/markers"} <= named
    panels = set(re.findall(r'"(\w+!\w+)"', json.dumps(layout["layout"])))
    assert panels == set(layout["configById"])


def masks(*boxes: tuple[int, int, int, int]) -> list[np.ndarray]:
    found = []
    for x, y, width, height in boxes:
        mask = np.zeros((240, 320), bool)
        mask[y : y + height, x : x + width] = True
        found.append(mask)
    return found


GREY = np.full((240, 320, 3), 120, np.uint8)


def test_overlay_marks_what_is_meant_and_dims_the_rest():
    [mask] = masks((100, 60, 60, 40))
    drawn = draw_overlay(GREY, [mask], "the box", "it is here")
    assert drawn.shape[0] > 240 and drawn.shape[1:] == (320, 3) and drawn.dtype == np.uint8
    inside, outside = drawn[80, 130].astype(int), drawn[30, 20].astype(int)
    assert inside[0] > inside[2] + 30, "the first color is red"
    assert (outside < 120).all() and np.ptp(outside) == 0
    assert (GREY == 120).all(), "the image itself is not painted"


def test_overlay_gives_every_object_a_color_of_its_own():
    found = masks((20, 40, 60, 60), (120, 40, 60, 60), (220, 40, 60, 60))
    drawn = draw_overlay(GREY, found, "all", "they are here")
    colors = {tuple(drawn[50, x]) for x in (30, 130, 230)}
    assert len(colors) == 3


@pytest.mark.parametrize("words", ["", "it is here", "words " * 500])
def test_the_words_hide_nothing_and_the_size_does_not_depend_on_them(words):
    [mask] = masks((0, 0, 320, 240))
    drawn = draw_overlay(GREY, [mask], words, words)
    marked = drawn[:240].astype(int)
    assert (marked[..., 0] > marked[..., 2] + 30).all(), "the object is covered by the words"
    assert drawn.shape == draw_overlay(GREY, [], "a", "b").shape
    assert (drawn[240:, -4:] == drawn[-1, -1]).all(), "the words end before the border"


@pytest.mark.parametrize("text", ["several words " * 50, "x" * 300])
def test_words_that_do_not_fit_end_in_dots_at_the_end_of_the_last_line(text):
    font, room = load_font(12), 200
    lines = wrap_words(text, font, room, 2)
    assert all(room / 2 < font.getlength(line) <= room for line in lines[-1:])
    assert lines[-1].endswith("…") and not any("…" in line for line in lines[:-1])
    assert wrap_words("a few", font, room, 2) == ["a few"]


def test_a_failure_is_shown_in_a_warning_color():
    words = "there is no such thing"
    calm = draw_overlay(GREY, [], "the box", words).astype(int)
    alarm = draw_overlay(GREY, [], "the box", words, failed=True).astype(int)
    assert (alarm[..., 0] - alarm[..., 1]).max() > 60 > (calm[..., 0] - calm[..., 1]).max()


@pytest.mark.parametrize("size", [(16, 16), (16, 400), (720, 1280)])
@pytest.mark.parametrize("text", ["", "x" * 3000, "words " * 500, "{0} %s \x00 道具 🤖"])
def test_overlay_of_any_size_with_any_words(size, text):
    image = np.zeros((*size, 3), np.uint8)
    full, empty = np.ones(size, bool), np.zeros(size, bool)
    drawn = draw_overlay(image, [full, empty], text, text)
    assert drawn.shape[1:] == image.shape[1:] and len(drawn) > len(image)
