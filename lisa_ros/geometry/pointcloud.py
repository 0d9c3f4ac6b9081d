"""Clouds of points: which of them hang together, the plane under an object, and clouds as bytes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_PART = 0.1  # smaller parts than this share of the points are stray
NEIGHBOURS = np.array(
    [(x, y, z) for x in (0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]
)
TRIALS = 100  # planes that are drawn
LEAST_SHARE = 0.3  # of the surroundings that must lie in the plane
LEAST_SAMPLES = 50
OBJECT_SAMPLES = 100
BELOW = 0.1  # of the object that may seem to lie under its support
UPRIGHT = np.cos(np.deg2rad(20))  # with gravity known, steeper planes are no support
# What RViz and PCL know as XYZRGB: colour as 0x00rrggbb in the bits of a float32.
XYZRGB = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<f4")])
PLY_COLUMNS = {"x": "<f4", "y": "<f4", "z": "<f4", "red": "u1", "green": "u1", "blue": "u1"}
PLY_NAMES = {"<f4": "float", "u1": "uchar"}


def voxel_keys(points: np.ndarray, edge: float, origin: np.ndarray) -> np.ndarray:
    """One int64 (N,) per point: equal for points in the same cube of `edge` metres.

    Keys of neighbouring cubes differ by a fixed amount, see `_key`. Cubes more than a million
    edges away from `origin` (3,) would run into each other.
    """
    return _key(np.floor((points - origin) / edge).astype(np.int64) + (1 << 20))


def _key(cubes: np.ndarray) -> np.ndarray:
    """Three coordinates (...,3) in one number: 21 bits each. It is linear, so steps add up."""
    return (cubes[..., 0] << 42) + (cubes[..., 1] << 21) + cubes[..., 2]


def connected_components(points: np.ndarray, gap: float) -> np.ndarray:
    """The number (N,), from 0, of the component that each point belongs to.

    Points closer than `gap` metres are in the same one; points farther apart than 3.5 gaps are
    not, unless others lie between them.
    """
    keys, where = np.unique(voxel_keys(points, gap, points[0]), return_inverse=True)
    edges = []
    for step in _key(NEIGHBOURS):
        at = np.searchsorted(keys, keys + step)
        found = at < len(keys)
        found[found] = keys[at[found]] == (keys + step)[found]
        edges.append(np.stack([np.flatnonzero(found), at[found]]))
    one, other = np.concatenate(edges, axis=1)
    label = np.arange(len(keys))
    while (label[one] != label[other]).any():
        smaller = np.minimum(label[one], label[other])
        np.minimum.at(label, one, smaller)
        np.minimum.at(label, other, smaller)
        label = label[label]  # straight to the label's own label: long chains close fast
    return np.unique(label, return_inverse=True)[1][where]


def object_components(points: np.ndarray, gap: float) -> np.ndarray:
    """Which points (N,3), in the optical frame, belong to the object: bool (N,).

    That is the largest part and those that something in front may have cut off from it: at least a
    tenth of all points, and beside the largest part. What lies behind it is background that the
    mask spilled on.
    """
    part = connected_components(points, gap)
    sizes = np.bincount(part)
    largest = points[part == sizes.argmax()]
    low, high = largest.min(axis=0), largest.max(axis=0)
    margin = float((high - low).max()) / 2
    keep = np.arange(len(sizes)) == sizes.argmax()
    for index in np.flatnonzero(sizes >= LEAST_PART * len(points)):
        middle = float(np.median(points[part == index, 2]))
        keep[index] |= low[2] - margin < middle < high[2] + margin
    return keep[part]


@dataclass(frozen=True)
class Plane:
    """The points p with normal·p = offset.

    Attributes:
        normal: unit vector (3,), towards the side on which the object is.
        offset: metres.
        spread: root mean square of the distances of the measured points from the plane, metres.
    """

    normal: np.ndarray
    offset: float
    spread: float

    def height(self, points: np.ndarray) -> np.ndarray:
        """Signed distances (N,) of points (N,3) above the plane, metres."""
        return points @ self.normal.astype(points.dtype) - points.dtype.type(self.offset)

    def transformed(self, pose: np.ndarray) -> Plane:
        """The plane carried by a 4x4 transform."""
        normal = pose[:3, :3] @ self.normal
        return Plane(normal, self.offset + float(normal @ pose[:3, 3]), self.spread)


def support_plane(
    around: np.ndarray, obj: np.ndarray, tolerance: float, up: np.ndarray | None
) -> Plane | None:
    """The plane that holds most of an object's surroundings and has the object on one side.

    RANSAC (Fischler and Bolles, 1981), then two rounds of least squares over the points within the
    tolerance. The draws are always the same ones.

    Args:
        around: (M,3) points of the surroundings, in the optical frame, metres; a thousand will do.
        obj: (N,3) points of the object.
        tolerance: distance within which a point lies in the plane, metres.
        up: unit vector against gravity, or None: then any direction is possible.

    Returns:
        None if no such plane holds 30 % of the surroundings.
    """
    if len(around) < LEAST_SAMPLES:
        return None
    obj = obj[:: max(1, len(obj) // OBJECT_SAMPLES)]
    normals, offsets = _trials(around, obj, up)
    below = (normals @ obj.T - offsets[:, None] < -2 * tolerance).mean(axis=1)
    votes = (np.abs(normals @ around.T - offsets[:, None]) < tolerance).sum(axis=1)
    votes[below > BELOW] = 0
    if up is not None:
        votes[normals @ up.astype(normals.dtype) < UPRIGHT] = 0
    best = int(votes.argmax())
    normal, offset = normals[best].astype(float), float(offsets[best])
    for _ in range(2):
        inside = around[np.abs(around @ normal - offset) < tolerance].astype(float)
        if not votes[best] or len(inside) < max(LEAST_SHARE * len(around), LEAST_SAMPLES):
            return None
        middle = inside.mean(axis=0)
        fitted = np.linalg.eigh(np.cov((inside - middle).T))[1][:, 0]
        normal = fitted if fitted @ normal > 0 else -fitted
        offset = float(normal @ middle)
    spread = float(np.sqrt(np.mean((inside @ normal - offset) ** 2)))
    return Plane(normal, offset, spread)


def _trials(
    around: np.ndarray, obj: np.ndarray, up: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Normals (T,3) and offsets (T,) of planes through three points each.

    The normals point along `up` or, without it, to the side of the object.
    """
    corners = around[np.random.default_rng(0).integers(0, len(around), (TRIALS, 3))]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    normals /= np.maximum(lengths, np.float32(1e-9))
    offsets = (normals * corners[:, 0]).sum(axis=1)
    toward = normals @ up.astype(normals.dtype) if up is not None else None
    flip = np.median(normals @ obj.T, axis=1) < offsets if toward is None else toward < 0
    normals[flip] *= -1
    offsets[flip] *= -1
    return normals, offsets


