"""What a depth image adds to the masks of an answer: the objects in space, clouds and grasps."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.time import Time

from lisa_ros.errors import LisaError
from lisa_ros.geometry import (
    XYZRGB,
    DepthError,
    Grasp,
    Gripper,
    Intrinsics,
    Object3D,
    cloud,
    colors_at,
    locate,
    pack,
    parallel_grasps,
    rigid,
    suction_grasps,
    transform_points,
    without_object,
)
from lisa_ros.geometry.camera import rays
from lisa_ros.geometry.depth import check_registered, dilate, fit_mask, metres, window
from lisa_ros.node.inputs.depth import DepthInput
from lisa_ros.node.inputs.frame import DepthMatch, Frame
from lisa_ros.node.inputs.image_conversion import to_depth
from lisa_ros.node.parameters import ParameterError, Parameters

LONGEST_WAIT = 0.2  # seconds; transforms of a moving arm come later than its camera's images
POLL = 0.005
MARGIN = 5  # pixels around a mask that are neither scene nor obstacle: a mask is never quite exact
COARSE = 3  # obstacles are looked for in every third row and column
STANDS_UP = 0.006  # metres above the support from which on a point is an obstacle
REACH = 0.15  # metres around the object in which a hand could hit something

NOWHERE = Object3D()


@dataclass(frozen=True)
class Objects3D:
    """The objects of an answer in space.

    Attributes:
        objects: one for each mask, in the frame `frame_id`; without depth each has its `reason`.
        frame_id: the camera's optical frame, or the target frame.
        depth: (H,W), uint16 millimetres or float32 metres; None if there is none that can be used.
        camera: intrinsics of the depth image; None likewise.
        pose: (4,4), the optical frame in the frame `frame_id`.
        seconds: that all this took.
    """

    objects: tuple[Object3D, ...]
    frame_id: str = ""
    depth: np.ndarray | None = None
    camera: Intrinsics | None = None
    pose: np.ndarray = field(default_factory=lambda: np.eye(4))
    seconds: float = 0.0

    @classmethod
    def none(cls, count: int, reason: str, frame_id: str = "", seconds: float = 0.0) -> Objects3D:
        """No depth: the same reason for each of `count` masks."""
        return cls((replace(NOWHERE, reason=reason),) * count, frame_id, seconds=seconds)


def localize(
    masks: Sequence[np.ndarray],
    match: DepthMatch,
    header: Any,
    settings: Any,
    look_up: Callable[[Any], np.ndarray] | None = None,
) -> Objects3D:
    """The objects behind masks. Faults of the data never raise, they become reasons.

    Args:
        masks: bool (H,W), of the image.
        match: what belongs to the image.
        header: of the image.
        settings: the node's parameters by their names.
        look_up: from a header to the pose (4,4) of its frame in the target frame, or a `LisaError`;
            None: everything stays in the camera's optical frame.
    """
    began = time.monotonic()
    frame_id = header.frame_id if look_up is None else settings["target_frame"]
    try:
        depth, camera = _readings(match, header, settings)
        pose = np.eye(4) if look_up is None else look_up(header)
    except LisaError as fault:
        return Objects3D.none(len(masks), str(fault), frame_id, time.monotonic() - began)
    box = settings["depth.box"]
    up = {"support": "support", "target_frame": pose[2, :3], "free": None}[box]
    found = (locate(mask, depth, camera, up=up) for mask in masks)
    objects = tuple(obj if look_up is None else obj.transformed(pose) for obj in found)
    return Objects3D(objects, frame_id, depth, camera, pose, time.monotonic() - began)


def _readings(match: DepthMatch, header: Any, settings: Any) -> tuple[np.ndarray, Intrinsics]:
    """Depth image and intrinsics; raises `DepthError`."""
    if match.depth is None:
        raise DepthError(match.reason)
    if match.info is None:
        raise DepthError(
            match.reason
            or "no camera_info has arrived, so the depth image has no scale across: connect "
            "`camera_info` to the one that is published beside the depth image"
        )
    check_registered(header.frame_id, match.depth.header.frame_id)
    camera = Intrinsics.from_camera_info(match.info, settings["depth.rectified"])
    return to_depth(match.depth, settings["input.max_pixels"]), camera


class TransformError(LisaError):
    """There is no transform; the text is a sentence without full stop."""


class Localizer:
    """Depth, tf and geometry brought together while the node runs.

    tf2_ros is part of a ROS installation and not among the wheels, so it is imported when a target
    frame is asked for. `prepare` and `objects` belong to the model's thread, everything else to the
    executor's.
    """

    def __init__(self, node: Node, depth: DepthInput, parameters: Parameters) -> None:
        self._node, self._depth, self._parameters = node, depth, parameters
        self._buffer: Any = None
        self._listener: Any = None
        self._faults: tuple[type[Exception], ...] = ()

    def configure(self) -> None:
        """Listen to tf where a target frame is asked for.

        Raises:
            LisaError: the parameters cannot be used, or tf2_ros is not installed.
        """
        self.close()
        target = self._parameters["target_frame"]
        if not target:
            if self._parameters["depth.box"] == "target_frame":
                raise ParameterError(
                    "depth.box is target_frame, but no target_frame is set: set one whose z points "
                    "up, such as base_link, or set depth.box to support"
                )
            return
        try:
            import tf2_ros
        except ImportError as error:
            raise TransformError(
                f"target_frame is {target!r}, but tf2_ros cannot be imported ({error}): install "
                "ros-$ROS_DISTRO-tf2-ros-py and source the installation, or leave target_frame "
                "empty to get everything in the camera's frame"
            ) from None
        self._buffer = tf2_ros.Buffer()
        self._faults = tf2_ros.TransformException, ValueError  # the latter for stamps before 0
        self._listener = tf2_ros.TransformListener(self._buffer, self._node, spin_thread=False)

    def close(self) -> None:
        """Listen to tf no more."""
        if self._listener is not None:
            self._listener.unregister()
        self._listener = self._buffer = None

    def prepare(self, frame: Frame, ended: Callable[[], bool]) -> None:
        """Take what belongs to an image of the camera, before newer messages push it out.

        `ended`: true once nobody waits for it any more.
        """
        if frame.key is None or frame.match.complete:
            return  # the image of a goal has what the goal brought along
        found = self._depth.match_for(frame, ended)
        if frame.match.depth is not None:  # only the camera_info was missing
            found = replace(found, depth=frame.match.depth, reason="")
        frame.match = found

    def objects(self, frame: Frame, masks: Sequence[np.ndarray]) -> Objects3D:
        """The objects behind the masks of an answer; never raises, for the masks stand anyway."""
        look_up = self._pose_of if self._parameters["target_frame"] else None
        try:
            return localize(masks, frame.match, frame.header, self._parameters, look_up)
        except Exception as error:
            self._node.get_logger().error(f"objects in space\n{traceback.format_exc()}")
            reason = f"placing it in space failed with {type(error).__name__}; see the node's log"
            return Objects3D.none(len(masks), reason, frame.header.frame_id)

    def _pose_of(self, header: Any) -> np.ndarray:
        """The pose (4,4) of the header's frame in the target frame at the header's stamp.

        Raises:
            TransformError: tf does not know it, also not a moment later.
        """
        buffer, target = self._buffer, self._parameters["target_frame"]
        give_up = time.monotonic() + LONGEST_WAIT
        if buffer is None:
            raise TransformError("the node no longer listens to tf")
        while True:
            try:
                stamp = Time.from_msg(header.stamp)
                found = buffer.lookup_transform(target, header.frame_id, stamp).transform
                break
            except self._faults as error:
                if time.monotonic() > give_up:
                    raise TransformError(
                        f"no transform from {header.frame_id[:60]!r} to {target!r} at the "
                        f"stamp of the image: {str(error)[:200]}"
                    ) from None
            time.sleep(POLL)
        shift, turn = found.translation, found.rotation
        return rigid([shift.x, shift.y, shift.z], [turn.x, turn.y, turn.z, turn.w])


def object_cloud(found: Objects3D, rgb: np.ndarray) -> np.ndarray:
    """The coloured points (N,), dtype `XYZRGB`, of all objects; `rgb` is the image (H,W,3)."""
    clouds = [
        pack(obj.points, colors_at(rgb, obj.pixels, found.depth.shape))
        for obj in found.objects
        if obj.box is not None
    ]
    return np.concatenate(clouds) if clouds else np.zeros(0, XYZRGB)


def scene_cloud(found: Objects3D, rgb: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """The coloured points (N,) of everything but the objects, for maps of obstacles."""
    if found.depth is None:
        return np.zeros(0, XYZRGB)
    depth = found.depth
    for mask in masks:
        depth = without_object(depth, fit_mask(mask, depth.shape), MARGIN)
    points, pixels = cloud(depth, found.camera)
    points = transform_points(points, found.pose)
    return pack(points, colors_at(rgb, pixels, depth.shape))


def grasps(
    found: Objects3D, masks: Sequence[np.ndarray], settings: Any
) -> tuple[list[tuple[int, Grasp]], dict[int, str]]:
    """Candidates for the hand of the parameters `grasp.*`, and why there are none.

    Returns:
        Each grasp with the number, from 1, of the object that it is for, the best first; and by
        number a sentence for each object without any.
    """
    every: list[tuple[int, Grasp]] = []
    reasons: dict[int, str] = {}
    for number, (obj, mask) in enumerate(zip(found.objects, masks, strict=True), start=1):
        if obj.box is None:
            reasons[number] = f"its place in space is not known: {obj.reason}"
            continue
        if settings["grasp.hand"] == "suction":
            diameter = settings["grasp.cup_diameter"]
            candidates = suction_grasps(obj, diameter)
            reason = f"nowhere on it is a face on which a cup of {diameter:g} m seals"
        else:
            opening = settings["grasp.opening"]
            gripper = Gripper(opening=opening, finger_length=settings["grasp.finger_length"])
            candidates = parallel_grasps(obj, gripper, _obstacles(found, obj, mask))
            narrowest = float(obj.box.size.min())
            reason = (
                f"it is {narrowest:.3f} m wide where it is narrowest, and the hand opens "
                f"{opening:g} m (grasp.opening)"
                if narrowest + 2 * gripper.clearance > opening
                else "from no side can the fingers close around it without slipping or touching "
                "something else"
            )
        every += [(number, grasp) for grasp in candidates]
        if not candidates:
            reasons[number] = reason
    return sorted(every, key=lambda pair: -pair[1].score), reasons


def _obstacles(found: Objects3D, obj: Object3D, mask: np.ndarray) -> np.ndarray:
    """Points (M,3) around an object that stand up from its support, in the frame `frame_id`."""
    height, width = found.depth.shape
    camera = found.camera.resized(width, height)
    inside = fit_mask(mask, found.depth.shape)
    away = float(np.linalg.norm(obj.box.center - found.pose[:3, 3]))
    rows, columns = window(inside, 0.0, least=round(REACH * camera.fx / away))
    part = slice(rows.start, rows.stop, COARSE), slice(columns.start, columns.stop, COARSE)
    z, sight = metres(found.depth[part]), rays(camera)[part]
    free = np.isfinite(z) & ~dilate(inside[part], MARGIN // COARSE + 1)
    points = np.concatenate([sight[free], np.ones((int(free.sum()), 1), np.float32)], axis=1)
    points = transform_points(points * z[free][:, None], found.pose)
    points = points[np.isfinite(points[:, 0])]
    if obj.support is None:
        return points
    return points[obj.support.height(points) > STANDS_UP + 3 * obj.support.spread]
