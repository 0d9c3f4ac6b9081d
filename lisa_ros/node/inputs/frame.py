"""One image on its way through the node, and the depth image that belongs to it."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lisa_ros.node.inputs.image_conversion import to_rgb


@dataclass(frozen=True)
class DepthMatch:
    """The depth image and the camera_info that belong to an image."""

    depth: Any = None
    """Image or CompressedImage; None if there is none"""
    info: Any = None
    """CameraInfo; None if there is none"""
    reason: str = ""
    """why there is no depth image, as a sentence without full stop"""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.depth is not None and self.info is not None


NO_MATCH = DepthMatch()


class Frame:
    """One image message; it is decoded when the pixels are first needed."""

    def __init__(
        self,
        message: Any,
        key: Hashable | None,
        arrived: float | None = None,
        match: DepthMatch = NO_MATCH,
    ) -> None:
        """
        Args:
            message: Image or CompressedImage.
            key: names the frame for the engine's cache, None: do not keep it there.
            arrived: when it reached this machine, by `time.monotonic()`; None: now.
            match: its depth image and camera_info, as far as somebody has looked for them.
        """
        self.message = message
        self.key = key
        self.arrived = time.monotonic() if arrived is None else arrived
        self.match = match
        self.decoded: np.ndarray | None = None
        """the pixels, once somebody has needed them"""

    @property
    def header(self) -> Any:
        """The header of the message itself, never a changed copy."""
        return self.message.header

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels; zeros for a compressed image that is not decoded."""
        if self.decoded is not None:
            return self.decoded.shape[1], self.decoded.shape[0]
        return getattr(self.message, "width", 0), getattr(self.message, "height", 0)

    @property
    def age(self) -> float:
        """Seconds since it reached this machine."""
        return time.monotonic() - self.arrived

    @property
    def seconds(self) -> float:
        """Its moment: the stamp, or the arrival where there is none."""
        stamp = self.header.stamp
        return stamp.sec + stamp.nanosec * 1e-9 if has_stamp(self.header) else self.arrived

    def pixels(self, max_pixels: int) -> np.ndarray:
        """uint8 (H, W, 3) RGB. Raises `ImageError` for an image that cannot be used."""
        if self.decoded is None:
            self.decoded = to_rgb(self.message, max_pixels)
        return self.decoded


def stamp_difference(message: Any, header: Any) -> float:
    """Seconds by which a message is younger than a header says."""
    one, other = message.header.stamp, header.stamp
    return (one.sec - other.sec) + (one.nanosec - other.nanosec) * 1e-9


@dataclass(frozen=True)
class Received:
    """A message of a sensor with the moment at which it came."""

    message: Any
    arrived: float
    """by `time.monotonic()`"""

    def later_than(self, header: Any, arrived: float) -> float:
        """Seconds by which it is younger than an image with this header that came at `arrived`.

        By the stamps; where one of the two has none (zero), by the moments of arrival.
        """
        if has_stamp(header) and has_stamp(self.message.header):
            return stamp_difference(self.message, header)
        return self.arrived - arrived


def has_stamp(header: Any) -> bool:
    """False for a stamp of zero, which means that the driver has set none."""
    return bool(header.stamp.sec or header.stamp.nanosec)


def nearest_in_time(received: Sequence[Received], header: Any, arrived: float) -> Received | None:
    """What is nearest to an image in time, of equally near ones the last."""
    return min(
        reversed(received), key=lambda one: abs(one.later_than(header, arrived)), default=None
    )
