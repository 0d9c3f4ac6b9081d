"""The simulated pick over ROS 2: a node in a process of its own sees and says where to grasp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

import rclpy
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Vector3
from lisa_ros.msg import Instance, Segmentation
from node_rig import FAKE, Process
from pick_scenes import about, graspable_scene, seen
from sensor_msgs.msg import Image as MaskImage
from sensor_msgs.msg import RegionOfInterest
from std_msgs.msg import Header

from lisa_ros.geometry import Grasp, rigid
from lisa_ros.node.client import NoAnswer, claimed_domain
from lisa_ros.node.results.messages import grasp_messages
from lisa_ros.node.status import Status
from lisa_tabletop.pick.trial import PickOutcome, run_trial
from lisa_tabletop.ros.robot import DEPTH, HAND, IMAGE, INFO, SimRobot


@contextmanager
def robot(*arguments: str, **limits: float) -> Iterator[SimRobot]:
    """A robot, and the node that it asks, in a ROS domain of their own."""
    topics = {"image": IMAGE, "depth": DEPTH, "camera_info": INFO}
    remapped = [word for name, topic in topics.items() for word in ("-r", f"{name}:={topic}")]
    with claimed_domain() as domain:
        node = Process([*FAKE, "--ros-args", *remapped, *arguments], domain)
        rclpy.init(domain_id=domain)
        try:
            robot = SimRobot(**limits)
            robot.wait_for_node()
            yield robot
            robot.destroy_node()
        finally:
            rclpy.try_shutdown()
            node.stop()


def knowing(masks: list[np.ndarray], folder: Path) -> tuple[str, str]:
    """Arguments of a node that answers with these masks."""
    np.save(folder / "masks.npy", masks)
    return "-p", f"model.path:=masks:{folder / 'masks.npy'}"


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_the_answer_names_first_is_lifted_by_the_grasps_of_the_node(
    order: tuple[int, int], tmp_path: Path
) -> None:
    scene = graspable_scene()
    view = seen(scene)
    masks = [view.instances == scene.table.items[number].id for number in order]
    question = about(scene, order[0])
    with robot(*knowing(masks, tmp_path), *HAND) as asking:
        absent = question | {"instruction": "nothing", "targets": [], "type": "absent"}
        assert run_trial(scene, view, absent, asking).outcome is PickOutcome.REFUSED
        lifted = run_trial(scene, view, question, asking)
    assert lifted.outcome is PickOutcome.LIFTED, lifted.reason
    assert lifted.overlap == 1.0 and lifted.answer == "Sure, it is here."
    assert 0 < lifted.answer_seconds < 60


def test_where_the_node_gives_no_grasp_the_hand_does_not_move(tmp_path: Path) -> None:
    scene = graspable_scene()
    view = seen(scene)
    before = scene.table.data.time
    masks = [view.instances == scene.table.items[0].id]
    with robot(*knowing(masks, tmp_path), "-p", "grasp.opening:=0.02") as asking:
        trial = run_trial(scene, view, about(scene, 0), asking)
    assert trial.outcome is PickOutcome.MISSED and "too large" in trial.reason
    assert scene.table.data.time == before


def test_an_object_that_the_node_cannot_place_has_its_reason(tmp_path: Path) -> None:
    scene = graspable_scene()
    view = seen(scene)
    speck = np.zeros(view.instances.shape, bool)
    speck[240:243, 320:323] = True
    with robot(*knowing([speck], tmp_path), *HAND) as asking:
        trial = run_trial(scene, view, about(scene, 0), asking)
    assert trial.outcome is PickOutcome.MISSED and "30 are needed" in trial.reason


def test_a_node_that_says_nothing_is_given_up_with_a_sentence() -> None:
    scene = graspable_scene()
    view = seen(scene)
    question = about(scene, 0) | {"instruction": "deaf stall:20"}
    sentence = "no answer to 'deaf stall:20' on /lisa/mask within 1.5 s"
    with robot(answer_limit=1.5) as asking, pytest.raises(NoAnswer, match=sentence):
        asking.reply_to(view, question)


def test_the_grasps_are_those_of_the_thing_and_the_image_that_were_asked_about(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = graspable_scene()
    view = seen(scene)
    monkeypatch.setattr("lisa_tabletop.ros.robot.SETTLE", 0.0)
    grasps = [
        Grasp(rigid((x, 0.0, 0.5), (0, 0, 0, 1)), 0.05, 0.5, "front") for x in (0.1, 0.2, 0.3)
    ]
    asked = {}

    def answer(instruction: str, *, newer_than: int, seconds: float) -> Segmentation:
        asked.update(instruction=instruction, newer_than=newer_than)
        old, new = (Header(stamp=Time(sec=sec)) for sec in (1, 2))
        for header, query in ((old, "6"), (new, "6"), (new, "7")):
            found = [(1, grasps[0]), (2, grasps[1]), (2, grasps[2])]
            poses, scores = grasp_messages(found[: 3 if query == "7" else 1], header, query)
            robot._grasps += [poses] if header is old or query == "7" else []
            robot._scores.append(scores)
        mask = MaskImage(height=1, width=1, step=1, data=[255], encoding="mono8")
        roi, size = RegionOfInterest(height=1, width=1), Vector3(x=0.1, y=0.05, z=0.04)
        first = Instance(id=2, mask=mask, roi=roi, has_pose=True, size=size)
        return Segmentation(
            header=new, query_id="7", status=Status.OK, height=480, width=640, instances=[first]
        )

    with claimed_domain() as domain:
        rclpy.init(domain_id=domain)
        try:
            robot = SimRobot()
            robot.ask = answer
            before = robot.get_clock().now().nanoseconds
            reply = robot.reply_to(view, about(scene, 0))
            robot.destroy_node()
        finally:
            rclpy.try_shutdown()
    assert asked["newer_than"] >= before, "an image of the scene before would have been taken"
    places = [view.camera_pose @ grasp.pose for grasp in grasps[1:]]
    assert np.allclose([grasp.pose for grasp in reply.target.grasps], places)
    assert reply.target.size.tolist() == pytest.approx([0.1, 0.05, 0.04])
