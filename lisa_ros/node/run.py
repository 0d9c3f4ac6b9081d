"""The process around the node: start, executor, signals, end."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence

from lisa_ros.dds import use_large_image_transport
from lisa_ros.node.loading import Loader, load_model

NAMESPACE = "lisa"
LOOK_PERIOD = (
    0.2  # seconds between two looks whether a signal has come: rclpy's wait is deaf to them
)
STOP_LIMIT = 1.5  # seconds that the end may take


def run(ros_arguments: Sequence[str], load: Loader = load_model) -> int:
    """Run the perception node until SIGINT or SIGTERM; returns the exit code.

    Args:
        ros_arguments: `--ros-args ...` as in `ros2 run`.
        load: makes the model.

    Raises:
        LisaError: a parameter or the ROS arguments cannot be used.
    """
    use_large_image_transport()
    import rclpy
    from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
    from rclpy.signals import SignalHandlerOptions

    from lisa_ros.node.perception import PerceptionNode

    # rclpy's own handlers close the context at once, and then no query in flight could be answered.
    rclpy.init(args=list(ros_arguments), signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    try:
        node = PerceptionNode(load, namespace=NAMESPACE)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: node.stopping.set())
        executor.add_node(node)
        if node.parameters["autostart"]:
            node.start()
        while not node.stopping.is_set():
            try:
                executor.spin_once(timeout_sec=LOOK_PERIOD)
            except ExternalShutdownException:
                break
            except Exception:
                # One callback's fault must not end the node.
                node.get_logger().error(traceback.format_exc())
        released = node.stop(STOP_LIMIT)
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
