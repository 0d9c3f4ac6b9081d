"""Plays the recorded camera on ROS 2 topics, in a process of its own.

    python -m lisa_ros.demo.player

Every line on the standard input is the seed of a scene, which is then shown over and over, forth
and back; the first scene is shown from the start. As soon as a scene is on, its first stamp is
printed: `SEED NANOSECONDS`. The end of the input ends the player.
"""

from __future__ import annotations

import os
import selectors
import sys
from array import array
from itertools import cycle
from typing import Any

from rclpy.node import Node
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage

from lisa_ros.demo.recording import CAMERA_INFO, IMAGE, TRUTH, Frame, Scene, read_recording

RATE = 10.0  # pictures per second
DEPTH = 5  # messages that a slow subscriber may be behind


class Player(Node):
    """A camera whose pictures come from the recording; the stamps are of now."""

    def __init__(self, scenes: list[Scene]) -> None:
        super().__init__("recorded_camera")
        self._scenes = {scene.seed: scene for scene in scenes}
        self._images = self.create_publisher(CompressedImage, IMAGE, DEPTH)
        self._infos = self.create_publisher(CameraInfo, CAMERA_INFO, DEPTH)
        self._truths = self.create_publisher(CompressedImage, TRUTH, DEPTH)
        self._announce = False
        self.show(scenes[0].seed)
        self.create_timer(1 / RATE, self._publish_next)

    def show(self, seed: int) -> None:
        """Go on with this scene."""
        frames = self._scenes[seed].frames
        self._frames = cycle(frames + frames[-2:0:-1])
        self._seed, self._announce = seed, True

    def _publish_next(self) -> None:
        frame: Frame = next(self._frames)
        now = self.get_clock().now()
        self._truths.publish(compressed(frame.truth, now))
        self._infos.publish(camera_info(frame.camera_info, now))
        self._images.publish(compressed(frame.image, now))
        if self._announce:
            print(self._seed, now.nanoseconds, flush=True)
            self._announce = False


def compressed(recorded: Any, now: Time) -> CompressedImage:
    """The recorded picture as a ROS message with the stamp of now."""
    message = CompressedImage(format=recorded.format, data=array("B", recorded.data.tobytes()))
    message.header.stamp = now.to_msg()
    message.header.frame_id = recorded.header.frame_id
    return message


def camera_info(recorded: Any, now: Time) -> CameraInfo:
    """The recorded intrinsics as a ROS message with the stamp of now."""
    message = CameraInfo(
        height=recorded.height,
        width=recorded.width,
        distortion_model=recorded.distortion_model,
        d=recorded.d,
        k=recorded.k,
        r=recorded.r,
        p=recorded.p,
    )
    message.header.stamp = now.to_msg()
    message.header.frame_id = recorded.header.frame_id
    return message


def main() -> None:
    from lisa_ros.dds import use_large_image_transport

    use_large_image_transport()
    import rclpy
    from rclpy.executors import ExternalShutdownException

    scenes = read_recording()
    rclpy.init()
    player = Player(scenes)
    commands = selectors.DefaultSelector()
    commands.register(sys.stdin, selectors.EVENT_READ)
    try:
        while True:
            rclpy.spin_once(player, timeout_sec=1 / RATE)
            if commands.select(timeout=0):
                # sys.stdin.readline would keep further lines in a buffer that select does not see.
                lines = os.read(sys.stdin.fileno(), 4096).split()
                if not lines:
                    break
                player.show(int(lines[-1]))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        player.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
