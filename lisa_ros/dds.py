"""Transport settings for large images (see config/fastdds_large_images.xml)."""

from __future__ import annotations

import os

from lisa_ros.share import shared_file

PROFILE_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"


def use_large_image_transport() -> None:
    """Give this process and its children enough shared memory for images.

    Call it before rclpy is initialised: Fast DDS reads the variable when the first node is made.
    A profile that the user has chosen is left alone. Other middleware ignores the variable.
    """
    # The newer name, which Fast DDS 2 does not read: who has set it has chosen.
    if "FASTDDS_DEFAULT_PROFILES_FILE" not in os.environ:
        os.environ.setdefault(PROFILE_VARIABLE, str(shared_file("config/fastdds_large_images.xml")))
