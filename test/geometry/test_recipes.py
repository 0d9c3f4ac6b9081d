"""The recipes in docs/recipes: their topics and types exist, and their snippets work."""

import ast
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from geometry_scenes import CAMERA, on_table, render

from lisa_ros.node.interfaces import INTERFACES

FOLDER = Path(__file__).parents[2] / "docs" / "recipes"
PAGES = sorted(FOLDER.glob("*.md"))
TOPICS = {f"/lisa/{one.name}": one.type for one in INTERFACES}
ROW = re.compile(r"^\| `(/[\w/]+)` \| `(\w+/msg/\w+)` \|", re.MULTILINE)


def text(name: str) -> str:
    return (FOLDER / name).read_text()


def blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text(name), re.DOTALL)


def missing(code: str) -> set[str]:
    """Packages that a snippet imports and that are not installed here."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return {name for name in names if find_spec(name) is None}


def run(name: str) -> dict[str, Any]:
    """What the snippets of a page define, those of the README included."""
    namespace: dict[str, Any] = {}
    for code in (*blocks("README.md"), *blocks(name)):
        if not missing(code):
            exec(compile(code, name, "exec"), namespace)
    return namespace


@pytest.fixture(scope="module")
def scene() -> SimpleNamespace:
    """The messages of one answer about a box on a table."""
    if find_spec("sensor_msgs") is None:
        pytest.skip("the snippets read messages: sensor_msgs is not installed here")
    from sensor_msgs.msg import CameraInfo, Image

    where = on_table([0.1, 0.06, 0.08])
    depth, seen = render([where.thing, where.table])
    whole = np.round(depth * 1000).astype("<u2")
    color = np.zeros((*depth.shape, 3), np.uint8)
    color[seen == 0] = (200, 100, 50)

    def image(samples: np.ndarray, encoding: str) -> Image:
        height, width = samples.shape[:2]
        message = Image(height=height, width=width, encoding=encoding)
        message.step = samples.nbytes // height
        message.data.frombytes(samples.tobytes())
        return message

    info = CameraInfo(width=400, height=300)
    info.k = [CAMERA.fx, 0.0, CAMERA.cx, 0.0, CAMERA.fy, CAMERA.cy, 0.0, 0.0, 1.0]
    return SimpleNamespace(
        thing=where.thing,
        meters=depth,
        mask=seen == 0,
        color=color,
        image=image(color, "rgb8"),
        depth=image(whole, "16UC1"),
        labels=image((seen == 0).astype(np.uint8), "mono8"),
        info=info,
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_topics_are_those_of_the_node_with_their_types(page):
    for topic, kind in ROW.findall(page.read_text()):
        assert TOPICS.get(topic, kind) == kind, topic
    unknown = set(re.findall(r"/lisa/[a-z_/]*[a-z]", page.read_text())) - set(TOPICS)
    assert not unknown, f"{page.name} names topics that the node does not have"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_message_types_exist(page):
    kinds = set(re.findall(r"`(\w+)/msg/(\w+)`", page.read_text()))
    assert kinds
    absent = sorted({package for package, _ in kinds if find_spec(package) is None})
    for package, name in kinds:
        if package not in absent:
            assert hasattr(import_module(f"{package}.msg"), name), f"{package}/msg/{name}"
    if absent:
        pytest.skip(f"types of {', '.join(absent)} could not be looked up: not installed here")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_snippets_are_valid_and_run(page):
    left_out = set()
    for code in blocks(page.name):
        compile(code, page.name, "exec")
        left_out |= missing(code)
    run(page.name)
    if left_out:
        pytest.skip(f"snippets that import {', '.join(sorted(left_out))} were only compiled")


def test_images_with_padded_rows_and_swapped_bytes(scene):
    pixels = run("README.md")["pixels"]
    assert np.array_equal(pixels(scene.image), scene.color)
    assert np.array_equal(pixels(scene.labels) == 1, scene.mask)
    swapped = SimpleNamespace(encoding="16UC1", is_bigendian=1, height=2, width=3, step=8)
    swapped.data = np.array([[1, 2, 3, 99], [4, 5, 600, 99]], ">u2").tobytes()
    assert np.array_equal(pixels(swapped), [[1, 2, 3], [4, 5, 600]])


def test_gpd_reads_the_object_from_a_file(scene, tmp_path):
    gpd = run("gpd.md")
    points = gpd["object_cloud"](scene.labels, scene.depth, scene.info, 1)
    path = tmp_path / "object.pcd"
    gpd["write_pcd"](path, points)
    head, body = path.read_bytes().split(b"DATA binary\n")
    assert f"POINTS {len(points)}\n".encode() in head
    assert np.array_equal(np.frombuffer(body, "<f4").reshape(-1, 3), points)
    with pytest.raises(ValueError, match="no pixel"):
        gpd["object_cloud"](scene.labels, scene.depth, scene.info, 2)


def test_contact_graspnet_reads_the_scene_from_a_file(scene, tmp_path):
    recipe = run("contact_graspnet.md")
    path = tmp_path / "scene.npz"
    recipe["write_scene"](path, scene.image, scene.depth, scene.info, scene.labels)
    file = np.load(path)
    assert np.abs(file["depth"] - scene.meters).max() < 0.001
    assert np.array_equal(file["segmap"] == 1, scene.mask)
    assert file["K"][0, 2] == CAMERA.cx
    assert np.array_equal(file["rgb"], scene.color)
    grasp = np.eye(4)
    tips = recipe["to_fingertips"](grasp)
    assert tips[:3, 3] == pytest.approx([0, 0, 0.1034])
    assert tips[:3, 1] == pytest.approx(grasp[:3, 0])
    assert np.linalg.det(tips[:3, :3]) == pytest.approx(1)


def test_anygrasp_gets_the_scene_and_the_limits_of_the_object(scene):
    make = run("anygrasp.md")["anygrasp_input"]
    points, colors, limits = make(scene.image, scene.depth, scene.info, scene.labels, 1)
    assert points.dtype == colors.dtype == np.float32
    assert len(points) == len(colors) == (scene.meters > 0).sum()
    on_object = colors[scene.mask[scene.meters > 0]]
    assert np.allclose(on_object, np.array([200, 100, 50]) / 255)
    corners = np.array(limits).reshape(3, 2)
    assert (corners[:, 0] < scene.thing.center).all()
    assert (scene.thing.center < corners[:, 1]).all()
    assert np.ptp(corners, axis=1).max() < 0.2


def test_foundationpose_gets_its_four_inputs(scene):
    register = run("foundationpose.md")["register"]
    recorder = SimpleNamespace(register=lambda **given: given)
    given = register(recorder, scene.image, scene.depth, scene.info, scene.labels)
    assert given["K"][1, 1] == CAMERA.fy
    assert np.array_equal(given["rgb"], scene.color)
    assert given["depth"].dtype == np.float32
    assert np.array_equal(given["ob_mask"], scene.mask)


def test_moveit_goals_lie_behind_the_fingertips():
    pytest.importorskip("geometry_msgs", reason="geometry_msgs is not installed here")
    from geometry_msgs.msg import Point, Pose, PoseArray, Quaternion

    recipe = run("moveit.md")
    down = Pose(position=Point(x=0.4, y=0.1, z=0.2), orientation=Quaternion(x=1.0, w=0.0))
    before, at = recipe["goals"](PoseArray(poses=[down]), tip=0.1)
    assert at.pose.position.z == pytest.approx(0.3)
    assert before.pose.position.z == pytest.approx(0.4)
    assert before.pose.position.x == pytest.approx(0.4)
    assert recipe["closing_axis"](down) == pytest.approx([0, -1, 0])
    assert recipe["goals"](PoseArray(), tip=0.1) == [], "no grasp is nothing unusual"


def test_nav2_goal_looks_at_the_thing():
    if find_spec("lisa_ros.msg") is None:
        pytest.skip("the messages of lisa_ros are not generated here")
    from lisa_ros.msg import Instance

    thing = Instance(has_pose=True)
    thing.centroid.x, thing.centroid.y = 3.0, 4.0
    goal = run("nav2.md")["goal_before"](thing, 0.0, 0.0, 1.0)
    assert (goal.pose.position.x, goal.pose.position.y) == pytest.approx((2.4, 3.2))
    heading = 2 * np.arctan2(goal.pose.orientation.z, goal.pose.orientation.w)
    assert heading == pytest.approx(np.arctan2(4, 3))
    with pytest.raises(ValueError, match="no depth"):
        run("nav2.md")["goal_before"](Instance(pose_reason="no depth image"), 0.0, 0.0, 1.0)
