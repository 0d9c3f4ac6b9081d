"""Views that the caller places: pictures, depth images and a small file with the poses.

up: [0, 0, 1]                         # optional, against gravity in the shared frame
k: [525, 0, 319.5, 0, 525, 239.5, 0, 0, 1]   # here for all views, or in each of them
views:
  - image: left.png
    depth: left_depth.png             # 16-bit PNG in millimetres, or .npy in metres
    position: [0.4, -0.2, 0.5]        # of the optical frame (z forward, y down), metres
    quaternion: [0.9, 0.1, 0.0, 0.4]  # x, y, z, w; or `pose`: 4 rows of 4 numbers
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lisa_ros.errors import LisaError
from lisa_ros.geometry import Intrinsics, rigid
from lisa_ros.recordings.ask_views import Shot

NAMES = ("views.yaml", "views.yml", "views.json")
NUMBERS = {"k": 9, "position": 3, "quaternion": 4, "pose": 16, "up": 3}


class ViewsError(LisaError):
    """The views cannot be read; the text says what to mend."""


def read_folder(path: Path) -> tuple[list[Shot], np.ndarray | None]:
    """The views of a folder with one of the files `NAMES`, or of such a file, and up if given.

    Raises:
        LisaError: something is missing or makes no sense.
    """
    import yaml

    found = [path / name for name in NAMES if (path / name).is_file()]
    file = path if path.is_file() else next(iter(found), None)
    if file is None:
        raise ViewsError(f"there is none of {', '.join(NAMES)} in {path}")
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML too
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ViewsError(f"{file}: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("views"), list):
        raise ViewsError(f"{file}: `views` must be a list")
    shared = {name: value for name, value in content.items() if name != "views"}
    shots = []
    for number, view in enumerate(content["views"], start=1):
        where = f"{file.name}, view {number}"
        if not isinstance(view, dict):
            raise ViewsError(f"{where}: must name its image, depth and pose")
        shots.append(_shot(shared | view, file.parent, where))
    up = _numbers(content, "up", file.name) if "up" in content else None
    return shots, up if up is None else up / np.linalg.norm(up)


def _shot(view: dict[str, Any], folder: Path, where: str) -> Shot:
    for name in ("image", "depth", "k"):
        if name not in view:
            raise ViewsError(f"{where}: `{name}` is missing")
    depth = _read_depth(folder / str(view["depth"]))
    image = np.asarray(_open(folder / str(view["image"])).convert("RGB"))
    k = _numbers(view, "k", where)
    model, distortion = view.get("distortion_model", ""), view.get("d", ())
    camera = Intrinsics.from_matrix(k, image.shape[1], image.shape[0], model, distortion)
    if "pose" in view:
        pose = _numbers(view, "pose", where).reshape(4, 4)
    else:
        turn = _numbers(view, "quaternion", where)
        if not np.linalg.norm(turn):
            raise ViewsError(f"{where}: the quaternion is zero")
        pose = rigid(_numbers(view, "position", where), turn)
    return Shot(str(view["image"]), image, depth, camera, pose)


def _numbers(view: dict[str, Any], name: str, where: str) -> np.ndarray:
    count = NUMBERS[name]
    try:
        values = np.asarray(view[name], dtype=float).ravel()
    except KeyError:
        raise ViewsError(f"{where}: `{name}` is missing") from None
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.size != count or not np.isfinite(values).all():
        raise ViewsError(f"{where}: `{name}` must be {count} numbers")
    return values


def _read_depth(path: Path) -> np.ndarray:
    """uint16 in millimetres of a PNG, or float32 in metres of a .npy file."""
    if path.suffix == ".npy":
        try:
            return np.load(path, allow_pickle=False).astype(np.float32)
        except (OSError, ValueError) as error:
            raise ViewsError(f"cannot read {path}: {error}") from None
    depth = np.asarray(_open(path))
    if depth.ndim != 2 or depth.dtype == np.uint8:
        raise ViewsError(f"{path}: a depth image is a grey PNG of 16 bits, in millimetres")
    return depth.astype(np.uint16)


def _open(path: Path) -> Image.Image:
    """A picture, read as a whole."""
    try:
        picture = Image.open(path)
        picture.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ViewsError(f"cannot read the picture {path}: {error}") from None
    return picture
