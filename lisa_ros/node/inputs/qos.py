"""Quality of service of the subscriptions to cameras, by name."""

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


def choose_durability(node: Node, topic: str, may_latch: bool) -> str:
    """TRANSIENT_LOCAL if that is allowed and all present publishers are; else VOLATILE.

    A publisher that latches can be heard either way, but its last message from before the
    subscription only by TRANSIENT_LOCAL, which other publishers do not match at all.
    """
    infos = node.get_publishers_info_by_topic(topic) if may_latch else []
    latch = [one.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for one in infos]
    chosen = DurabilityPolicy.TRANSIENT_LOCAL if latch and all(latch) else DurabilityPolicy.VOLATILE
    return chosen.name


def last_ones(kept: int, reliability: str, durability: str) -> QoSProfile:
    """The last `kept` messages; newer ones take the place of the oldest."""
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=kept,
        reliability=ReliabilityPolicy[reliability],
        durability=DurabilityPolicy[durability],
    )


def kept(depth: int) -> QoSProfile:
    """Reliable, the last `depth` messages."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth)


def latched() -> QoSProfile:
    """Reliable, and the last message is there for whoever comes later."""
    return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
