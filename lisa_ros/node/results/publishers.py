"""Everything the node publishes about a query."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from std_msgs.msg import String

from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.image_conversion import to_message
from lisa_ros.node.inputs.qos import kept, latched
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.results import messages
from lisa_ros.node.results.overlay import draw_overlay
from lisa_ros.node.results.space_outputs import SpaceOutputs
from lisa_ros.node.status import ANSWERED, Status

RESULTS_KEPT = 1000  # a flood of rejected queries must not overwrite results that are on their way
IMAGES_KEPT = 5


class Outputs:
    """The publishers of results. They exist as long as the node and work in every state of it.

    Lifecycle publishers would be silent while the node is inactive, and a query that arrives then
    must be answered too. Publishing is safe from any thread.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        self._result = node.create_publisher(Segmentation, "mask", kept(RESULTS_KEPT))
        self._union = node.create_publisher(Image, "mask/image", kept(IMAGES_KEPT))
        self._labels = node.create_publisher(Image, "mask/labels", kept(IMAGES_KEPT))
        self._names = node.create_publisher(String, "mask/label_names", latched())
        self._answer = node.create_publisher(String, "answer", kept(RESULTS_KEPT))
        self._overlay = node.create_publisher(Image, "overlay", kept(IMAGES_KEPT))
        self._space = SpaceOutputs(node, parameters)
        self._infos = label_info_publisher(node)

    def publish_result(self, query: Query, outcome: Outcome, model: str) -> Segmentation:
        """Send the result of a query out; returns it."""
        message = messages.segmentation(query, outcome, model)
        message.timings.total = messages.since(query)
        self._result.publish(message)
        return message

    def publish_rest(self, query: Query, outcome: Outcome, message: Segmentation) -> None:
        """The words, and the masks as images for those who listen."""
        self._answer.publish(String(data=message.answer or message.error))
        if outcome.status not in ANSWERED or query.frame is None:
            return
        found = outcome.answer.instances
        size, header = query.frame.size, message.header
        if self._union.get_subscription_count():
            self._union.publish(messages.union_image(found, size, header))
        if self._labels.get_subscription_count():
            self._labels.publish(messages.label_image(found, size, header))
        self._names.publish(String(data=messages.label_names(message)))
        if self._infos is not None:
            self._infos.publish(messages.label_info(message))
        self._space.publish(query, outcome, message)

    def publish_overlay(self, query: Query, outcome: Outcome, message: Segmentation) -> None:
        """The picture for people; apart from the rest, so that nothing waits until it is drawn."""
        if query.frame is None or not self._overlay.get_subscription_count():
            return
        if query.frame.decoded is None:
            return
        found = outcome.answer.instances if outcome.answer else query.instances
        picture = draw_overlay(
            query.frame.decoded,
            [one.mask for one in found],
            query.text,
            message.error or message.answer,
            failed=outcome.status not in (Status.OK, Status.TEXT_ONLY),
        )
        self._overlay.publish(to_message(picture, "rgb8", message.header))

    def flush(self, seconds: float) -> None:
        """Wait until the results have arrived wherever they are awaited, at most so long."""
        from rclpy.duration import Duration

        self._result.wait_for_all_acked(Duration(seconds=seconds))


def label_info_publisher(node: Node) -> Publisher | None:
    """For `mask/label_info`, if vision_msgs is installed, which not every robot has."""
    try:
        from vision_msgs.msg import LabelInfo
    except ImportError:
        return None
    return node.create_publisher(LabelInfo, "mask/label_info", latched())
