"""What a depth image adds to the masks of an answer: the objects in space."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lisa_ros.errors import LisaError
from lisa_ros.geometry import DepthError, Intrinsics, Object3D, locate
from lisa_ros.node.inputs.depth import Partner
from lisa_ros.node.inputs.depth_image import to_depth

LookUp = Callable[[Any], np.ndarray]
"""from a header to the pose (4,4) of its frame in the target frame; raises `LisaError`"""


@dataclass(frozen=True)
class Space:
    """The objects of an answer in space.

    Attributes:
        things: one for each mask, in the frame `frame_id`; without depth each has its `reason`.
        frame_id: the camera's optical frame, or the target frame.
        depth: (H,W), uint16 millimetres or float32 metres; None if there is none that can be used.
        camera: intrinsics of the depth image; None likewise.
        pose: (4,4), the optical frame in the frame `frame_id`.
        seconds: that all this took.
    """

    things: tuple[Object3D, ...]
    frame_id: str = ""
    depth: np.ndarray | None = None
    camera: Intrinsics | None = None
    pose: np.ndarray = field(default_factory=lambda: np.eye(4))
    seconds: float = 0.0

    @classmethod
    def empty(cls, count: int, reason: str, seconds: float = 0.0) -> Space:
        """No depth: the same reason for each of `count` masks."""
        return cls((Object3D(reason=reason),) * count, seconds=seconds)


def in_space(
    masks: Sequence[np.ndarray],
    partner: Partner,
    header: Any,
    settings: Any,
    look_up: LookUp | None = None,
) -> Space:
    """The objects behind masks. Faults of the data never raise, they become reasons.

    Args:
        masks: bool (H,W), of the image.
        partner: what belongs to the image.
        header: of the image.
        settings: the node's parameters by their names.
        look_up: for a target frame; None: everything stays in the camera's optical frame.
    """
    began = time.monotonic()
    try:
        depth, camera = _readings(partner, header, settings)
        pose = np.eye(4) if look_up is None else look_up(header)
    except LisaError as fault:
        return Space.empty(len(masks), str(fault), time.monotonic() - began)
    box = settings["depth.box"]
    up = {"support": "support", "target_frame": pose[2, :3], "free": None}[box]
    found = (locate(mask, depth, camera, up=up) for mask in masks)
    things = tuple(thing if look_up is None else thing.transformed(pose) for thing in found)
    frame_id = header.frame_id if look_up is None else settings["target_frame"]
    return Space(things, frame_id, depth, camera, pose, time.monotonic() - began)


def _readings(partner: Partner, header: Any, settings: Any) -> tuple[np.ndarray, Intrinsics]:
    """Depth image and intrinsics; raises `DepthError`."""
    if partner.depth is None:
        raise DepthError(partner.reason)
    if partner.info is None:
        raise DepthError(
            "no camera_info has arrived, so the depth image has no scale across: connect "
            "`camera_info` to the one that is published beside the depth image"
        )
    frames = [one.frame_id.lstrip("/") for one in (header, partner.depth.header)]
    if all(frames) and frames[0] != frames[1]:
        raise DepthError(
            f"the image is in the frame {frames[0][:60]!r} and the depth image in "
            f"{frames[1][:60]!r}: use the depth image that is registered to the colour image"
        )
    camera = Intrinsics.from_camera_info(partner.info, settings["depth.rectified"])
    return to_depth(partner.depth, settings["input.max_pixels"]), camera
