"""Reads the recorded tabletop camera and the questions about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
RECORDING = FOLDER / "tabletop.mcap"
QUESTIONS = FOLDER / "questions.yaml"

IMAGE = "/camera/image/compressed"
CAMERA_INFO = "/camera/camera_info"
TRUTH = "/camera/instances/compressed"
SCENE = "/camera/scene"


@dataclass(frozen=True)
class Question:
    """One instruction with what is known about its answer."""

    seed: int
    """of the scene that it is asked about"""
    kind: str
    """what sort of instruction it is, in words for people"""
    instruction: str
    status: str
    """the status that a right answer has: OK, NOT_FOUND or TEXT_ONLY"""
    objects: tuple[int, ...] = ()
    """values of the meant objects in the pictures on `TRUTH`; empty where nothing is meant"""


@dataclass
class Frame:
    """What the camera saw at one moment, as the recorded messages."""

    image: Any
    camera_info: Any
    truth: Any


@dataclass
class Scene:
    """One table: its seed and some pictures taken one after another."""

    seed: int
    frames: list[Frame] = field(default_factory=list)


def read_questions() -> list[Question]:
    """The questions of the demonstration, scene by scene."""
    scenes = yaml.safe_load(QUESTIONS.read_text(encoding="utf-8"))
    return [
        Question(
            seed=scene["seed"],
            kind=entry["kind"],
            instruction=entry["instruction"],
            status=entry["status"],
            objects=tuple(entry.get("objects", ())),
        )
        for scene in scenes
        for entry in scene["questions"]
    ]


def read_recording(path: Path = RECORDING) -> list[Scene]:
    """The scenes of a recording in the order in which they were taken."""
    from rosbags.highlevel import AnyReader

    scenes: list[Scene] = []
    pending: dict[str, Any] = {}
    with AnyReader([path]) as reader:
        for connection, _, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            if connection.topic == SCENE:
                scenes.append(Scene(int(message.data)))
                continue
            pending[connection.topic] = message
            if len(pending) == 3:
                scenes[-1].frames.append(
                    Frame(pending[IMAGE], pending[CAMERA_INFO], pending[TRUTH])
                )
                pending = {}
    return scenes
