"""What the node touches on the graph is what its SROS 2 policy allows and its tables name."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ElementTree

import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from node_rig import ROOT, rig, wait_for
from rclpy.action import get_action_server_names_and_types_by_node as action_servers

from lisa_ros.node.interfaces import INTERFACES
from lisa_ros.node.status import Status
from lisa_ros.resources import shared_file

NODE, NAMESPACE = "perception", "/lisa"
VISION = {"/lisa/mask/label_info"} | {
    f"/lisa/{under}/detections_{dimensions}"
    for under in ("mask", "tracks")
    for dimensions in ("2d", "3d")
}
COMPRESSED = {"/lisa/image/compressed", "/lisa/depth/compressedDepth"}


def allowed(element: str, right: str) -> set[str]:
    """Full names that the policy allows."""
    tree = ElementTree.parse(shared_file("config/sros2_policy.xml"))
    names = set()
    for group in tree.iter(f"{element}s"):
        if group.get(right) == "ALLOW":
            names |= {item.text for item in group.iter(element)}
    return {
        name.replace("~", f"{NAMESPACE}/{NODE}") if name[0] in "~/" else f"{NAMESPACE}/{name}"
        for name in names
    }


@pytest.fixture(scope="module")
def graph():
    """Names of what a running node offers, by kind; both transports of images."""
    with rig() as robot:
        robot.start("-p", "use_sim_time:=true")
        robot.film()
        wait_for(lambda: robot.ask("hello").status == Status.OK, "an answer")
        ask = robot.node

        def names(found: list[tuple[str, list[str]]]) -> set[str]:
            return {name for name, _ in found if "/_action/" not in name}

        yield {
            "publish": names(ask.get_publisher_names_and_types_by_node(NODE, NAMESPACE)),
            "subscribe": names(ask.get_subscriber_names_and_types_by_node(NODE, NAMESPACE)),
            "reply": names(ask.get_service_names_and_types_by_node(NODE, NAMESPACE)),
            "request": names(ask.get_client_names_and_types_by_node(NODE, NAMESPACE)),
            "execute": names(action_servers(ask, NODE, NAMESPACE)),
        }


def test_the_policy_allows_what_the_node_does_and_nothing_else(graph):
    optional = VISION  # where vision_msgs is installed
    assert allowed("topic", "publish") - optional == graph["publish"] - optional
    optional = COMPRESSED | {"/parameter_events", "/tf", "/tf_static"}
    assert allowed("topic", "subscribe") - optional == graph["subscribe"] - optional
    # newer distributions have more standard services than older ones
    optional = {"/lisa/perception/get_type_description", "/lisa/perception/get_transition_graph"}
    assert allowed("service", "reply") - optional == graph["reply"] - optional
    assert graph["request"] == set()
    assert allowed("action", "execute") == graph["execute"]


def test_the_interface_table_names_everything_of_our_own(graph):
    own = {one.name if one.name[0] == "/" else f"/lisa/{one.name}" for one in INTERFACES}
    standard = ("/rosout", "/parameter_events", "/clock", "/lisa/perception/")
    offered = {name for names in graph.values() for name in names if not name.startswith(standard)}
    assert offered | VISION == own - COMPRESSED


def test_no_code_of_the_node_can_run_what_comes_from_outside():
    """Neither a shell, nor eval, nor unpickling; client.py starts nodes, and no node imports it."""
    forbidden = {"eval", "exec", "system", "popen", "Popen", "pickle", "subprocess"}
    for path in sorted((ROOT / "lisa_ros" / "node").rglob("*.py")):
        if path.name == "client.py":
            continue
        assert "node.client" not in path.read_text(), path.name
        tree = ast.parse(path.read_text())
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        used |= {
            alias.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        assert not used & forbidden, path.name