def pack(points: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """A structured array (N,) of dtype `XYZRGB`; its bytes are the data of a PointCloud2.

    Args:
        points: (N,3) metres.
        colors: uint8 (N,3) RGB.
    """
    packed = np.empty(len(points), XYZRGB)
    for index, name in enumerate("xyz"):
        packed[name] = points[:, index]
    red, green, blue = colors.astype(np.uint32).T
    packed["rgb"] = (red << 16 | green << 8 | blue).view(np.float32)
    return packed


def colors_at(rgb: np.ndarray, pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The colours uint8 (N,3) of depth pixels, from a colour image of the same view.

    Args:
        rgb: uint8 (H,W,3).
        pixels: int (N,2), column and row in the depth image.
        shape: (H',W') of the depth image.
    """
    rows = (2 * pixels[:, 1] + 1) * rgb.shape[0] // (2 * shape[0])
    columns = (2 * pixels[:, 0] + 1) * rgb.shape[1] // (2 * shape[1])
    return rgb[rows, columns]


def ply(points: np.ndarray, colors: np.ndarray) -> bytes:
    """A binary PLY file of points (N,3) in metres and colours uint8 (N,3)."""
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property {PLY_NAMES[kind]} {name}" for name, kind in PLY_COLUMNS.items()]
    vertices = np.empty(len(points), list(PLY_COLUMNS.items()))
    for name, column in zip(PLY_COLUMNS, [*points.T, *colors.T], strict=True):
        vertices[name] = column
    return "\n".join([*header, "end_header\n"]).encode() + vertices.tobytes()
