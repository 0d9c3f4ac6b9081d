"""One table of parameters: what it accepts, and that everything made from it agrees."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import get_args

import pytest
import yaml

from benchmarks import generated_tables as tables
from lisa_ros.cli import node
from lisa_ros.model.config import Quantization
from lisa_ros.node.interfaces import INTERFACES
from lisa_ros.node.parameters import BY_NAME, PARAMETERS, ParameterError
from lisa_ros.node.status import MEANING, Status
from lisa_ros.resources import shared_file


def flat(tree: dict, prefix: str = "") -> dict:
    """Nested parameters by their dotted names."""
    found: dict = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def test_the_parameter_file_is_the_table():
    text = shared_file("config/perception.yaml").read_text()
    assert text == tables.parameter_file(), (
        "run: python -m benchmarks.generated_tables config/perception.yaml"
    )
    values = flat(yaml.safe_load(text)["/**"]["ros__parameters"])
    assert values == {p.name: p.default for p in PARAMETERS}
    assert [type(v) for v in values.values()] == [type(p.default) for p in PARAMETERS]


def test_the_markdown_table_is_the_table():
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \|", tables.parameter_table(), re.MULTILINE)
    assert {name: yaml.safe_load(value) for name, value in rows} == {
        p.name: p.default for p in PARAMETERS
    }


def test_the_marked_tables_of_the_readme_are_made_from_the_code():
    readme = shared_file("package.xml").parent / "README.md"
    if not readme.is_file():
        pytest.skip("there is no README.md here")
    text = readme.read_text(encoding="utf-8")
    assert tables.fill_in(text) == text, "run: python -m benchmarks.generated_tables README.md"


def test_tables_are_filled_in_between_their_marks():
    text = "a\n<!-- table: statuses -->\nyesterday\n<!-- end of table -->\nb\n"
    filled = tables.fill_in(text)
    assert tables.status_table() in filled and "yesterday" not in filled
    assert filled.startswith("a\n<!--") and filled.endswith("-->\nb\n")
    assert tables.fill_in(filled) == filled


def test_statuses_are_those_of_the_message():
    messages = pytest.importorskip("lisa_ros.msg", reason="the messages are not built")
    constants = {status.name: getattr(messages.Segmentation, status.name) for status in Status}
    assert constants == {status.name: status.value for status in Status}
    assert list(MEANING) == list(Status)


@pytest.mark.parametrize("interface", INTERFACES, ids=lambda one: one.name)
def test_interface_types_exist(interface):
    pytest.importorskip("lisa_ros.msg", reason="the messages are not built")
    from importlib import import_module

    package, kind, name = interface.type.split("/")
    if package == "vision_msgs":
        pytest.importorskip(package, reason=f"{package} is part of a ROS installation")
    assert hasattr(import_module(f"{package}.{kind}"), name)


def test_defaults_are_allowed():
    for parameter in PARAMETERS:
        assert parameter.check(parameter.default) == parameter.default
        assert (parameter.low is None) == (parameter.high is None)


def test_quantization_is_offered_as_the_loader_knows_it():
    offered = BY_NAME["model.quantization"].choices
    assert set(offered) == {"none", "auto", *get_args(Quantization)}
    assert {"int8", "int4", "fp8", "nf4"} < set(offered)


def test_a_whole_number_is_taken_where_a_float_is_meant():
    value = BY_NAME["query.timeout"].check(5)
    assert value == 5.0 and isinstance(value, float)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("query.timeout", "5", "must be a number"),
        ("query.timeout", True, "must be a number"),
        ("query.timeout", 0.0, r"0\.1 \.\. 3600"),
        ("query.timeout", float("nan"), "finite"),
        ("query.timeout", float("inf"), "finite"),
        ("query.queue_size", 2.0, "a whole number"),
        ("query.queue_size", 0, r"1 \.\. 1000"),
        ("query.mode", "masks", "auto, mask, explain, text"),
        ("query.mode", 3, "a text"),
        ("autostart", 1, "true or false"),
        ("model.device", "gpu", "cuda:N"),
        ("model.device", "cpu; rm -rf /", "cuda:N"),
        ("input.qos", ["auto"], "a text"),
        ("standing.instruction", None, "a text"),
    ],
)
def test_values_that_cannot_be_used_get_a_reason(name, value, words):
    with pytest.raises(ParameterError, match=words) as caught:
        BY_NAME[name].check(value)
    assert name in str(caught.value)


def words_of(line: str) -> list[str]:
    """What `lisa-ros node LINE` hands to ROS."""
    parser = argparse.ArgumentParser()
    node.add_node_arguments(parser)
    return node.ros_arguments(parser.parse_args(shlex.split(line)))


def test_the_command_s_shorthands_in_ros_words():
    assert words_of("") == ["--ros-args"]
    assert words_of("--model 7 --device cpu")[1:] == [
        *("-p", 'model.path:="7"', "-p", 'model.device:="cpu"')
    ]
    assert words_of("--image /cam/image --namespace robot1")[1:] == [
        *("-r", "image:=/cam/image", "-r", "image/compressed:=/cam/image/compressed"),
        *("-r", "__ns:=/robot1"),
    ]
    compressed = words_of("--image /cam/image/compressed")
    assert 'input.transport:="compressed"' in compressed and "image:=/cam/image" in compressed
    given = "--ros-args -r __node:=eye --params-file my.yaml --log-level debug"
    assert words_of(f"--device cpu {given}")[-6:] == given.split()[1:]
    with_depth = words_of("--depth /cam/depth/compressedDepth --camera-info /cam/depth/info")
    assert with_depth[1:] == [
        *("-p", 'depth.transport:="compressed"', "-r", "depth:=/cam/depth"),
        *("-r", "depth/compressedDepth:=/cam/depth/compressedDepth"),
        *("-r", "camera_info:=/cam/depth/info"),
    ]
