"""The process around the node: start, executor, signals, end."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lisa_ros.node.loading import Loader, load_model
from lisa_ros.resources import use_large_image_transport

if TYPE_CHECKING:
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

NAMESPACE = "lisa"
LOOK_PERIOD = 0.2  # seconds between two looks for a signal; rclpy's wait does not notice one
GOALS_LIMIT = 0.3  # seconds in which goals in flight get their results when the process ends
RELEASE_LIMIT = 1.0  # seconds for letting go of the model after that


def run(ros_arguments: Sequence[str], load: Loader = load_model) -> int:
    """Run the perception node until SIGINT or SIGTERM; returns the exit code.

    Args:
        ros_arguments: `--ros-args ...` as in `ros2 run`.
        load: makes the model.

    Raises:
        LisaError: a parameter cannot be used.
    """
    use_large_image_transport()
    import rclpy
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from lisa_ros.node.perception_node import PerceptionNode

    # rclpy's own handlers close the context at once, and no query in flight could be answered.
    rclpy.init(args=list(ros_arguments), signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    try:
        node = PerceptionNode(load, namespace=NAMESPACE)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: node.stopping.set())
        executor.add_node(node)
        if node.parameters["autostart"]:
            node.start()
        spin(executor, node, node.stopping)
        end = time.monotonic() + (0 if node.goals_ended else GOALS_LIMIT)
        node.end_queries()
        while time.monotonic() < end:
            executor.spin_once(timeout_sec=0.01)
        released = node.release(RELEASE_LIMIT)
        node.destroy_node()
    finally:
        executor.shutdown()
        rclpy.try_shutdown()
    if not released:
        # The model hangs in a call that nothing can break off; Python would wait for its thread.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    return 0


def spin(executor: SingleThreadedExecutor, node: Node, stopping: threading.Event) -> None:
    """Serve until `stopping` is set. One callback's fault must not end a node."""
    while not stopping.is_set():
        try:
            executor.spin_once(timeout_sec=LOOK_PERIOD)
        except Exception:
            if not node.context.ok():
                return
            node.get_logger().error(traceback.format_exc())
