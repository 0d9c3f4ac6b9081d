"""Poses from the transforms of a recording, without tf2: a table of who hangs on whom, and when."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Any

import numpy as np

from lisa_ros.errors import LisaError
from lisa_ros.geometry import rigid

FAR = 0.5  # seconds from the nearest known transform beyond which a pose is not known
DEEPEST = 100  # links between a frame and its root; more are a circle


class RecordedTransforms:
    """All transforms of a recording, dynamic and static."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}
        self._times: dict[str, list[float]] = {}
        self._poses: dict[str, list[np.ndarray]] = {}
        self._static: dict[str, np.ndarray] = {}

    def add(self, transforms: Iterable[Any], static: bool) -> None:
        """Take the transforms of one TFMessage, in the order of time."""
        for one in transforms:
            child = one.child_frame_id.lstrip("/")
            self._parent[child] = one.header.frame_id.lstrip("/")
            shift, turn = one.transform.translation, one.transform.rotation
            values = np.array([shift.x, shift.y, shift.z, turn.x, turn.y, turn.z, turn.w])
            if static:
                self._static[child] = values
                continue
            self._times.setdefault(child, []).append(seconds(one.header.stamp))
            self._poses.setdefault(child, []).append(values)

    def pose(self, frame: str, target: str, when: float) -> np.ndarray:
        """The pose (4,4) of a frame in the frame `target` at a time, seconds.

        Raises:
            LisaError: the two do not hang together, or not at that time.
        """
        one, other = self._chain(frame), self._chain(target)
        shared = next((name for name in one if name in other), None)
        if shared is None:
            known = ", ".join(sorted({*self._parent, *self._parent.values()})) or "none"
            raise LisaError(f"no transform leads from {frame} to {target}; known frames: {known}")
        up, down = one[: one.index(shared)], other[: other.index(shared)]
        return np.linalg.inv(self._along(down, when)) @ self._along(up, when)

    def _chain(self, frame: str) -> list[str]:
        """A frame, its parent, and so on up to the root."""
        chain = [frame.lstrip("/")]
        while chain[-1] in self._parent:
            chain.append(self._parent[chain[-1]])
            if len(chain) > DEEPEST:
                raise LisaError(f"the transforms run in a circle through {chain[-1]}")
        return chain

    def _along(self, frames: list[str], when: float) -> np.ndarray:
        """The pose (4,4) of the first frame in the parent of the last."""
        pose = np.eye(4)
        for frame in frames:
            pose = self._link(frame, when) @ pose
        return pose

    def _link(self, frame: str, when: float) -> np.ndarray:
        """A frame in its parent, between two known transforms in proportion to the time."""
        if frame in self._static:
            values = self._static[frame]
            return rigid(values[:3], values[3:])
        times, poses = self._times[frame], self._poses[frame]
        after = bisect_left(times, when)
        near = sorted({max(0, after - 1), min(after, len(times) - 1)})
        gap = min(abs(times[index] - when) for index in near)
        if gap > FAR:
            raise LisaError(f"the nearest transform of {frame} is {gap:.1f} s away from the image")
        first, last = near[0], near[-1]
        span = times[last] - times[first]
        share = float(np.clip((when - times[first]) / span, 0, 1)) if span > 0 else 0.0
        # The two quaternions of one rotation differ in sign; between near ones a straight line
        # bent back to the sphere is as good as an arc.
        sign = 1.0 if poses[first][3:] @ poses[last][3:] >= 0 else -1.0
        end = np.concatenate([poses[last][:3], sign * poses[last][3:]])
        values = (1 - share) * poses[first] + share * end
        return rigid(values[:3], values[3:])


def seconds(stamp: Any) -> float:
    """A time message in seconds."""
    return stamp.sec + stamp.nanosec * 1e-9
