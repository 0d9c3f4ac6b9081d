"""Records the demonstration's tabletop camera from the simulator.

    python -m benchmarks.record_demo OUT.mcap

Takes a few pictures of every scene in questions.yaml while the camera swings around the table. The
scenes' seeds begin at 9,000,000: training draws below 5,000,000 and the evaluation from 8,000,000.
"""

# ruff: noqa: I001  lisa_tabletop comes before mujoco

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import cv2
import lisa_tabletop  # noqa: F401  chooses how MuJoCo draws, which is settled at its import
import mujoco
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from lisa_ros.demo.recorded_camera import CAMERA_INFO, IMAGE, SCENE, TRUTH, read_questions
from lisa_tabletop.world.camera import TabletopCamera, View
from lisa_tabletop.world.tabletop import Tabletop

FRAMES = 8  # pictures per scene
SWING = np.deg2rad(6.0)  # around the middle of the table, from the first picture to the last
PERIOD = 100_000_000  # nanoseconds from picture to picture
JPEG_QUALITY = 92
OPTICAL_FRAME = "camera_color_optical_frame"


class Recorder:
    """Writes messages of the camera into a bag with one clock."""

    def __init__(self, writer: Writer) -> None:
        self.types = get_typestore(Stores.ROS2_JAZZY)
        self.writer = writer
        self.time = 1_000_000_000
        names = {IMAGE: "CompressedImage", TRUTH: "CompressedImage", CAMERA_INFO: "CameraInfo"}
        kinds = {topic: f"sensor_msgs/msg/{name}" for topic, name in names.items()}
        kinds[SCENE] = "std_msgs/msg/String"
        self.connections = {
            topic: writer.add_connection(topic, kind, typestore=self.types)
            for topic, kind in kinds.items()
        }

    def write(self, topic: str, **fields: Any) -> None:
        """Write one message, given by its fields, at the present time of the recording."""
        connection = self.connections[topic]
        message = self.types.types[connection.msgtype](**fields)
        data = self.types.serialize_cdr(message, connection.msgtype)
        self.writer.write(connection, self.time, data)

    def header(self) -> Any:
        """Header of the camera's messages at the present time of the recording."""
        stamp = self.types.types["builtin_interfaces/msg/Time"](*divmod(self.time, 10**9))
        return self.types.types["std_msgs/msg/Header"](stamp=stamp, frame_id=OPTICAL_FRAME)

    def take(self, view: View) -> None:
        """Write one picture with its intrinsics and its true instances."""
        header = self.header()
        quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR), quality)[1].ravel()
        png = cv2.imencode(".png", view.instances)[1].ravel()
        self.write(IMAGE, header=header, format="rgb8; jpeg compressed bgr8", data=jpeg)
        self.write(TRUTH, header=header, format="mono8; png compressed", data=png)
        self.write(CAMERA_INFO, header=header, **self.intrinsics(view))
        self.time += PERIOD

    def intrinsics(self, view: View) -> dict[str, Any]:
        """The fields of a CameraInfo beside its header: a pinhole without distortion."""
        height, width = view.instances.shape
        region = self.types.types["sensor_msgs/msg/RegionOfInterest"]
        return {
            "height": height,
            "width": width,
            "distortion_model": "plumb_bob",
            "d": np.zeros(5),
            "k": view.intrinsics.ravel(),
            "r": np.eye(3).ravel(),
            "p": np.hstack([view.intrinsics, np.zeros((3, 1))]).ravel(),
            "binning_x": 0,
            "binning_y": 0,
            "roi": region(x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
        }


def swing(scene: Tabletop, angle: float) -> None:
    """Turn the camera around the table's middle by an angle in radians."""
    turn = np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])
    model = scene.model
    place, pose = np.zeros(3), np.zeros(4)
    mujoco.mju_rotVecQuat(place, model.cam_pos[0], turn)
    mujoco.mju_mulQuat(pose, turn, model.cam_quat[0])
    model.cam_pos[0], model.cam_quat[0] = place, pose
    mujoco.mj_forward(model, scene.data)


def open_scene(seed: int) -> TabletopCamera:
    """The camera over the table of that seed, where its swing begins."""
    camera = TabletopCamera(Tabletop(seed))
    camera.move(np.random.default_rng((seed, 1)))
    return camera


def record(path: Path, seeds: list[int]) -> None:
    """Write a recording of these scenes to an MCAP file; an existing one is replaced."""
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "tabletop"
        with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            recorder = Recorder(writer)
            for seed in seeds:
                camera = open_scene(seed)
                recorder.write(SCENE, data=str(seed))
                for _ in range(FRAMES):
                    recorder.take(camera.look())
                    swing(camera.scene, SWING / (FRAMES - 1))
                camera.close()
        shutil.copyfile(bag / "tabletop.mcap", path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="MCAP file to write")
    path = parser.parse_args().out
    seeds = list(dict.fromkeys(question.seed for question in read_questions()))
    record(path, seeds)
    print(f"{path}: {len(seeds)} scenes, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
