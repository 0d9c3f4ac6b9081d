"""Parts of a cloud that hang together."""

from __future__ import annotations

import numpy as np

LEAST_PART = 0.1  # smaller parts than this share of the points are stray
NEIGHBOURS = np.array(
    [(x, y, z) for x in (0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if (x, y, z) > (0, 0, 0)]
)


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
