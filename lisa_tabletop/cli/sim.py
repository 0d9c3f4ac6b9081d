"""`lisa-ros sim`: a live tabletop camera to try the node on."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=9_100_000, help="which table (any number)")
    parser.add_argument("--rate", type=float, default=5.0, help="pictures per second (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Publish /camera/image_raw, /camera/depth/image_raw and /camera/camera_info until ctrl-C."""
    from lisa_ros.errors import LisaError
    from lisa_ros.fastdds import use_large_image_transport

    if args.rate <= 0 or args.seed < 0:
        raise LisaError("--rate must be above 0, --seed must not be negative")
    use_large_image_transport()
    import rclpy
    from rclpy.executors import ExternalShutdownException

    from lisa_tabletop.ros.camera_node import SimCamera

    rclpy.init()
    try:
        rclpy.spin(SimCamera(args.seed, args.rate))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0
