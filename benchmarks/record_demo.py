"""Draws the demonstration's questions, and records the simulated camera that they are about.

    python -m benchmarks.record_demo lisa_ros/demo

Writes questions.yaml and tabletop.mcap. One question of every kind in `KINDS` is drawn by a seed,
in sentences that only the test asks, and so are all tables but the first; no answer of any model is
looked at. The camera takes a few images of every scene while it swings around the table. The
scenes' seeds begin at 9,000,000: training draws below 5,000,000, the evaluation from 8,000,000.
"""

# ruff: noqa: I001  lisa_tabletop comes before mujoco

from __future__ import annotations

import argparse
import shutil
import tempfile
from array import array
from pathlib import Path
from typing import Any

import cv2
import lisa_tabletop  # noqa: F401  chooses how MuJoCo draws, which is settled at its import
import mujoco
import numpy as np
import yaml
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header, String

from lisa_ros.demo.recorded_camera import (
    CAMERA_INFO,
    IMAGE,
    QUESTIONS,
    RECORDING,
    SCENE,
    TRUTH,
    DemoQuestion,
)
from lisa_ros.writing import writable_file, write_file, written_beside
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.ros.camera_node import FRAME, camera_info
from lisa_tabletop.world.camera import TabletopCamera, SceneView
from lisa_tabletop.world.tabletop import Tabletop

SEED = 0
SCENES = range(9_000_000, 9_001_000)
FIRST = 9_000_001  # the first table stays the same: examples and reports of faults show it
# words for people, type of question, form of answer; neighbours of one line share a scene
KINDS = (
    (("plain", "plain", "name"), ("known kind, absent", "absent", "name")),
    (("use, with the reason", "use", "explain"), ("unheard of", "unheard", "name")),
    (("attribute", "attribute", "name"), ("plural", "plural", "name")),
    (("relation", "relation", "name"), ("words only", "text", "name")),
    (("use", "use", "name"), ("two steps", "two_hop", "name")),
    (("use, mask only", "use", "mask"), ("plain", "plain", "name")),
)
FRAMES = 8  # images per scene
HEAD = """\
# What the demonstration asks, scene by scene. `seed` is the scene's number in the recording;
# `status` is what a right answer has; `objects` are the meant objects by their value in the
# recording's images of true instances. Drawn at random by `python -m benchmarks.record_demo`;
# neither the scenes nor the sentences were in the training.
"""
SWING = np.deg2rad(6.0)  # around the middle of the table, from the first image to the last
PERIOD = 100_000_000  # nanoseconds from image to image
JPEG_QUALITY = 92


def draw_questions(random: np.random.Generator) -> list[DemoQuestion]:
    """Questions about scenes drawn at random, each scene's one after another."""
    questions = []
    for kinds in KINDS:
        drawn: list[DemoQuestion] = []
        while len(drawn) < len(kinds):  # not every table has an answer of every kind
            seed = int(random.choice(SCENES)) if questions else FIRST
            camera = TabletopCamera(Tabletop(seed))
            camera.move(np.random.default_rng((seed, 1)))
            record = camera.look().record
            camera.close()
            drawn = [
                _question(seed, words, asked[0])
                for words, type_, form in kinds
                if (
                    asked := compose(
                        record,
                        random,
                        1,
                        "test",
                        types={type_: 1.0},
                        forms={form: 1.0},
                        whole_frame=True,
                    )
                )
            ]
        questions += drawn
    return questions


def _question(seed: int, kind: str, question: dict[str, Any]) -> DemoQuestion:
    missing = "TEXT_ONLY" if question["form"] == "text" else "NOT_FOUND"
    targets = tuple(question["targets"])
    status = "OK" if targets else missing
    return DemoQuestion(seed, kind, question["instruction"], status, targets)


def as_yaml(questions: list[DemoQuestion]) -> str:
    """questions.yaml, scene by scene."""
    scenes: dict[int, list[dict[str, Any]]] = {}
    for question in questions:
        entry = {"kind": question.kind, "instruction": question.instruction}
        entry |= {"status": question.status}
        entry |= {"objects": list(question.objects)} if question.objects else {}
        scenes.setdefault(question.seed, []).append(entry)
    data = [{"seed": seed, "questions": entries} for seed, entries in scenes.items()]
    return HEAD + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=120)


def swing(scene: Tabletop, angle: float) -> None:
    """Turn the camera around the table's middle by an angle in radians."""
    turn = np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])
    model = scene.model
    place, pose = np.zeros(3), np.zeros(4)
    mujoco.mju_rotVecQuat(place, model.cam_pos[0], turn)
    mujoco.mju_mulQuat(pose, turn, model.cam_quat[0])
    model.cam_pos[0], model.cam_quat[0] = place, pose
    mujoco.mj_forward(model, scene.data)


def messages(view: SceneView, header: Header) -> dict[str, Any]:
    """One image with its intrinsics and its true instances."""
    quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(view.rgb, cv2.COLOR_RGB2BGR), quality)[1]
    png = cv2.imencode(".png", view.instances)[1]

    def compressed(format: str, data: np.ndarray) -> CompressedImage:
        return CompressedImage(header=header, format=format, data=array("B", data.tobytes()))

    return {
        IMAGE: compressed("rgb8; jpeg compressed bgr8", jpeg),
        TRUTH: compressed("mono8; png compressed", png),
        CAMERA_INFO: camera_info(view, header),
    }


def record(path: Path, seeds: list[int]) -> None:
    """Write a recording of these scenes to an MCAP file; an existing one is replaced."""
    typestore = get_typestore(Stores.ROS2_JAZZY)
    kinds = {IMAGE: CompressedImage, TRUTH: CompressedImage, CAMERA_INFO: CameraInfo, SCENE: String}
    now = 1_000_000_000  # nanoseconds
    with tempfile.TemporaryDirectory() as folder:
        bag = Path(folder) / "tabletop"
        with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
            connections = {
                topic: writer.add_connection(
                    topic,
                    f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}",
                    typestore=typestore,
                )
                for topic, kind in kinds.items()
            }
            for seed in seeds:
                camera = TabletopCamera(Tabletop(seed))
                camera.move(np.random.default_rng((seed, 1)))
                writer.write(connections[SCENE], now, serialize_message(String(data=str(seed))))
                for _ in range(FRAMES):
                    header = Header(frame_id=FRAME)
                    header.stamp.sec, header.stamp.nanosec = divmod(now, 10**9)
                    for topic, message in messages(camera.look(), header).items():
                        writer.write(connections[topic], now, serialize_message(message))
                    now += PERIOD
                    swing(camera.scene, SWING / (FRAMES - 1))
                camera.close()
        with written_beside(path) as beside:
            shutil.copyfile(bag / "tabletop.mcap", beside)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where questions.yaml and tabletop.mcap go")
    folder = parser.parse_args().folder
    path, words = (writable_file(folder / one.name) for one in (RECORDING, QUESTIONS))
    questions = draw_questions(np.random.default_rng(SEED))
    write_file(words, as_yaml(questions))
    record(path, list(dict.fromkeys(question.seed for question in questions)))
    print(f"{path}: {len(questions)} questions, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
