"""Depth beside the camera: objects in space, what is published about them, and bad input."""

from __future__ import annotations

from array import array
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from depth_rig import (
    COLOR,
    DEPTH,
    FRAME,
    HEARD,
    HEIGHT,
    INFO,
    SCENE,
    SEEN,
    WIDTH,
    DepthCamera,
    K,
    check_is_the_thing,
    listening,
    metres,
    millimetres,
)
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseArray
from node_rig import BEST_EFFORT, RELIABLE, SegmentClient, image_message, rig, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Float32MultiArray, Header
from visualization_msgs.msg import Marker

from lisa_ros.errors import LisaError
from lisa_ros.geometry import XYZRGB, rigid
from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.status import Status


@pytest.mark.parametrize("depth", [millimetres, metres])
def test_the_object_in_space(camera, depth):
    result = camera.ask(depth=depth())
    [one] = result.instances
    check_is_the_thing(one)
    with camera.robot.hearing(DiagnosticArray, "/diagnostics") as heard:
        told = wait_for(lambda: heard and heard[-1].status, "diagnostics")
    [state] = [one for one in told if one.name.endswith(": depth")]
    assert state.message == "depth images fit"
    assert one.pose.header == result.header
    assert one.points > 1000 and one.depth_fraction == 1.0
    assert (one.views, one.agreement) == (1, 1.0)
    assert one.centroid.z < SCENE.thing.center[2], "the side that was seen"
    assert result.timings.geometry > 0
    assert one.seg_probability == 0.75 and (result.drafted, result.accepted) == (5, 4)


def test_a_depth_image_of_half_the_size(camera):
    half = millimetres(np.ascontiguousarray(DEPTH[::2, ::2]))
    check_is_the_thing(camera.ask(depth=half).instances[0], 0.004)


def test_depth_without_stamps_is_matched_by_its_arrival_and_that_is_said(camera):
    """Zero is no time: it would be the nearest one to nothing, or a jump backwards."""
    check_is_the_thing(camera.ask(depth=millimetres()).instances[0])
    camera.ask(depth=millimetres(2 * DEPTH))
    for _ in range(2):
        check_is_the_thing(camera.ask(depth=millimetres(), stamped=False).instances[0])
    words = "the stamps on depth are zero, so depth images are matched by the time at which"
    assert camera.robot.processes[0].log.count(words) == 1
    with camera.robot.hearing(DiagnosticArray, "/diagnostics") as heard:
        told = wait_for(lambda: heard and heard[-1].status, "diagnostics")
    [state] = [one for one in told if one.name.endswith(": depth")]
    assert state.level == DiagnosticStatus.WARN and words in state.message
    camera.ask(depth=millimetres(2 * DEPTH), stamped=False)
    camera.ask(depth=millimetres())  # whatever came without stamps before
    with camera.robot.hearing(DiagnosticArray, "/diagnostics") as heard:
        told = wait_for(lambda: heard and heard[-1].status, "diagnostics")
    [state] = [one for one in told if one.name.endswith(": depth")]
    assert state.message == "depth images fit"


def test_the_quality_of_service_of_depth_is_its_own():
    """What does not fit is told for depth and camera_info as for the camera."""
    with rig() as robot:
        robot.use_camera(BEST_EFFORT)
        process = robot.start("-p", "depth.qos:=reliable", "-p", "input.qos:=sensor_data")
        depth = robot.node.create_publisher(Image, "depth", BEST_EFFORT)
        robot.node.create_publisher(CameraInfo, "camera_info", BEST_EFFORT)
        robot.film()
        wait_for(lambda: robot.ask("hello").status == Status.OK, "the image, best effort")
        words = (
            "/lisa/depth: 1 publisher (BEST_EFFORT), this subscription is RELIABLE: these do not "
            "fit, set depth.qos to auto or sensor_data"
        )
        wait_for(lambda: words in process.log, "the reason in the log")
        with robot.hearing(DiagnosticArray, "/diagnostics") as heard:
            told = wait_for(lambda: heard and heard[-1].status, "diagnostics")
        [state] = [one for one in told if one.name.endswith(": depth")]
        assert state.level == DiagnosticStatus.WARN and state.message == words
        robot.node.destroy_publisher(depth)
        robot.node.create_publisher(Image, "depth", RELIABLE)
        words = words.replace("/lisa/depth", "/lisa/camera_info")
        wait_for(lambda: words in process.log, "the same of camera_info")


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ({"depth": CompressedImage}, "its publishers send sensor_msgs/msg/CompressedImage, not"),
        ({"depth": Image}, "/lisa/camera_info: nobody publishes it"),
    ],
)
def test_the_watchdog_looks_at_depth_too(published, words):
    with rig() as robot:
        process = robot.start()
        for name, kind in published.items():
            robot.node.create_publisher(kind, name, 1)
        wait_for(lambda: words in process.log, "the reason in the log")


