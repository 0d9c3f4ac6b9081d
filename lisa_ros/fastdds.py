"""Transport settings for large images (see config/fastdds_large_images.xml)."""

from __future__ import annotations

import os

from lisa_ros.resources import shared_file

PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""The name that Fast DDS 2 (Jazzy) reads, and the one of Fast DDS 3 (Kilted)."""


def use_large_image_transport() -> None:
    """Give this process and its children enough shared memory for images.

    Call it before rclpy is initialised: Fast DDS reads the variable when the first node is made.
    A profile that the user has chosen, by either name, is left alone. Other middleware ignores it.
    """
    if not any(name in os.environ for name in PROFILE_VARIABLES):
        profile = str(shared_file("config/fastdds_large_images.xml"))
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, profile))
