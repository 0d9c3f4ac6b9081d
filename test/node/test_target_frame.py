"""Objects in another frame than the camera's, by tf2 at the stamp of the image."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from depth_rig import FRAME, SCENE, DepthCamera, listening, millimetres
from node_rig import FAKE, ROOT, rig, wait_for
from std_msgs.msg import Header

from lisa_ros.geometry import XYZRGB
from lisa_ros.node.status import Status

TF2 = '''
"""A stand-in: the camera is a metre above the table's frame and looks straight down."""
import json
from types import SimpleNamespace

class TransformException(Exception):
    pass

class Buffer:
    def lookup_transform(self, target, source, time):
        if target != "base":
            raise TransformException(f'"{target}" passed to lookupTransform does not exist')
        names = dict(stamp=time.nanoseconds, source=source)
        print("asked", json.dumps(names), flush=True)
        vector = SimpleNamespace(x=0.5, y=0.0, z=1.0)
        turn = SimpleNamespace(x=1.0, y=0.0, z=0.0, w=0.0)
        return SimpleNamespace(transform=SimpleNamespace(translation=vector, rotation=turn))

class TransformListener:
    def __init__(self, buffer, node, *, spin_thread):
        assert not spin_thread
    def unregister(self):
        print("tf2 let go", flush=True)
'''


def with_tf2(folder) -> list[str]:
    """The command of a node beside which a stand-in of tf2_ros is installed."""
    (folder / "tf2_ros.py").write_text(TF2)
    paths = [str(ROOT), str(folder), os.environ.get("PYTHONPATH", "")]
    return ["env", f"PYTHONPATH={os.pathsep.join(filter(None, paths))}", *FAKE]


def test_a_target_frame(masks, tmp_path):
    command = with_tf2(tmp_path)
    with rig() as robot:
        values = ("-p", masks, "-p", "target_frame:=base", "-p", "depth.box:=support")
        process = robot.start("--ros-args", *values, command=command)
        camera = DepthCamera(robot)
        with listening(robot) as heard:
            result = camera.ask(depth=millimetres())
            wait_for(lambda: all(heard.values()), "all topics")
        [one] = result.instances
        middle, thing = one.pose.pose.position, SCENE.thing.center
        assert one.pose.header == Header(frame_id="base", stamp=result.header.stamp)
        expected = np.array([0.5, 0.0, 1.0]) + thing * [1, -1, -1]
        assert np.allclose([middle.x, middle.y, middle.z], expected, atol=0.002)
        for name in ("points", "scene/points", "markers", "grasps"):
            last = heard[name][-1]
            header = last.markers[-1].header if name == "markers" else last.header
            assert header.frame_id == "base", name
        assert heard["input/depth"][-1].header.frame_id == FRAME
        points = np.frombuffer(heard["points"][-1].data, XYZRGB)
        assert abs(points["z"].mean() - one.centroid.z) < 1e-4
        asked = json.loads(process.log.split("asked ")[-1].splitlines()[0])
        stamp = result.header.stamp
        assert asked == {"stamp": stamp.sec * 10**9 + stamp.nanosec, "source": FRAME}
        process.stop()
        assert "tf2 let go" in process.log and "Traceback" not in process.log


def test_a_target_frame_that_tf_does_not_know(masks, tmp_path):
    with rig() as robot:
        values = ("--ros-args", "-p", masks, "-p", "target_frame:=moon")
        robot.start(*values, command=with_tf2(tmp_path))
        result = DepthCamera(robot).ask(depth=millimetres())
        reason = result.instances[0].pose_reason
        assert "no transform from 'camera_optical' to 'moon' at the stamp" in reason
        assert '"moon" passed to lookupTransform does not exist' in reason


@pytest.mark.skipif(find_spec("tf2_ros") is not None, reason="tf2_ros is installed here")
def test_a_target_frame_without_tf2(masks):
    with rig() as robot:
        process = robot.start("-p", masks, "-p", "target_frame:=base", ready=False)
        wait_for(lambda: "cannot configure" in process.log, "the refusal")
        assert "tf2_ros cannot be imported" in process.log and "tf2-ros-py" in process.log
        assert robot.ask("it").status == Status.NOT_READY
        assert "tf2_ros" in robot.results[-1].error


def test_upright_along_a_frame_that_is_not_named(masks):
    with rig() as robot:
        process = robot.start("-p", masks, "-p", "depth.box:=target_frame", ready=False)
        wait_for(lambda: "no target_frame is set" in process.log, "the refusal")
