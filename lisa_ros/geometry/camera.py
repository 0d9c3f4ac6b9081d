"""The pinhole camera: intrinsics, lens distortion, pixels to rays and points back to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from lisa_ros.geometry.faults import DepthError

DISTORTION_LENGTHS = {"plumb_bob": (4, 5), "rational_polynomial": (8,)}
UNDISTORTION_STEPS = 30
UNDISTORTION_TOLERANCE = 0.3  # pixels
ASPECT_TOLERANCE = 0.02  # 1280x720 and 848x480 show the same, 640x480 does not


@dataclass(frozen=True)
class Intrinsics:
    """Pinhole intrinsics in pixels; the middle of the first pixel is (0, 0).

    Attributes:
        width, height: size of the image that they belong to.
        fx, fy, cx, cy: focal lengths and principal point.
        distortion: k1, k2, p1, p2, k3, k4, k5, k6 of OpenCV's rational model, or nothing for a
            rectified image. ROS' `plumb_bob` is the same with k4 = k5 = k6 = 0.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()

    @classmethod
    def from_matrix(
        cls,
        matrix: Sequence[float] | np.ndarray,
        width: int,
        height: int,
        model: str = "",
        distortion: Sequence[float] = (),
    ) -> Intrinsics:
        """Intrinsics from the fields of a sensor_msgs/CameraInfo.

        Args:
            matrix: `k`, 9 numbers or (3,3). Of a rectified image give the left part of `p` and no
                distortion.
            width, height: of the image, pixels.
            model: `distortion_model`.
            distortion: `d`.

        Raises:
            DepthError: the numbers are no camera, or its distortion model is not known here.
        """
        k = np.asarray(matrix, dtype=float).reshape(-1)
        if k.size != 9 or not np.isfinite(k).all() or k[0] <= 0 or k[4] <= 0:
            raise DepthError(
                "the camera_info holds no intrinsics: its focal lengths are "
                f"{k[0] if k.size == 9 else 'missing'} and {k[4] if k.size == 9 else 'missing'}. "
                "Calibrate the camera, or let its driver fill the matrix k"
            )
        coefficients = _distortion(model, np.asarray(distortion, dtype=float))
        fx, fy, cx, cy = (float(k[index]) for index in (0, 4, 2, 5))
        return cls(int(width), int(height), fx, fy, cx, cy, coefficients)

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same camera with its image scaled to another size.

        Raises:
            DepthError: the other size has other proportions, so it cannot show the same view.
        """
        if (self.width, self.height) == (width, height):
            return self
        if not self.width or not self.height:  # some drivers leave the size out
            return replace(self, width=width, height=height)
        if not same_proportions((self.width, self.height), (width, height)):
            raise DepthError(
                f"the camera_info is for {self.width}x{self.height} pixels, the depth image has "
                f"{width}x{height}, which cannot be the same view. "
                "Give the camera_info that is published beside the depth image"
            )
        x, y = width / self.width, height / self.height
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * x,
            fy=self.fy * y,
            cx=(self.cx + 0.5) * x - 0.5,  # the picture starts half a pixel before (0, 0)
            cy=(self.cy + 0.5) * y - 0.5,
        )


def same_proportions(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two sizes (width, height) have the same width to height."""
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) < ASPECT_TOLERANCE


@lru_cache(maxsize=8)
def rays(camera: Intrinsics) -> np.ndarray:
    """x/z and y/z of every pixel's line of sight: float32 (H,W,2), without lens distortion.

    NaN where the distortion model cannot be inverted, as at the corners of very wide lenses. The
    array is computed once for a camera and must not be written to.
    """
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    seen = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy], axis=-1)
    result = (_undistort(seen, camera) if camera.distortion else seen).astype(np.float32)
    result.setflags(write=False)
    return result


def project(camera: Intrinsics, points: np.ndarray) -> np.ndarray:
    """Pixels (N,2) of points (N,3) in the optical frame; NaN for those not before the camera."""
    z = np.where(points[:, 2:] > 1e-6, points[:, 2:], np.nan)
    flat = points[:, :2] / z
    if camera.distortion:
        flat = _distort(flat, camera.distortion)
    return flat * [camera.fx, camera.fy] + [camera.cx, camera.cy]


def _distortion(model: str, values: np.ndarray) -> tuple[float, ...]:
    """The eight coefficients, or nothing if the lens does not distort."""
    if not values.any():
        return ()
    lengths = DISTORTION_LENGTHS.get(model or "plumb_bob")
    if lengths is None:
        raise DepthError(
            f"the distortion model '{model}' is not known here; known are plumb_bob and "
            "rational_polynomial. Use a rectified depth image and its camera_info"
        )
    if values.size not in lengths or not np.isfinite(values).all():
        raise DepthError(
            f"the distortion model {model or 'plumb_bob'} needs {lengths[-1]} finite coefficients, "
            f"the camera_info holds {values.tolist()}"
        )
    return (*values.tolist(), *[0.0] * (8 - values.size))


def _distort(points: np.ndarray, distortion: tuple[float, ...]) -> np.ndarray:
    """Where the lens puts x/z, y/z (...,2): the Brown-Conrady model in its rational form."""
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion
    x, y = points[..., 0], points[..., 1]
    r = x * x + y * y
    radial = (1 + r * (k1 + r * (k2 + r * k3))) / (1 + r * (k4 + r * (k5 + r * k6)))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x),
            y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def _undistort(seen: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """The inverse of `_distort`, by fixed-point iteration; NaN where it does not converge."""
    points = seen.copy()
    with np.errstate(all="ignore"):  # what diverges ends as NaN
        for _ in range(UNDISTORTION_STEPS):
            points += seen - _distort(points, camera.distortion)
        error = np.abs(_distort(points, camera.distortion) - seen) * [camera.fx, camera.fy]
        bad = ~(error < UNDISTORTION_TOLERANCE).all(axis=-1)
    points[bad] = np.nan
    return points
