"""What holds for all tests: nothing leaves this machine, drawing needs no screen."""

import os

from lisa_ros.dds import use_large_image_transport

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
use_large_image_transport()
