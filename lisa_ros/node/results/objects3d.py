"""From masks to objects in space while the node runs: depth, tf and geometry brought together."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rclpy.node import Node

from lisa_ros.node.inputs.depth import DepthInput, Partner
from lisa_ros.node.parameters import ParameterError, Parameters
from lisa_ros.node.requests.query import Query
from lisa_ros.node.results.localization import Space, in_space
from lisa_ros.node.results.transforms import Transforms

if TYPE_CHECKING:
    from lisa_ros.engine.answer import Instance
    from lisa_ros.node.inputs.camera import Frame

NOT_OURS = Partner(
    reason="the image came with the question, and only the camera's own images have a depth image"
)


class Placing:
    """`prepare` and `place` belong to the model's thread, everything else to the executor's."""

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._node, self._parameters = node, parameters
        self.depth = DepthInput(node, parameters)
        self._transforms = Transforms(node)

    def configure(self) -> None:
        """Listen to tf where a target frame is asked for.

        Raises:
            LisaError: the parameters cannot be used, or tf2_ros is not there.
        """
        target = self._parameters["target_frame"]
        if self._parameters["depth.box"] == "target_frame" and not target:
            raise ParameterError(
                "depth.box is target_frame, but no target_frame is set: set one whose z points "
                "up, such as base_link, or set depth.box to support"
            )
        self._transforms.close()
        if target:
            self._transforms.open(target)

    def close(self) -> None:
        """Listen to nothing any more."""
        self.depth.close()
        self._transforms.close()

    def prepare(self, frame: Frame, ended: Callable[[], bool]) -> None:
        """Take what belongs to an image, before newer messages push it out.

        `ended`: true once nobody waits for it any more.
        """
        if frame.key is None:
            frame.partner = NOT_OURS
        elif not frame.partner.complete:
            found = self.depth.partner_of(frame.header, frame.arrived, ended)
            if frame.partner.depth is not None:  # only the camera_info was missing
                found = replace(found, depth=frame.partner.depth, reason="")
            frame.partner = found

    def place(self, query: Query, instances: Sequence[Instance]) -> Space:
        """The objects behind the masks of an answer; never raises, for the masks stand anyway."""
        look_up = self._transforms.pose_of if self._parameters["target_frame"] else None
        masks, frame = [one.mask for one in instances], query.frame
        try:
            return in_space(masks, frame.partner, frame.header, self._parameters, look_up)
        except Exception as error:
            self._node.get_logger().error(f"query {query.id}\n{traceback.format_exc()}")
            reason = f"placing it in space failed with {type(error).__name__}; see the node's log"
            return Space.empty(len(masks), reason)
