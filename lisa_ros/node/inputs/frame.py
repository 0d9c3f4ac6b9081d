"""One image on its way through the node, and the depth image that belongs to it."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
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
    """why there is no depth image, or why no camera_info; a sentence without full stop, or empty"""

    @property
    def complete(self) -> bool:
        """Whether nothing is missing."""
        return self.depth is not None and self.info is not None


@dataclass(eq=False)
class Received:
    """A message of a sensor with the moment at which it came."""

    message: Any
    arrived: float = field(default_factory=time.monotonic)
    """when it reached this machine, by `time.monotonic()`"""

    @property
    def header(self) -> Any:
        """The header of the message itself, never a changed copy."""
        return self.message.header

    @property
    def has_stamp(self) -> bool:
        """False for a stamp of zero, which means that the driver has set none."""
        stamp = self.header.stamp
        return bool(stamp.sec or stamp.nanosec)

    def later_than(self, other: Received) -> float:
        """Seconds by which it is younger than another one.

        By the stamps; where one of the two has none, by the moments of arrival.
        """
        if self.has_stamp and other.has_stamp:
            one, before = self.header.stamp, other.header.stamp
            return (one.sec - before.sec) + (one.nanosec - before.nanosec) * 1e-9
        return self.arrived - other.arrived


@dataclass(eq=False)
class Frame(Received):
    """One image message, Image or CompressedImage; decoded when the pixels are first needed."""

    key: Hashable | None = None
    """names the frame for the engine's cache, None: do not keep it there"""
    match: DepthMatch = DepthMatch()
    """its depth image and camera_info, as far as somebody has looked for them"""
    decoded: np.ndarray | None = None
    """the pixels, once somebody has needed them"""

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
        return stamp.sec + stamp.nanosec * 1e-9 if self.has_stamp else self.arrived

    def pixels(self, max_pixels: int) -> np.ndarray:
        """uint8 (H, W, 3) RGB. Raises `ImageError` for an image that cannot be used."""
        if self.decoded is None:
            self.decoded = to_rgb(self.message, max_pixels)
        return self.decoded
