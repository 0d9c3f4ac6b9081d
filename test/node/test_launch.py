"""The launch file, where a ROS installation brings launch along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("launch_ros", reason="launch_ros is part of a ROS installation, not found here")
pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from node_rig import ROOT, WAIT, Rig, wait_for
from rcl_interfaces.srv import GetParameters

from lisa_ros.node.client import claimed_domain
from lisa_ros.node.status import Status

LAUNCH = ROOT / "launch" / "perception.launch.py"
RUN = """
import sys
from launch import LaunchService
from launch.actions import GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch import LaunchDescription
service = LaunchService()
for line in sys.argv[2:]:
    arguments = [tuple(one.split(":=")) for one in line.split()]
    source = PythonLaunchDescriptionSource(sys.argv[1])
    node = IncludeLaunchDescription(source, launch_arguments=arguments)
    # without a group of its own the next one would take this one's arguments
    group = GroupAction([node], scoped=True, forwarding=False)
    service.include_launch_description(LaunchDescription([group]))
sys.exit(service.run())
"""


class Launched:
    """A launch process whose `lisa-ros` is the node with the fake engine."""

    def __init__(self, folder: Path, domain: int, *lines: str) -> None:
        prefix = folder / "prefix"
        index = prefix / "share/ament_index/resource_index/packages"
        executable = prefix / "lib/lisa_ros/lisa-ros"
        for one in (index, executable.parent):
            one.mkdir(parents=True)
        (index / "lisa_ros").touch()
        fake = ROOT / "test/fake_engine.py"
        executable.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" "{fake}" "$@"\n')
        executable.chmod(0o755)
        self.log = folder / "launch.txt"
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        variables = os.environ | {
            "AMENT_PREFIX_PATH": f"{prefix}:{os.environ.get('AMENT_PREFIX_PATH', '')}",
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "ROS_DOMAIN_ID": str(domain),
            "ROS_LOG_DIR": str(folder),
        }
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, str(LAUNCH), *lines],
                env=variables,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self) -> int:
        """As ctrl-C in a terminal does it: the whole group gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)
        try:
            return self.process.wait(WAIT)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"launch does not end:\n{self.text}") from None


@pytest.fixture
def domain():
    with claimed_domain() as number:
        yield number


def test_two_robots_side_by_side(tmp_path, domain):
    """Each hears its own voice alone and looks through its own camera."""
    robots = [Rig(domain, "robot1"), Rig(domain, "robot2")]
    launched = Launched(
        tmp_path,
        domain,
        "namespace:=robot1 image:=/robot1/image model:=one"
        " depth:=/robot1/depth/compressedDepth camera_info:=/robot1/depth/camera_info",
        "namespace:=robot2 image:=/robot2/image model:=two vision_tower:=/clip log_level:=debug",
    )
    try:
        for robot in robots:
            wait_for(robot.voice.get_subscription_count, "the node")
            wait_for(robot.mask.get_publisher_count, "the node")
        wait_for(lambda: launched.text.count("activate: done") == 2, "both to be active")
        robots[0].film()
        robots[1].film()
        for robot in robots:
            wait_for(lambda one=robot: one.ask("hello").status == Status.OK, "an answer")
        heard = len(robots[1].results)
        robots[0].ask("only for the first")
        assert len(robots[1].results) == heard
        names = ["model.path", "model.vision_tower", "autostart", "use_sim_time"]
        request = GetParameters.Request(names=names)
        got = robots[1].call(GetParameters, "/robot2/perception/get_parameters", request)
        path, tower, autostart, sim_time = got.values
        assert (path.string_value, tower.string_value) == ("two", "/clip")
        assert autostart.bool_value and not sim_time.bool_value
        for topic in ("depth/compressedDepth", "depth/camera_info"):
            assert robots[0].node.count_subscribers(f"/robot1/{topic}") == 1
    finally:
        code = launched.stop()
        for robot in robots:
            robot.close()
    assert code == 0, launched.text
    assert "Traceback" not in launched.text and "failed to terminate" not in launched.text


def test_respawn_and_compressed_camera(tmp_path, domain):
    robot = Rig(domain)
    launched = Launched(tmp_path, domain, "image:=/camera/compressed use_respawn:=true")
    try:
        wait_for(lambda: "activate: done" in launched.text, "the node to be active")
        assert "images from /camera/compressed" in launched.text
        [process] = _children(launched.process.pid)
        os.kill(process, signal.SIGKILL)
        wait_for(lambda: launched.text.count("activate: done") == 2, "the node to come back")
        wait_for(robot.voice.get_subscription_count, "the node")
        wait_for(robot.mask.get_publisher_count, "the node")
        assert robot.ask("hello").status == Status.NO_IMAGE
    finally:
        launched.stop()
        robot.close()


def _children(process: int) -> list[int]:
    text = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(word) for word in text.split()]
