"""Where the files beside the code lie: parameters, transport profile, launch files."""

from __future__ import annotations

import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


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
