"""From a mask to a grasp, as a robot program does it: depth, intrinsics, the camera's pose."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from lisa_ros.geometry import (
    Grasp,
    Gripper,
    Intrinsics,
    cloud,
    locate,
    moved,
    parallel_grasps,
    without_object,
)
from lisa_ros.sim.pick.hand import GRIPPER

OPENINGS = (1.0, 0.75, 0.5)  # of the gripper's own, tried in turn: narrower ones need less space
STANDS_UP = 0.006  # metres above the table from which on a point is an obstacle
CENTERING_STEPS = 3
MARGIN = 5  # pixels around the mask that are no obstacle: a mask is never quite exact


@dataclass(frozen=True)
class Plan:
    """What the hand should do; without `grasp` the `reason` says why it does nothing."""

    grasp: Grasp | None = None
    opening: float = 0.0
    reason: str = ""


def plan_grasp(
    mask: np.ndarray, depth: np.ndarray, camera: Intrinsics, camera_pose: np.ndarray
) -> Plan:
    """The best grasp from above for what lies behind a mask.

    Args:
        mask: bool (H,W), in pixels of the depth image.
        depth: (H,W), uint16 millimetres or float32 metres.
        camera: its intrinsics.
        camera_pose: (4,4), optical frame to the table's frame, whose z points up from the table.

    Returns:
        The grasp in the table's frame. It keeps clear of the other things where that is possible;
        otherwise the fingers push them aside.
    """
    thing = locate(mask, depth, camera, up=camera_pose[:3, :3].T @ [0.0, 0.0, 1.0])
    if thing.box is None:
        return Plan(reason=thing.reason)
    thing = thing.moved(camera_pose)
    others = moved(cloud(without_object(depth, mask, MARGIN), camera)[0], camera_pose)
    others = others[others[:, 2] > STANDS_UP]
    for obstacles in (others, None):
        for share in OPENINGS:
            gripper = replace(GRIPPER, opening=share * GRIPPER.opening)
            grasps = parallel_grasps(thing, gripper, obstacles)
            from_above = next((grasp for grasp in grasps if grasp.kind == "top"), None)
            if from_above is not None:
                return Plan(_centered(from_above, thing.points, gripper), gripper.opening)
    long, short = 100 * thing.box.size[:2]
    return Plan(reason=f"{long:.0f} by {short:.0f} cm is too large, or too flat, for the gripper")


def _centered(grasp: Grasp, points: np.ndarray, gripper: Gripper) -> Grasp:
    """The grasp moved along the breadth of the fingers to the middle of what they hold.

    Candidates lie at fixed steps along the box, so that a narrow neck can end up at the edge of
    the fingers.
    """
    local = (points - grasp.pose[:3, 3]) @ grasp.pose[:3, :3]
    local = local[local[:, 2] <= 0]
    place = 0.0
    for _ in range(CENTERING_STEPS):
        across = local[np.abs(local[:, 0] - place) < gripper.finger_width, 0]
        place = float(across.min() + across.max()) / 2
    strip = local[np.abs(local[:, 0] - place) < gripper.finger_width / 2, 1]
    if not len(strip) or np.ptp(strip) > gripper.opening - 2 * gripper.clearance:
        return grasp
    pose = grasp.pose.copy()
    pose[:3, 3] += place * pose[:3, 0]
    return replace(grasp, pose=pose)
