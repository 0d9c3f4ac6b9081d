"""`lisa-ros sim`: what people see first is a table that the shipped model answers well."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

from lisa_ros import load_engine
from lisa_ros.cli import main
from lisa_ros.errors import LisaError
from lisa_tabletop.cli.sim import SEED
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.world.camera import SceneView, TabletopCamera
from lisa_tabletop.world.tabletop import Tabletop


@pytest.fixture(scope="module")
def default_view() -> SceneView:
    try:
        camera = TabletopCamera(Tabletop(SEED))
    except LisaError as error:
        pytest.skip(str(error))
    camera.move(np.random.default_rng((SEED, 1)))
    view = camera.look()
    camera.close()
    return view


def test_at_least_four_of_five_plain_questions_about_the_default_table_are_answered_right(
    default_view: SceneView,
) -> None:
    engine = load_engine("nano")
    right = []
    for split in ("train", "test"):  # sentences that the model was trained on, and others
        random = np.random.default_rng(0)
        plain = {"types": {"plain": 1.0}, "forms": {"name": 1.0}}
        for question in compose(default_view.record, random, 5, split, **plain):
            answer = engine.segment(default_view.rgb, question["instruction"], key=SEED)
            meant = np.isin(default_view.instances, question["targets"])
            found = np.any([one.mask for one in answer.instances] or [meant & False], axis=0)
            right.append((meant & found).sum() > 0.5 * (meant | found).sum())
    assert len(right) == 10
    assert sum(right) >= 8, right


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rate", "0"), "--rate must be from 0.001 to 1000, it is 0\n"),
        (("--seed", "-1"), "--seed must be at least 0, it is -1"),
    ],
)
def test_arguments_that_cannot_be_meant(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", *arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_signal_while_the_camera_publishes_ends_it_in_silence(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """At a high rate SIGTERM finds it there, and not in the wait of `spin`."""
    pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")
    import rclpy.node
    from std_msgs.msg import String

    class Camera(rclpy.node.Node):
        def __init__(self, seed: int, rate: float) -> None:
            super().__init__("sim_camera")
            publisher = self.create_publisher(String, "image", 1)

            def publish() -> None:
                rclpy.shutdown()  # as rclpy's own thread does on a signal
                publisher.publish(String())

            self.create_timer(1 / rate, publish)

    monkeypatch.setattr("lisa_tabletop.ros.camera_node.SimCamera", Camera)
    assert main(["sim", "--rate", "1000"]) == 0
    assert capfd.readouterr().err == ""


class Recorder:
    """In place of a node: its clock goes on with every look, its publishers keep what they get."""

    def __init__(self) -> None:
        self.sent: dict[str, object] = {}
        self.looks = 0

    def get_clock(self) -> Recorder:
        return self

    def now(self) -> Recorder:
        self.looks += 1
        return self

    def to_msg(self) -> object:
        from builtin_interfaces.msg import Time

        return Time(sec=self.looks)

    def create_publisher(self, kind: type, topic: str, depth: int) -> object:
        return SimpleNamespace(publish=lambda message: self.sent.update({topic: message}))


def test_colour_depth_and_intrinsics_belong_together_and_are_those_of_the_view(
    default_view: SceneView,
) -> None:
    pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")
    from lisa_tabletop.ros.camera_node import ViewPublisher

    node = Recorder()
    depth = default_view.depth.copy()
    depth[0, :3] = 65.4, 66.0, 0.0016  # beyond what 16 bits hold, and what a cut would make 1 mm
    ViewPublisher(node).publish(replace(default_view, depth=depth))
    image, deep, info = (
        node.sent[f"/camera/{topic}"] for topic in ("image_raw", "depth/image_raw", "camera_info")
    )
    assert image.header == deep.header == info.header
    assert image.header.frame_id
    assert (info.height, info.width, info.distortion_model) == (480, 640, "plumb_bob")
    assert np.array_equal(np.reshape(info.k, (3, 3)), default_view.intrinsics)
    assert np.array_equal(np.reshape(info.p, (3, 4))[:, :3], default_view.intrinsics)
    pixels = np.frombuffer(image.data, np.uint8).reshape(480, 640, 3)
    assert image.encoding == "rgb8" and np.array_equal(pixels, default_view.rgb)
    millimetres = np.frombuffer(deep.data, np.uint16).reshape(480, 640)
    assert deep.encoding == "16UC1" and millimetres[0, :3].tolist() == [0, 0, 2]
    near = default_view.depth[1:] < 65
    error = np.abs(millimetres[1:] / 1000 - default_view.depth[1:])[near]
    assert error.max() <= 0.00051
