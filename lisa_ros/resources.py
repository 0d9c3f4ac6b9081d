"""Where the files beside the code lie: parameters, launch files, and the transport's profile, which
every process with ROS takes from there (see config/fastdds_large_images.xml)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
PROFILE_VARIABLES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
"""The name that Fast DDS 2 (Jazzy) reads, and the one of Fast DDS 3 (Kilted)."""


def shared_file(name: str) -> Path:
    """Path of a file such as `config/perception.yaml`.

    A source tree (plain or installed with `pip install -e`) uses its own files, so that an edit
    takes effect at once. Installed, they lie in `share/lisa_ros` under the prefix that holds the
    code.

    Raises:
        FileNotFoundError: no such file, which means that the installation is incomplete.
    """
    sources = PACKAGE.parent
    if (sources / "package.xml").is_file():
        folders = [sources]
    else:
        prefixes = [*PACKAGE.parents, Path(sys.prefix)]
        folders = [prefix / "share" / "lisa_ros" for prefix in prefixes]
    for folder in folders:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"{name} is missing from the installation of lisa_ros")


def use_large_image_transport() -> None:
    """Give this process and its children enough shared memory for images.

    Call it before rclpy is initialised: Fast DDS reads the variable when the first node is made.
    A profile that the user has chosen, by either name, is left alone. Other middleware ignores it.
    """
    if not any(name in os.environ for name in PROFILE_VARIABLES):
        profile = str(shared_file("config/fastdds_large_images.xml"))
        os.environ.update(dict.fromkeys(PROFILE_VARIABLES, profile))
