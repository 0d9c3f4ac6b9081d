"""The depth image and the camera_info that belong to an image of a recording."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rclpy.serialization import deserialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from lisa_ros.node.inputs.frame import DepthMatch, nearest_by_stamp, stamp_difference

TYPES = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/CameraInfo": CameraInfo,
}
AROUND = 10**9  # nanoseconds of recorded time around an image within which its depth was recorded
NOT_NAMED = DepthMatch(reason="no depth image: its topic was not named")


class RecordedDepth:
    """Looks depth images up while somebody else reads the recording from beginning to end."""

    def __init__(self, reader: Reader, depth: str, info: str, slop: float) -> None:
        """
        Args:
            reader: of the recording, opened, with nobody else reading from it.
            depth: topic of the depth images; empty: there are none.
            info: topic of their camera_info; empty: likewise.
            slop: seconds by which the stamps of image and depth image may differ.
        """
        self._reader, self._slop = reader, slop
        self._depth, self._info = self._connections(depth), self._connections(info)
        self._first_info = next(self._messages(self._info), None)

    def match_for(self, header: Any, recorded: int) -> DepthMatch:
        """What belongs to an image with this header, recorded at `recorded` nanoseconds."""
        if not self._depth:
            return NOT_NAMED
        around = {"start": recorded - AROUND, "stop": recorded + AROUND}
        depth = nearest_by_stamp(list(self._messages(self._depth, **around)), header)
        info = (
            nearest_by_stamp(list(self._messages(self._info, **around)), header) or self._first_info
        )
        if depth is None or abs(stamp_difference(depth, header)) > self._slop:
            return DepthMatch(
                info=info, reason=f"no depth image within {self._slop:g} s of the image"
            )
        return DepthMatch(depth, info)

    def _connections(self, topic: str) -> list[Connection]:
        return [one for one in self._reader.connections if topic and one.topic == topic]

    def _messages(self, connections: list[Connection], **limits: int) -> Iterator[Any]:
        if connections:  # to the reader none means all
            for one, _, data in self._reader.messages(connections, **limits):
                yield deserialize_message(bytes(data), TYPES[one.msgtype])
