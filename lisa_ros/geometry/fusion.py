"""Several views of one object, fused into one cloud by votes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from lisa_ros.errors import DepthError
from lisa_ros.geometry.camera import Intrinsics, project
from lisa_ros.geometry.depth import check_depth, depth_discontinuity, dilate, fit_mask, metres
from lisa_ros.geometry.object3d import LEAST_POINTS, Object3D, locate, make_box
from lisa_ros.geometry.pointcloud import voxel_keys
from lisa_ros.geometry.transforms import is_rigid, transform_points

STRAY = 0.15  # cubes with less than this share of the usual number of points
MASK_MARGIN = 2  # pixels: the middle of a cube need not lie on the very surface that the mask shows


@dataclass(frozen=True)
class Sighting:
    """One view of the object.

    Attributes:
        mask: (H,W) as in `locate`; all zero if the object was looked for in this view and not
            found, which then speaks against what the other views say.
        depth: (H',W') as in `locate`.
        camera: intrinsics of the depth image.
        pose: (4,4), optical frame to the common frame, for example tf's transform from the camera
            to the map at the stamp of the image.
    """

    mask: np.ndarray
    depth: np.ndarray
    camera: Intrinsics
    pose: np.ndarray


def fuse(
    sightings: Sequence[Sighting], *, up: Sequence[float] | None = None, voxel: float = 0.005
) -> Object3D:
    """One object out of several views of it, in the common frame.

    The clouds of the views are cut into cubes, and each view votes about each cube: *for* it, if
    it measures a surface there that its mask holds; *against* it, if its mask does not hold that
    surface or if it sees something behind the cube; not at all, if the cube is hidden from it or
    outside its image. Cubes with more votes for than against stay.

    `agreement` is the share of votes for the cubes that stay. It falls when a view has masked
    something else: one of four that points elsewhere gives about 0.75. It also falls when poses
    are wrong.

    Faults of the data never raise; they become the `reason` of a result without 3-D part. Views
    that cannot be used, for example without any valid depth, are left out and not counted.

    Args:
        sightings: the views, one or more.
        up: unit vector (3,) against gravity in the common frame; makes the box stand upright.
        voxel: edge of the cubes, metres. Good is a twentieth of the object's size, but not less
            than the error of the poses.
    """
    against_gravity = None if up is None else np.asarray(up, dtype=float)
    # 1. The object as each view alone shows it.
    found, witnesses, faults = [], [], []
    for number, sighting in enumerate(sightings, start=1):
        try:
            witness = _Witness(sighting)
            obj = _object(sighting, against_gravity)
        except DepthError as error:
            faults.append(f"view {number}: {error}")
            continue
        witnesses.append(witness)
        if obj is not None:
            found.append(obj)
    if not found:
        why = "; ".join(faults) or "the object was found in none of them"
        reason = f"no view shows the object in space ({why})"
        return Object3D(reason=reason, viewpoints=np.zeros((0, 3)))
    # 2. Every view votes about every cube.
    middles = _cubes(np.concatenate([obj.points for obj in found]), voxel)
    votes = np.array([witness.votes(middles, voxel) for witness in witnesses])  # (V, N)
    viewpoints = np.array([witness.viewpoint for witness in witnesses])
    in_favour, against = (votes > 0).sum(axis=0), (votes < 0).sum(axis=0)
    keep = in_favour > against
    if keep.sum() < LEAST_POINTS:
        reason = (
            "the views disagree: what one of them shows as the object is something else in "
            "the others"
        )
        return Object3D(reason=reason, viewpoints=viewpoints, agreement=0.0)
    # 3. What stays is the object; it stands on the plane of the view that saw most of it.
    points = middles[keep].astype(np.float32)
    support = max(found, key=lambda obj: (obj.support is not None, len(obj.points))).support
    return Object3D(
        points=points,
        centroid=points.mean(axis=0, dtype=float),
        box=make_box(points, against_gravity, support),
        support=support,
        up=against_gravity,
        depth_fraction=float(np.mean([obj.depth_fraction for obj in found])),
        visible_fraction=max(obj.visible_fraction for obj in found),
        viewpoints=viewpoints,
        agreement=float(in_favour[keep].sum() / (in_favour + against)[keep].sum()),
    )


class _Witness:
    """What one view can say about any place in the common frame."""

    def __init__(self, sighting: Sighting) -> None:
        pose = np.asarray(sighting.pose, dtype=float)
        if not is_rigid(pose):
            raise DepthError("its pose is no rigid 4x4 transform")
        check_depth(sighting.depth)
        self.viewpoint = pose[:3, 3]
        self._to_camera = np.linalg.inv(pose)
        self._camera = sighting.camera.resized(*sighting.depth.shape[::-1])
        self._mask = dilate(fit_mask(sighting.mask, sighting.depth.shape), MASK_MARGIN)
        self._z = metres(sighting.depth)
        # Near the outline of the object the next pixel already sees what is behind it.
        known = np.where(np.isfinite(self._z), self._z, np.float32(np.inf))
        self._nearest = cv2.erode(known, np.ones((3, 3), np.uint8))

    def votes(self, places: np.ndarray, voxel: float) -> np.ndarray:
        """int8 (N,) about places (N,3): 1 for, -1 against, 0 does not know."""
        local = transform_points(places, self._to_camera)
        pixels = np.nan_to_num(project(self._camera, local), nan=-1.0)
        pixels = np.clip(np.rint(pixels), -1, 1 << 20).astype(int)
        height, width = self._z.shape
        inside = ((pixels >= 0) & (pixels < [width, height])).all(axis=1)
        columns, rows = np.where(inside[:, None], pixels, 0).T
        depth = local[:, 2]
        tolerance = voxel + depth_discontinuity(depth, self._camera.fx)
        surface = np.abs(self._z[rows, columns] - depth) < tolerance
        held = self._mask[rows, columns]
        nearest = self._nearest[rows, columns]
        seen_through = np.isfinite(nearest) & (nearest - depth > tolerance)
        result = np.zeros(len(places), np.int8)
        result[inside & surface & held] = 1
        result[inside & ((surface & ~held) | seen_through)] = -1
        return result


def _object(sighting: Sighting, up: np.ndarray | None) -> Object3D | None:
    """The object as one view shows it, in the common frame; None if it was not found there."""
    if not sighting.mask.any():
        return None
    pose = np.asarray(sighting.pose, dtype=float)
    seen_up = None if up is None else pose[:3, :3].T @ up
    obj = locate(sighting.mask, sighting.depth, sighting.camera, up=seen_up)
    if obj.reason:
        raise DepthError(obj.reason)
    return obj.transformed(pose)


def _cubes(points: np.ndarray, voxel: float) -> np.ndarray:
    """The mean (M,3) of the points (N,3) in each cube, but for cubes that hold only strays."""
    cube = np.unique(voxel_keys(points, voxel, np.zeros(3)), return_inverse=True)[1]
    count = np.bincount(cube)
    sums = np.stack([np.bincount(cube, weights=column) for column in points.T], axis=1)
    held = count >= STRAY * np.median(count)
    return sums[held] / count[held, None]
