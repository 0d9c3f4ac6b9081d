"""The recorded tabletop camera and the questions about it; as a program, the camera on ROS topics.

    python -m lisa_ros.demo.recorded_camera

Every line on the standard input is the seed of a scene, which is then shown over and over, forth
and back; the first scene is shown from the start. As soon as a scene is on, its first stamp is
printed: `SEED NANOSECONDS`. The end of the input ends the program.
"""

from __future__ import annotations

import os
import selectors
import sys
from array import array
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import yaml
from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage

FOLDER = Path(__file__).parent
RECORDING = FOLDER / "tabletop.mcap"
QUESTIONS = FOLDER / "questions.yaml"

IMAGE = "/camera/image/compressed"
CAMERA_INFO = "/camera/camera_info"
TRUTH = "/camera/instances/compressed"
SCENE = "/camera/scene"

RATE = 10.0  # images per second
DEPTH = 5  # messages that a slow subscriber may be behind


@dataclass(frozen=True)
class DemoQuestion:
    """One instruction with what is known about its answer."""

    seed: int
    """of the scene that it is asked about"""
    kind: str
    """what sort of instruction it is, in words for people"""
    instruction: str
    status: str
    """the status that a right answer has: OK, NOT_FOUND or TEXT_ONLY"""
    objects: tuple[int, ...] = ()
    """values of the meant objects in the images on `TRUTH`; empty where nothing is meant"""


@dataclass
class RecordedScene:
    """One table: its seed and some frames taken one after another."""

    seed: int
    frames: list[dict[str, Any]] = field(default_factory=list)
    """recorded messages by topic: `IMAGE`, `CAMERA_INFO`, `TRUTH`"""


def read_questions() -> list[DemoQuestion]:
    """The questions of the demonstration, scene by scene."""
    scenes = yaml.safe_load(QUESTIONS.read_text(encoding="utf-8"))
    return [
        DemoQuestion(seed=scene["seed"], **entry | {"objects": tuple(entry.get("objects", ()))})
        for scene in scenes
        for entry in scene["questions"]
    ]


def read_recording() -> list[RecordedScene]:
    """The scenes of the recording in the order in which they were taken."""
    from lisa_ros.recordings.bag import Bag

    scenes: list[RecordedScene] = []
    pending: dict[str, Any] = {}
    with Bag(RECORDING) as bag:
        for recorded in bag.messages():
            topic, message = recorded.topic.name, bag.decode(recorded)
            if topic == SCENE:
                scenes.append(RecordedScene(int(message.data)))
                continue
            pending[topic] = message
            if len(pending) == 3:
                scenes[-1].frames.append(pending)
                pending = {}
    return scenes


class RecordedCamera(Node):
    """A camera whose images come from the recording; the stamps are of now."""

    def __init__(self, scenes: list[RecordedScene]) -> None:
        super().__init__("recorded_camera")
        self._scenes = {scene.seed: scene for scene in scenes}
        self._images = self.create_publisher(CompressedImage, IMAGE, DEPTH)
        self._infos = self.create_publisher(CameraInfo, CAMERA_INFO, DEPTH)
        self._truths = self.create_publisher(CompressedImage, TRUTH, DEPTH)
        self.show(scenes[0].seed)
        self.create_timer(1 / RATE, self._publish_next)

    def show(self, seed: int) -> None:
        """Go on with this scene."""
        frames = self._scenes[seed].frames
        self._frames = cycle(frames + frames[-2:0:-1])
        self._seed, self._is_new = seed, True

    def _publish_next(self) -> None:
        frame = next(self._frames)
        now = self.get_clock().now()
        self._truths.publish(compressed(frame[TRUTH], now))
        self._infos.publish(camera_info(frame[CAMERA_INFO], now))
        self._images.publish(compressed(frame[IMAGE], now))
        if self._is_new:
            print(self._seed, now.nanoseconds, flush=True)
            self._is_new = False


def compressed(recorded: Any, now: Time) -> CompressedImage:
    """The recorded image as a ROS message with the stamp of now."""
    message = CompressedImage(format=recorded.format, data=array("B", recorded.data.tobytes()))
    message.header.stamp = now.to_msg()
    message.header.frame_id = recorded.header.frame_id
    return message


def camera_info(recorded: Any, now: Time) -> CameraInfo:
    """The recorded intrinsics as a ROS message with the stamp of now."""
    fields = ("height", "width", "distortion_model", "d", "k", "r", "p")
    message = CameraInfo(**{name: getattr(recorded, name) for name in fields})
    message.header.stamp = now.to_msg()
    message.header.frame_id = recorded.header.frame_id
    return message


def main() -> None:
    from lisa_ros.resources import use_large_image_transport

    use_large_image_transport()
    import rclpy
    from rclpy.executors import ExternalShutdownException

    scenes = read_recording()
    rclpy.init()
    camera = RecordedCamera(scenes)
    commands = selectors.DefaultSelector()
    commands.register(sys.stdin, selectors.EVENT_READ)
    try:
        while True:
            rclpy.spin_once(camera, timeout_sec=1 / RATE)
            if commands.select(timeout=0):
                # sys.stdin.readline would keep further lines in a buffer that select does not see.
                lines = os.read(sys.stdin.fileno(), 4096).split()
                if not lines:
                    break
                camera.show(int(lines[-1]))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        if rclpy.ok():  # else a signal has shut ROS down while the camera published
            raise
    finally:
        camera.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
