"""What a robot program does with a thing in space: it chooses one of its grasps, from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from lisa_ros.geometry import (
    Grasp,
    Intrinsics,
    cloud,
    locate,
    parallel_grasps,
    transform_points,
    without_object,
)
from lisa_tabletop.pick.hand import GRIPPER

STANDS_UP = 0.006  # metres above the table from which on a point is an obstacle
MARGIN = 5  # pixels around the mask that are no obstacle: a mask is never quite exact
FROM_ABOVE = 0.97  # cosine between an approach and straight down that the hand can follow


@dataclass(frozen=True)
class Target:
    """A thing in space, in the table's frame, whose z points up from the table.

    Attributes:
        grasps: for the gripper, the best first.
        size: lengths (3,) of its box, metres; None if it could not be located.
        reason: why it could not.
    """

    grasps: Sequence[Grasp] = ()
    size: np.ndarray | None = None
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """What the hand should do; without `grasp` the `reason` says why it does nothing."""

    grasp: Grasp | None = None
    reason: str = ""


def choose(target: Target) -> Plan:
    """The best grasp from above, which is the only way that the hand can go."""
    if target.size is None:
        return Plan(reason=target.reason)
    for grasp in target.grasps:
        if -grasp.pose[2, 2] > FROM_ABOVE:
            return Plan(grasp)
    long, short = 100 * target.size[:2]
    return Plan(
        reason=f"{long:.0f} by {short:.0f} cm is too large, too flat or too close to others "
        "for the gripper"
    )


def locate_target(
    mask: np.ndarray, depth: np.ndarray, camera: Intrinsics, camera_pose: np.ndarray
) -> Target:
    """The thing behind a mask, without a perception node.

    Args:
        mask: bool (H,W), in pixels of the depth image.
        depth: (H,W), uint16 millimetres or float32 metres.
        camera: its intrinsics.
        camera_pose: (4,4), optical frame to the table's frame.
    """
    thing = locate(mask, depth, camera, up=camera_pose[:3, :3].T @ [0.0, 0.0, 1.0])
    if thing.box is None:
        return Target(reason=thing.reason)
    thing = thing.transformed(camera_pose)
    others = transform_points(cloud(without_object(depth, mask, MARGIN), camera)[0], camera_pose)
    others = others[others[:, 2] > STANDS_UP]
    return Target(parallel_grasps(thing, GRIPPER, others), thing.box.size)


def in_table_frame(grasp: Grasp, camera_pose: np.ndarray) -> Grasp:
    """A grasp in the camera's optical frame carried to the table's frame."""
    return replace(grasp, pose=camera_pose @ grasp.pose)