def other(message: Image, **fields: Any) -> Image:
    for name, value in fields.items():
        setattr(message, name, value)
    return message


BAD = {
    "no depth image": (lambda: {}, "no depth image within 0.1 s"),
    "too far away": (lambda: {"depth": millimetres(), "away": 0.25}, "0.25 s younger"),
    "all zeros": (lambda: {"depth": millimetres(0 * DEPTH)}, "no measurement"),
    "not a number": (lambda: {"depth": metres(np.nan * DEPTH)}, "no measurement"),
    "millimetres as metres": (lambda: {"depth": metres(1000 * DEPTH)}, "millimetres declared"),
    "metres as millimetres": (lambda: {"depth": millimetres(DEPTH / 1000)}, "metres declared"),
    "few points": (
        lambda: {"depth": metres(np.where(np.arange(WIDTH) % 40 == 0, DEPTH, 0))},
        "30 are needed",
    ),
    "another view": (
        lambda: {"depth": millimetres(DEPTH[:, :200])},
        "the depth image 200x300, which cannot be the same view",
    ),
    "colour as depth": (lambda: {"depth": to_message(COLOR, "rgb8", Header())}, "'rgb8'"),
    "ends early": (lambda: {"depth": other(millimetres(), data=array("B", b"12"))}, "ends early"),
    "huge": (lambda: {"depth": other(millimetres(), width=2**31)}, "input.max_pixels"),
    "not registered": (
        lambda: {"depth": other(millimetres(), header=Header(frame_id="depth_optical"))},
        "'depth_optical': use the depth image that is registered",
    ),
    "no focal length": (
        lambda: {
            "depth": millimetres(),
            "info": CameraInfo(width=WIDTH, height=HEIGHT),
        },
        "no intrinsics",
    ),
    "unknown lens": (
        lambda: {
            "depth": millimetres(),
            "info": CameraInfo(k=K, distortion_model="fisheye9", d=[0.1] * 4),
        },
        "fisheye9",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_without_usable_depth_the_mask_stands_and_says_why(camera, name):
    make, words = BAD[name]
    result = camera.ask(**make())
    assert result.status == Status.OK
    [one] = result.instances
    assert words in one.pose_reason, one.pose_reason
    assert not one.has_pose and one.area == (SEEN == 0).sum() and len(one.mask.data)
    assert one.size.x == one.points == one.pose.pose.position.z == 0
    assert result.timings.geometry > 0
    check_is_the_thing(camera.ask(depth=millimetres()).instances[0])


def test_the_image_of_a_goal_has_not_the_camera_s_depth(camera):
    camera.ask(depth=millimetres())
    client = SegmentClient(camera.robot)
    _, result = client.ask("it", image=image_message(COLOR))
    assert "came with the question" in result.instances[0].pose_reason
    wait_for(lambda: client.feedback, "the progress")
    assert "once the answer is complete" in client.feedback[0].instances[0].pose_reason


def test_the_depth_image_that_a_goal_brings_along(camera):
    """Whatever the camera shows meanwhile, and whatever the stamps are."""
    camera.ask(depth=millimetres(2 * DEPTH))
    own = {"image": image_message(COLOR), "depth": millimetres(), "camera_info": INFO}
    client = SegmentClient(camera.robot)
    _, result = client.ask("it", **own)
    check_is_the_thing(result.instances[0])
    assert result.instances[0].pose.header == own["image"].header
    del own["camera_info"]
    reason = client.ask("it", **own)[1].instances[0].pose_reason
    assert "no camera_info" in reason and "fill the goal's camera_info" in reason
    matrix = CameraInfo(k=INFO.k)
    for alone in ({"depth": millimetres()}, {"camera_info": INFO}, {"camera_info": matrix}):
        _, refused = client.ask("it", **alone)
        assert refused.status == Status.REJECTED and "no image" in refused.error
    for size in ({"width": 64}, {"height": 48}):  # and no data: not silently the camera's
        _, refused = client.ask("it", image=Image(encoding="rgb8", **size))
        assert refused.status == Status.REJECTED and "image" in refused.error, refused.error


def test_what_is_published_about_the_object(camera):
    with listening(camera.robot) as heard:
        depth = metres()
        result = camera.ask(depth=depth, away=0.03)

        def complete() -> dict[str, Any] | None:
            last = {name: messages[-1] for name, messages in heard.items() if messages}
            done = len(last) == len(HEARD) and all(
                one.header == result.header for one in last.values() if hasattr(one, "header")
            )
            return last if done else None

        got = wait_for(complete, f"all of {', '.join(HEARD)} with the header of the image")
    points = np.frombuffer(got["points"].data, XYZRGB)
    assert len(points) == got["points"].width == result.instances[0].points
    assert {int(color) for color in points["rgb"].view(np.uint32)} == {0xC86432}
    place = np.stack([points[axis] for axis in "xyz"], axis=1)
    assert np.linalg.norm(place - SCENE.thing.center, axis=1).max() < 0.08
    rest = np.frombuffer(got["scene/points"].data, XYZRGB)
    rest = np.stack([rest[axis] for axis in "xyz"], axis=1)
    assert len(rest) > 50_000
    assert (np.abs(rest @ SCENE.up - SCENE.table.offset) < 1e-3).all(), "the table and nothing else"
    assert bytes(got["input/depth"].data) == bytes(depth.data)
    assert list(got["input/camera_info"].k) == K
    assert bytes(got["input/image"].data) == COLOR.tobytes()
    kinds = [one.type for one in got["markers"].markers[1:]]
    assert got["markers"].markers[0].action == Marker.DELETEALL
    assert kinds == [Marker.CUBE, Marker.LINE_LIST, Marker.TEXT_VIEW_FACING]
    check_grasps(got["grasps"], got["grasps/scores"], result.query_id)


def check_grasps(poses: PoseArray, scores: Float32MultiArray, query_id: str) -> None:
    rows, columns = scores.layout.dim
    assert (rows.label, rows.size) == (query_id, len(poses.poses)) and rows.size > 0
    assert columns.label == "score,width,instance"
    table = np.array(scores.data).reshape(rows.size, columns.size)
    assert (np.diff(table[:, 0]) <= 0).all() and 0 < table[0, 0] <= 1
    assert (np.abs(table[:, 1] - 0.06) < 0.005).any() and (table[:, 2] == 1).all()
    best = poses.poses[0].position
    assert np.linalg.norm(np.array([best.x, best.y, best.z]) - SCENE.thing.center) < 0.06


def test_grasps_are_for_the_hand_of_the_parameter(camera):
    """Changed while the node runs: a cup on the top face of the cuboid, and fingers again."""
    with (
        camera.robot.hearing(PoseArray, "grasps") as poses,
        camera.robot.hearing(Float32MultiArray, "grasps/scores") as scores,
    ):
        for hand in ("suction", "parallel"):
            assert camera.robot.set(grasp__hand=hand).successful
            poses.clear(), scores.clear()
            result = camera.ask(depth=metres())
            wait_for(
                lambda one=result: poses and scores and poses[-1].header == one.header, "grasps"
            )
            if hand == "parallel":
                check_grasps(poses[-1], scores[-1], result.query_id)
            else:
                check_cup(poses[-1], scores[-1], result.query_id)


def test_why_there_are_no_grasps_is_said(camera):
    robot = camera.robot
    assert camera.ask(depth=metres()).instances[0].grasps_reason == "", "nobody listens"
    with robot.hearing(PoseArray, "grasps") as poses:
        assert robot.set(grasp__opening=0.03).successful
        result = camera.ask(depth=metres())
        wait_for(lambda: poses and poses[-1].header == result.header, "an empty list of grasps")
        reason = result.instances[0].grasps_reason
        assert not poses[-1].poses and result.timings.grasps > 0
        assert "m wide where it is narrowest, and the hand opens 0.03 m (grasp.opening)" in reason
        assert robot.set(grasp__opening=0.08).successful
        reason = camera.ask().instances[0].grasps_reason
        assert reason.startswith("its place in space is not known: no depth image")
        assert camera.ask(depth=metres()).instances[0].grasps_reason == ""


def test_everything_has_a_frame_also_when_there_is_nothing_in_it(camera):
    """MoveIt, nav2 and RViz refuse a cloud, a list of poses or a marker without one."""
    for words, given in (("nothing", {"depth": millimetres()}), ("it", {}), ("nothing", {})):
        with listening(camera.robot) as heard:
            result = camera.ask(words, **given)
            names = ("points", "scene/points", "grasps", "markers")
            wait_for(lambda: all(heard[name] for name in names), "all topics")  # noqa: B023
            markers = heard["markers"][-1].markers
            headers = [heard[name][-1].header for name in names[:3]]
            assert [one.header for one in markers] == [result.header], "it takes the others away"
        assert headers == [result.header] * 3 and result.header.frame_id == FRAME


def check_cup(poses: PoseArray, scores: Float32MultiArray, query_id: str) -> None:
    rows, columns = scores.layout.dim
    assert (rows.label, rows.size) == (query_id, len(poses.poses)) and rows.size > 0
    table = np.array(scores.data).reshape(rows.size, columns.size)
    assert (table[:, 1] == 0).all(), "a cup has no width between fingers"
    best, turn = poses.poses[0].position, poses.poses[0].orientation
    place = np.array([best.x, best.y, best.z]) - SCENE.thing.center
    assert abs(place @ SCENE.up - SCENE.thing.size[2] / 2) < 0.005, "on the top face"
    approach = np.array(
        [
            2 * (turn.x * turn.z + turn.w * turn.y),
            2 * (turn.y * turn.z - turn.w * turn.x),
            1 - 2 * (turn.x**2 + turn.y**2),
        ]
    )
    assert approach @ SCENE.up < -0.98, "from above"


def test_an_answer_without_objects_empties_what_was_shown(camera):
    with listening(camera.robot) as heard:
        result = camera.ask("nothing", depth=millimetres())
        wait_for(lambda: all(heard.values()), "all topics")
        last = {name: messages[-1] for name, messages in heard.items()}
    assert result.status == Status.NOT_FOUND
    assert last["points"].width == len(last["grasps"].poses) == 0
    assert last["scene/points"].width == DEPTH.size
    assert [one.action for one in last["markers"].markers] == [Marker.DELETEALL]


def test_the_simulator_s_truth(tmp_path):
    """What SimCamera publishes, with the exact mask: box and centroid where the object stands."""
    if find_spec("mujoco") is None:
        pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]")
    from lisa_tabletop.ros.camera_node import camera_info, depth_message

    view = simulated_view(9_100_001)
    whole = [one for one in view.record["objects"] if one["visible"] > 0.98]
    truth = max(whole, key=lambda one: one["size"][2])
    np.save(tmp_path / "masks.npy", (view.instances == truth["id"])[None])
    with rig() as robot:
        robot.start("-p", f"model.path:=masks:{tmp_path / 'masks.npy'}")
        camera = DepthCamera(robot)
        info = camera_info(view, Header())
        [one] = camera.ask(
            depth=depth_message(view.depth, Header()), info=info, image=view.rgb
        ).instances
    assert one.has_pose, one.pose_reason
    middle, turn, size = one.pose.pose.position, one.pose.pose.orientation, one.size
    box = rigid([middle.x, middle.y, middle.z], [turn.x, turn.y, turn.z, turn.w])
    in_table = view.camera_pose @ box
    assert np.allclose(in_table[:3, 3], truth["position"], atol=0.01)
    assert in_table[2, 2] > 0.99, "the box stands upright on the table"
    extent = np.abs(in_table[:3, :3]) @ [size.x, size.y, size.z]
    assert abs(extent[2] - truth["size"][2]) < 0.005 + 0.08 * truth["size"][2]


def simulated_view(seed: int) -> Any:
    import lisa_tabletop  # noqa: F401  (chooses how MuJoCo draws, before it is imported)
    from lisa_tabletop.world.camera import TabletopCamera
    from lisa_tabletop.world.tabletop import Tabletop

    try:
        camera = TabletopCamera(Tabletop(seed))
    except LisaError as error:
        pytest.skip(str(error))
    camera.move(np.random.default_rng((seed, 1)))
    view = camera.look()
    camera.close()
    return view
