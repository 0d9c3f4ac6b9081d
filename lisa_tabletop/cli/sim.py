"""`lisa-ros sim`: a live tabletop camera to try the node on."""

from __future__ import annotations

import argparse

# Of the tables from 9,100,000 on one where the shipped model finds every thing by its name, so that
# the first minute shows what it can do; most tables are harder. test_sim_camera.py measures it.
SEED = 9_100_005


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        type=int,
        default=SEED,
        help=f"which table (default: {SEED}, whose things the shipped model finds by their names)",
    )
    parser.add_argument("--rate", type=float, default=5.0, help="images per second (default: 5)")


def run(args: argparse.Namespace) -> int:
    """Publish /camera/image_raw, /camera/depth/image_raw and /camera/camera_info until ctrl-C."""
    from lisa_ros.errors import check_number
    from lisa_ros.resources import use_large_image_transport

    check_number("--rate", args.rate, 0.001, 1000)
    check_number("--seed", args.seed, 0)
    use_large_image_transport()
    import rclpy
    from rclpy.executors import ExternalShutdownException

    from lisa_tabletop.ros.camera_node import SimCamera

    rclpy.init()
    try:
        rclpy.spin(SimCamera(args.seed, args.rate))
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError:
        if rclpy.ok():  # else a signal has shut ROS down while the camera published
            raise
    finally:
        rclpy.try_shutdown()
    return 0
