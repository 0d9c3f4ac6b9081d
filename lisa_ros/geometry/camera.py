"""The pinhole camera: intrinsics, lens distortion, pixels to rays and points back to pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from lisa_ros.errors import DepthError

COEFFICIENTS = {"plumb_bob": 5, "rational_polynomial": 8}  # of OpenCV's model, in its order
OPENCV_LENGTHS = (4, 5, 8, 12, 14)  # OpenCV fills up with zeros what it has not fitted
WIDEST, NARROWEST = 150.0, 1.0  # degrees from border to border; wider lenses are no pinholes
CENTRAL = 0.05  # share of the image at each border in which no principal point lies
LEAST_SKEW = 0.01  # shares of the focal length; more is no camera's
UNDISTORTION_STEPS = 30
UNDISTORTION_TOLERANCE = 0.3  # pixels
ASPECT_TOLERANCE = 0.02  # 1280x720 and 848x480 show the same, 640x480 does not
ADVICE = "Calibrate the camera, or let its driver fill the camera_info"


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
            width, height: of the image, pixels; 0 if not known yet, see `resized`.
            model: `distortion_model`.
            distortion: `d`.

        Raises:
            DepthError: the numbers are those of no camera, or its distortion model is not known
                here.
        """
        k = np.asarray(matrix, dtype=float).reshape(-1)
        if k.size != 9 or not np.isfinite(k).all() or k[0] <= 0 or k[4] <= 0:
            raise DepthError(
                "the camera_info holds no intrinsics: its focal lengths are "
                f"{k[0] if k.size == 9 else 'missing'} and {k[4] if k.size == 9 else 'missing'}. "
                f"{ADVICE}"
            )
        lower = np.abs(k[[3, 6, 7, 8]] - [0, 0, 0, 1]).max()
        if lower > 1e-3 or abs(k[1]) > LEAST_SKEW * k[0]:
            raise DepthError(
                f"the camera_info holds no intrinsics: the matrix {k.tolist()} is not of the form "
                f"fx 0 cx, 0 fy cy, 0 0 1. {ADVICE}"
            )
        coefficients = _distortion(model, np.asarray(distortion, dtype=float))
        fx, fy, cx, cy = (float(k[index]) for index in (0, 4, 2, 5))
        return cls(int(width), int(height), fx, fy, cx, cy, coefficients)._checked()

    @classmethod
    def from_camera_info(cls, info: Any, rectified: bool = False) -> Intrinsics:
        """The camera of a `sensor_msgs/CameraInfo`, or of anything with its fields.

        Args:
            info: the message. Binning and a region of interest make the image smaller than the
                size that the calibration is for.
            rectified: the images have been rectified: take `p`, and no distortion.

        Raises:
            DepthError: as `from_matrix`.
        """
        matrix, model, distortion = info.k, info.distortion_model, info.d
        if rectified:
            matrix, model, distortion = np.reshape(info.p, (3, 4))[:, :3], "", ()
        whole = cls.from_matrix(matrix, info.width, info.height, model, distortion)
        roi, x, y = info.roi, max(1, info.binning_x), max(1, info.binning_y)
        return replace(
            whole,
            width=(roi.width or info.width) // x,
            height=(roi.height or info.height) // y,
            fx=whole.fx / x,
            fy=whole.fy / y,
            cx=(whole.cx - roi.x_offset + 0.5) / x - 0.5,  # the image starts half a pixel
            cy=(whole.cy - roi.y_offset + 0.5) / y - 0.5,  # before (0, 0)
        )

    def resized(self, width: int, height: int) -> Intrinsics:
        """The same camera with its image scaled to another size.

        Raises:
            DepthError: the other size has other proportions, so it cannot show the same view; or
                the size was not known before, and the numbers are those of no camera.
        """
        if (self.width, self.height) == (width, height):
            return self
        if not self.width or not self.height:  # some drivers leave the size out
            return replace(self, width=width, height=height)._checked()
        if not same_proportions((self.width, self.height), (width, height)):
            raise DepthError(
                f"the camera_info is for {self.width}x{self.height} pixels, the depth image has "
                f"{width}x{height}, which cannot be the same view. "
                "Give the camera_info that is published beside the depth image"
            )
        x, y = width / self.width, height / self.height
        cx, cy = (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        return Intrinsics(width, height, self.fx * x, self.fy * y, cx, cy, self.distortion)

    def _checked(self) -> Intrinsics:
        """Itself; raises `DepthError` where no camera has such numbers, which are plausible to a
        program: the identity, a matrix in parts of the width, in millimetres, without centre."""
        for name, size, focal, center in (
            ("wide", self.width, self.fx, self.cx),
            ("high", self.height, self.fy, self.cy),
        ):
            if not size:  # not known yet
                continue
            field = 2 * np.degrees(np.arctan2(size, 2 * focal))
            if not NARROWEST <= field <= WIDEST:
                raise DepthError(
                    f"the camera_info is implausible: a focal length of {focal:g} pixels in an "
                    f"image {size} pixels {name} is a field of view of {field:.3g} degrees. "
                    f"{ADVICE}"
                )
            if not CENTRAL <= center / size <= 1 - CENTRAL:
                raise DepthError(
                    f"the camera_info is implausible: its principal point ({self.cx:g}, "
                    f"{self.cy:g}) lies outside the image of {self.width}x{self.height} pixels, "
                    f"or at its border. {ADVICE}"
                )
        return self


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
    """The eight coefficients, or nothing if the lens does not distort.

    The name comes first: a fisheye whose coefficients are all zero is a fisheye all the same.
    """
    known = COEFFICIENTS.get(model or "plumb_bob")
    if known is None:
        raise DepthError(
            f"the distortion model {model[:40]!r} is not known here; known are "
            f"{' and '.join(COEFFICIENTS)}. Use a rectified depth image and its camera_info"
        )
    if not values.any():
        return ()
    fits = values.size in OPENCV_LENGTHS and (known < 8 or values.size >= 8)
    if not fits or not np.isfinite(values).all() or values[known:].any():
        raise DepthError(
            f"the distortion model {model or 'plumb_bob'} needs {known} finite coefficients, "
            f"the camera_info holds {values.tolist()}"
        )
    return (*values[:8].tolist(), *[0.0] * (8 - values.size))


def _distort(points: np.ndarray, distortion: tuple[float, ...]) -> np.ndarray:
    """Where the lens puts x/z, y/z (...,2): the Brown-Conrady model in its rational form."""
    k1, k2, p1, p2, k3, k4, k5, k6 = distortion
    x, y = points[..., 0], points[..., 1]
    r = x * x + y * y
    radial = (1 + r * (k1 + r * (k2 + r * k3))) / (1 + r * (k4 + r * (k5 + r * k6)))
    across = x * radial + 2 * p1 * x * y + p2 * (r + 2 * x * x)
    down = y * radial + p1 * (r + 2 * y * y) + 2 * p2 * x * y
    return np.stack([across, down], axis=-1)


def _undistort(seen: np.ndarray, camera: Intrinsics) -> np.ndarray:
    """The inverse of `_distort`, by fixed-point iteration; NaN where it does not converge."""
    points = seen.copy()
    with np.errstate(all="ignore"):  # what diverges ends as NaN
        for _ in range(UNDISTORTION_STEPS):
            points += seen - _distort(points, camera.distortion)
        error = np.abs(_distort(points, camera.distortion) - seen) * [camera.fx, camera.fy]
    points[~(error < UNDISTORTION_TOLERANCE).all(axis=-1)] = np.nan
    return points
