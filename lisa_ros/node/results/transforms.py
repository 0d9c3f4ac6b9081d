"""Where the camera's frame lies in the target frame at the stamp of an image, by tf2."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time

from lisa_ros.errors import LisaError
from lisa_ros.geometry import rigid

LONGEST_WAIT = 0.2  # seconds; transforms of a moving arm come later than its camera's images
POLL = 0.005


class TransformError(LisaError):
    """There is no transform; the text is a sentence without full stop."""


class Transforms:
    """Listens to tf while it is open. `open` and `close` belong to the executor's thread.

    tf2_ros is part of a ROS installation and not among the wheels, so it is imported when a target
    frame is asked for.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._target = ""
        self._buffer: Any = None
        self._listener: Any = None
        self._faults: tuple[type[Exception], ...] = ()

    def open(self, target: str) -> None:
        """Listen, for transforms into the frame `target`.

        Raises:
            TransformError: tf2_ros is not installed.
        """
        try:
            import tf2_ros
        except ImportError as error:
            raise TransformError(
                f"target_frame is {target!r}, but tf2_ros cannot be imported ({error}): install "
                "ros-$ROS_DISTRO-tf2-ros-py and source the installation, or leave target_frame "
                "empty to get everything in the camera's frame"
            ) from None
        self._target, self._buffer = target, tf2_ros.Buffer()
        self._faults = tf2_ros.TransformException, ValueError  # the latter for stamps before 0
        self._listener = tf2_ros.TransformListener(self._buffer, self._node, spin_thread=False)

    def close(self) -> None:
        """Stop listening."""
        if self._listener is not None:
            self._listener.unregister()
        self._listener = self._buffer = None

    def pose_of(self, header: Any) -> np.ndarray:
        """The pose (4,4) of the header's frame in the target frame at the header's stamp.

        Raises:
            TransformError: tf does not know it, also not a moment later.
        """
        buffer, give_up = self._buffer, time.monotonic() + LONGEST_WAIT
        if buffer is None:
            raise TransformError("the node no longer listens to tf")
        while True:
            try:
                stamp = Time.from_msg(header.stamp)
                found = buffer.lookup_transform(self._target, header.frame_id, stamp).transform
                break
            except self._faults as error:
                if time.monotonic() > give_up:
                    raise TransformError(
                        f"no transform from {header.frame_id[:60]!r} to {self._target!r} at the "
                        f"stamp of the image: {str(error)[:200]}"
                    ) from None
            time.sleep(POLL)
        shift, turn = found.translation, found.rotation
        return rigid([shift.x, shift.y, shift.z], [turn.x, turn.y, turn.z, turn.w])
