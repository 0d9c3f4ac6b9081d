"""The standing query: an instruction that the node asks again by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from rclpy.clock import Clock

from lisa_ros.errors import ImageError
from lisa_ros.msg import Segmentation

if TYPE_CHECKING:
    from lisa_ros.node.inputs.camera import Frame
    from lisa_ros.node.perception_node import PerceptionNode

LOOK_PERIOD = 0.1  # seconds between two looks whether it is time, or whether the image has changed
GRID = 24  # samples along each side of the image by which a change is noticed
CHANGED = 4.0  # mean difference of these samples, of 255, that is more than a camera's noise


class StandingQuery:
    """Asks `standing.instruction` every `standing.period` seconds, or for every changed image.

    It gives way: while any query waits or is being answered it does not ask.
    """

    def __init__(self, node: PerceptionNode, clock: Clock) -> None:
        self._node = node
        self._asked = 0.0
        self._seen: np.ndarray | None = None
        self._timer = node.create_timer(LOOK_PERIOD, self._look, clock=clock)

    def wake(self) -> None:
        """Look anew whether there is an instruction; called once a second."""
        if self._node.parameters["standing.instruction"]:
            self._timer.reset()
        else:
            self._timer.cancel()  # ten wake-ups a second would be most of what an idle node costs

    def _look(self) -> None:
        node = self._node
        instruction = node.parameters["standing.instruction"]
        if not instruction or node.state != "active" or not node.queries.idle:
            return
        period = node.parameters["standing.period"]
        if period > 0 and time.monotonic() - self._asked < period:
            return
        frame = node.camera.newest()
        if period == 0 and (frame is None or not self._has_changed(frame)):
            return
        self._asked = time.monotonic()
        node.queries.ask(node.queries.new(instruction, Segmentation.SOURCE_STANDING))

    def _has_changed(self, frame: Frame) -> bool:
        """Whether the image differs from the one that was asked about last."""
        try:
            pixels = frame.pixels(self._node.parameters["input.max_pixels"])
        except ImageError:
            return False
        rows, columns = (np.linspace(0, side - 1, GRID).astype(int) for side in pixels.shape[:2])
        samples = pixels[np.ix_(rows, columns)].astype(np.float32)
        before = self._seen
        if before is not None and np.abs(samples - before).mean() < CHANGED:
            return False
        self._seen = samples
        return True
