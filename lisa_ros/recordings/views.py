"""One object from several views: each is asked about, and the answers are fused.

The views come from a recording (`bag_views.py`) or from a folder with images, depth images and a
small file that says where they were taken:

up: [0, 0, 1]                         # optional, against gravity in the shared frame
k: [525, 0, 319.5, 0, 525, 239.5, 0, 0, 1]   # here for all views, or in each of them
views:
  - image: left.png
    depth: left_depth.png             # 16-bit PNG in millimetres, or .npy in metres
    position: [0.4, -0.2, 0.5]        # of the optical frame (z forward, y down), metres
    quaternion: [0.9, 0.1, 0.0, 0.4]  # x, y, z, w; or `pose`: 4 rows of 4 numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lisa_ros.errors import DepthError, LisaError
from lisa_ros.geometry import Intrinsics, Object3D, Sighting, colors_at, fuse, rigid
from lisa_ros.geometry.camera import project
from lisa_ros.geometry.depth import check_depth, check_same_view, metres
from lisa_ros.geometry.transforms import is_rigid, transform_points
from lisa_ros.image_files import read_image, read_samples

if TYPE_CHECKING:
    from lisa_ros.engine import Answer, Engine

GREY = 128  # of points that no view sees
NAMES = ("views.yaml", "views.yml", "views.json")
NUMBERS = {"k": 9, "position": 3, "quaternion": 4, "pose": 16, "up": 3}


class ViewsError(LisaError):
    """The views cannot be read or fused; the text says what to mend."""


@dataclass(frozen=True)
class Shot:
    """An image with what places it in space.

    Attributes:
        name: for people.
        image: uint8 (H,W,3) RGB.
        depth: (H',W'), uint16 in millimetres or float32 in metres, of the same view.
        camera: intrinsics of the depth image.
        pose: (4,4), the optical frame in a frame that all views share.

    Raises:
        DepthError: they do not show the same view, or the pose is none.
    """

    name: str
    image: np.ndarray
    depth: np.ndarray
    camera: Intrinsics
    pose: np.ndarray

    def __post_init__(self) -> None:
        check_depth(self.depth)
        check_same_view(self.image.shape[:2], self.depth.shape)
        self.camera.resized(*self.depth.shape[::-1])
        if not is_rigid(self.pose):
            raise DepthError("its pose is no rotation and translation, or is left-handed")


@dataclass(frozen=True)
class FusedAnswer:
    """What several views say together.

    Attributes:
        obj: the object in the shared frame; its `agreement` is the confidence.
        colors: uint8 (N,3) of the object's points.
        answers: of the model, one for each view.
    """

    obj: Object3D
    colors: np.ndarray
    answers: list[Answer]


def ask_views(
    engine: Engine,
    shots: Sequence[Shot],
    instruction: str,
    *,
    up: Sequence[float] | None = None,
    voxel: float = 0.005,
) -> FusedAnswer:
    """Ask about each view and fuse the first mask of each answer; see `lisa_ros.geometry.fuse`.

    A view in which the model does not find the thing takes part with an empty mask: it speaks
    against what the other views say, as far as it can see the place.

    Args:
        engine: asked in the order of the views.
        shots: the views.
        instruction: means one thing.
        up: unit vector (3,) against gravity in the shared frame; makes the box stand upright.
        voxel: edge of the cubes that the views vote about, metres.

    Raises:
        LisaError: the instruction or an image cannot be asked about.
    """
    answers, sightings = [], []
    for shot in shots:
        answer = engine.segment(shot.image, instruction, mode="mask")
        found = answer.instances[:1]
        mask = found[0].mask if found else np.zeros(shot.image.shape[:2], bool)
        answers.append(answer)
        sightings.append(Sighting(mask, shot.depth, shot.camera, shot.pose))
    obj = fuse(sightings, up=up, voxel=voxel)
    return FusedAnswer(obj, _colors(obj.points, shots, voxel), answers)


def _colors(points: np.ndarray, shots: Sequence[Shot], voxel: float) -> np.ndarray:
    """The mean colour uint8 (N,3) with which the views that see a point see it."""
    total, count = np.zeros((len(points), 3)), np.zeros((len(points), 1))
    for shot in shots:
        height, width = shot.depth.shape
        local = transform_points(points.astype(float), np.linalg.inv(shot.pose))
        pixels = project(shot.camera.resized(width, height), local)
        inside = ((pixels > -0.5) & (pixels < [width - 0.5, height - 0.5])).all(axis=1)
        pixels = np.rint(np.where(inside[:, None], pixels, 0)).astype(int)
        surface = metres(shot.depth)[pixels[:, 1], pixels[:, 0]]
        seen = inside & (np.abs(surface - local[:, 2]) < 2 * voxel)
        total[seen] += colors_at(shot.image, pixels[seen], shot.depth.shape)
        count[seen] += 1
    return np.where(count > 0, total / np.maximum(count, 1), GREY).astype(np.uint8)


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
        with file.open("rb") as stream:  # of which YAML says the name where it is at fault
            content = yaml.safe_load(stream)  # JSON is YAML too
    except (OSError, yaml.YAMLError) as error:
        raise ViewsError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not isinstance(content.get("views"), list):
        raise ViewsError(f"{file}: `views` must be a list")
    shared = {name: value for name, value in content.items() if name != "views"}
    shots = []
    for number, view in enumerate(content["views"], start=1):
        where = f"{file.name}, view {number}"
        if not isinstance(view, dict):
            raise ViewsError(f"{where}: must name its image, depth and pose")
        try:
            shots.append(_shot(shared | view, file.parent))
        except (LisaError, TypeError, ValueError) as error:
            raise ViewsError(f"{where}: {error}") from None
    if "up" not in content:
        return shots, None
    up = _numbers(content, "up")
    if not up.any():
        raise ViewsError(f"{file.name}: `up` has no direction")
    return shots, up / np.linalg.norm(up)


def _shot(view: dict[str, Any], folder: Path) -> Shot:
    for name in ("image", "depth", "k"):
        if name not in view:
            raise ViewsError(f"`{name}` is missing")
    depth = _read_depth(folder / str(view["depth"]))
    image = read_image(folder / str(view["image"]))
    k = _numbers(view, "k")
    model, distortion = view.get("distortion_model", ""), view.get("d", ())
    camera = Intrinsics.from_matrix(k, image.shape[1], image.shape[0], model, distortion)
    if "pose" in view:
        pose = _numbers(view, "pose").reshape(4, 4)
    else:
        turn = _numbers(view, "quaternion")
        if not turn.any():
            raise ViewsError("the quaternion is zero")
        pose = rigid(_numbers(view, "position"), turn)
    return Shot(str(view["image"]), image, depth, camera, pose)


def _numbers(view: dict[str, Any], name: str) -> np.ndarray:
    if name not in view:
        raise ViewsError(f"`{name}` is missing")
    try:
        values = np.asarray(view[name], dtype=float).ravel()
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.size != NUMBERS[name] or not np.isfinite(values).all():
        raise ViewsError(f"`{name}` must be {NUMBERS[name]} numbers")
    return values


def _read_depth(path: Path) -> np.ndarray:
    """uint16 in millimetres of whole numbers, float32 in metres of floating point."""
    if path.suffix == ".npy":
        try:
            depth = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise ViewsError(f"cannot read {path}: {error}") from None
    else:
        depth = read_samples(path)
    if depth.ndim == 2 and depth.dtype.kind == "f":
        return depth.astype(np.float32)
    if depth.ndim != 2 or depth.dtype.kind not in "ui" or depth.itemsize < 2:
        raise ViewsError(f"{path}: a depth image is a grey PNG of 16 bits, in millimetres")
    if depth.min() < 0 or depth.max() > 65535:
        raise ViewsError(f"{path}: depth of {depth.min()} to {depth.max()} is not in millimetres")
    return depth.astype(np.uint16)
