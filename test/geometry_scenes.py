"""Analytic scenes for the geometry tests: what a perfect depth camera sees of simple shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lisa_ros.geometry import Intrinsics

# The middle of what a camera of 640x480 pixels sees: as fine, and quicker to draw.
CAMERA = Intrinsics(400, 300, fx=550.0, fy=552.0, cx=201.0, cy=148.0)


@dataclass(frozen=True)
class Sphere:
    center: np.ndarray
    radius: float

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        """Distance along each ray (...,3), in units of the ray; infinite without a hit."""
        offset = origin - self.center
        a, b = (rays**2).sum(-1), rays @ offset
        inner = b**2 - a * (offset @ offset - self.radius**2)
        with np.errstate(invalid="ignore"):
            t = (-b - np.sqrt(inner)) / a
        return np.where((inner > 0) & (t > 0), t, np.inf)


@dataclass(frozen=True)
class Cuboid:
    center: np.ndarray
    rotation: np.ndarray
    size: np.ndarray

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        start, along = (origin - self.center) @ self.rotation, rays @ self.rotation
        with np.errstate(all="ignore"):  # a ray along a face
            one, other = (-self.size / 2 - start) / along, (self.size / 2 - start) / along
        enter = np.minimum(one, other).max(axis=-1)
        leave = np.maximum(one, other).min(axis=-1)
        return np.where((enter < leave) & (enter > 0), enter, np.inf)


@dataclass(frozen=True)
class Ground:
    normal: np.ndarray
    offset: float

    def hit(self, origin: np.ndarray, rays: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore"):
            t = (self.offset - origin @ self.normal) / (rays @ self.normal)
        return np.where(t > 0, t, np.inf)


Shape = Sphere | Cuboid | Ground


def sight(camera: Intrinsics, finer: int = 1) -> np.ndarray:
    """The lines of sight (H*finer, W*finer, 3) of a camera without distortion, z = 1."""
    u = (np.arange(camera.width * finer) + 0.5) / finer - 0.5
    v = (np.arange(camera.height * finer) + 0.5) / finer - 0.5
    x, y = np.meshgrid((u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy)
    return np.stack([x, y, np.ones_like(x)], axis=-1)


def render(
    shapes: Sequence[Shape],
    camera: Intrinsics = CAMERA,
    pose: np.ndarray | None = None,
    rays: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Depth float32 (H,W) in metres, 0 where nothing is, and the index of the shape seen or -1.

    `pose` (4,4) takes the optical frame to that of the shapes.
    """
    rays = sight(camera) if rays is None else rays
    pose = np.eye(4) if pose is None else pose
    turned = rays @ pose[:3, :3].T
    depth = np.stack([shape.hit(pose[:3, 3], turned) for shape in shapes])
    nearest = depth.min(axis=0)
    seen = np.where(np.isfinite(nearest), depth.argmin(axis=0), -1)
    return np.where(seen >= 0, nearest, 0).astype(np.float32), seen


def noisy(depth: np.ndarray, seed: int, share: float = 0.0025, mixed: bool = True) -> np.ndarray:
    """What a stereo camera would deliver: uint16 millimetres.

    Noise with a standard deviation of `share` times the squared distance in metres, and, if
    `mixed`, pixels beside a step in depth that hang somewhere between the two surfaces.
    """
    random = np.random.default_rng(seed)
    z = depth.astype(float)
    if mixed:
        for axis in (0, 1):
            beside = np.roll(z, 1, axis)
            step = (np.abs(beside - z) > 0.03) & (beside > 0) & (z > 0)
            part = random.uniform(0, 1, z.shape)
            z = np.where(
                step & (random.uniform(size=z.shape) < 0.7), part * z + (1 - part) * beside, z
            )
    z += random.normal(0, share, z.shape) * z**2
    return np.where(depth > 0, np.round(z * 1000), 0).clip(0, 65535).astype(np.uint16)


def upright(up: np.ndarray, yaw: float) -> np.ndarray:
    """A rotation whose z is `up`, turned by `yaw` radians about it."""
    side = np.cross(up, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    other = np.cross(up, side)
    return np.stack(
        [np.cos(yaw) * side + np.sin(yaw) * other, np.cos(yaw) * other - np.sin(yaw) * side, up], 1
    )


def looking(eye: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Pose (4,4) of an optical frame at `eye` that looks at `target`, with z up in the world."""
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = eye
    return pose


@dataclass(frozen=True)
class Tabletop:
    """A cuboid on a table, seen from above at `elevation` radians."""

    thing: Cuboid
    table: Ground
    up: np.ndarray


def on_table(
    size: Sequence[float], yaw: float = 0.5, elevation: float = 0.8, distance: float = 0.6
) -> Tabletop:
    """A cuboid whose middle lies `distance` before the camera, on its table."""
    up = np.array([0.0, -np.cos(elevation), -np.sin(elevation)])
    lengths, middle = np.array(size, float), np.array([0.02, 0.01, distance])
    thing = Cuboid(middle, upright(up, yaw), lengths)
    return Tabletop(thing, Ground(up, float(up @ middle - lengths[2] / 2)), up)
