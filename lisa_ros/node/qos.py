"""Quality of service of the image subscription, by name."""

from __future__ import annotations

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

RELIABLE = ReliabilityPolicy.RELIABLE.name
BEST_EFFORT = ReliabilityPolicy.BEST_EFFORT.name


def choose_reliability(node: Node, topic: str, name: str) -> str:
    """RELIABLE or BEST_EFFORT for a subscription to `topic`.

    Args:
        node: the node that is going to subscribe.
        topic: resolved name.
        name: sensor_data, reliable, or auto: reliable if all present publishers are. Without a
            publisher auto is best effort, which hears both kinds. The middleware's own
            BEST_AVAILABLE is no help: it decides once, when the subscription is made.
    """
    if name != "auto":
        return RELIABLE if name == "reliable" else BEST_EFFORT
    offered = [info.qos_profile.reliability for info in node.get_publishers_info_by_topic(topic)]
    all_reliable = offered and all(one == ReliabilityPolicy.RELIABLE for one in offered)
    return RELIABLE if all_reliable else BEST_EFFORT


def image_profile(reliability: str) -> QoSProfile:
    """The newest image only."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=1,
        reliability=ReliabilityPolicy[reliability],
        durability=DurabilityPolicy.VOLATILE,
    )


def kept(depth: int) -> QoSProfile:
    """Reliable, the last `depth` messages."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth)


def latched() -> QoSProfile:
    """Reliable, and the last message is there for whoever comes later."""
    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
