"""What every tracker gives and takes, whatever stands behind it: `lisa` (lisa.py) or `sam2`.

All trackers treat their input alike:

- **Stamps** are seconds on any clock. A stamp that is not later than the last one adds nothing to
  `age` and `unseen`; where it lies before it (a clock that jumped back, a bag that began again),
  or more than `LONGEST_GAP` after it, the motion between the two images says nothing: each thing
  is looked for by its appearance, and is occluded until it is found.
- **A new resolution** of the same shape goes on, masks in the new size; with another aspect ratio
  it is a gap.
- **A black image**, or any other without contrast, shows nothing: every track is occluded, and the
  next image is compared with the last one that showed something.
- **A frozen image**, equal to the last one to the byte, leaves masks and scores as they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from lisa_ros.engine.answer import Instance, mask_box
from lisa_ros.engine.question import check_image
from lisa_ros.errors import TrackingError

LONGEST_GAP = 1.0
"""seconds between two images, beyond which motion says nothing"""
LOST_AFTER = 3.0
"""seconds that a thing may be unseen before it counts as lost, where nobody says otherwise"""
MAX_TRACKS = 16
"""things that one tracker keeps, where nobody says otherwise"""


class TrackState(str, Enum):
    """Where a thing is, as far as the tracker can tell."""

    VISIBLE = "visible"
    """the mask is where the thing is in this image"""
    OCCLUDED = "occluded"
    """hidden or out of the image, and expected back; the mask is empty"""
    LOST = "lost"
    """unseen for longer than the limit; the mask is empty. It may still be found again"""


@dataclass(frozen=True)
class Track:
    """One thing in one image."""

    id: int
    """1, 2, ... in the life of the tracker; never given to another thing"""
    label: str
    """the words that the thing was found by"""
    mask: np.ndarray
    """(H, W) bool at the size of the image; empty unless the thing is visible"""
    box: tuple[int, int, int, int]
    """x, y, width, height in pixels; zeros for an empty mask"""
    score: float
    """0..1: how probable it is that this is still the thing that the track began with; of one that
    is not visible: how well the best candidate of this image agreed with it"""
    state: TrackState
    unseen: float
    """seconds since it was last seen; 0 while it is visible"""
    age: float
    """seconds since the track began"""


class Tracker(ABC):
    """Keeps a bounded number of things. One caller at a time; images are uint8 (H, W, 3) RGB.

    `key` names the image as in `Engine.segment`: features that are known under it are not computed
    again. Lists of tracks are in the order of their ids and hold every track that was not dropped.
    """

    def __init__(self, max_tracks: int, lost_after: float) -> None:
        """`lost_after`: seconds unseen after which a thing is lost instead of occluded."""
        self.max_tracks, self.lost_after = max_tracks, lost_after
        self.counters: Counter[str] = Counter()
        """what it took so far: `frames`, `sam_encodes`, `decodes` and what else a tracker counts"""
        self.things: dict[int, Any] = {}
        """by their ids; each knows its `id`, its `label`, and when it `began` and was `last_seen`
        by the clock"""
        self.last_id, self.clock, self.stamp = 0, 0.0, 0.0

    def start(
        self,
        image: np.ndarray,
        instances: Sequence[Instance],
        *,
        stamp: float,
        key: Hashable | None = None,
    ) -> list[Track]:
        """Drop what was tracked and begin with these; ids go on counting.

        Raises:
            TrackingError: there are more than `max_tracks`, one is empty, or one is not of the
                image's size; nothing has changed then.
            ImageError: not an image that an engine could be asked about.
        """
        check_things(image, instances, self.max_tracks, self.max_tracks)
        self.things, self.clock, self.stamp = {}, 0.0, stamp
        self._forget(stamp)
        return self._begin(image, instances, stamp, key) if instances else []

    def add(
        self,
        image: np.ndarray,
        instances: Sequence[Instance],
        *,
        stamp: float,
        key: Hashable | None = None,
    ) -> list[Track]:
        """Begin more tracks with the newest image, the one of the last `start` or `update`.

        Where `image` is another one, it is taken as an `update` first. Returns the new tracks.
        Raises as `start` does.
        """
        check_things(image, instances, self.max_tracks - len(self.things), self.max_tracks)
        return self._begin(image, instances, stamp, key) if instances else []

    def update(
        self, image: np.ndarray, *, stamp: float, key: Hashable | None = None
    ) -> list[Track]:
        """Look for everything in the next image. Raises `ImageError` as `start` does."""
        check_image(image)
        self.counters["frames"] += 1
        self.clock += max(0.0, stamp - self.stamp)
        self.stamp = stamp
        return self._update(image, stamp, key)

    def resume(
        self,
        track_id: int,
        image: np.ndarray,
        instance: Instance,
        *,
        stamp: float,
        key: Hashable | None = None,
    ) -> Track | None:
        """Go on from this mask, of the newest image, if it looks like the thing of that track.

        None, and nothing has changed, where its appearance disagrees, or agrees as well with a
        look-alike that was seen beside the thing. Raises as `start` does.
        """
        thing = self._thing(track_id)
        check_things(image, [instance], 1, self.max_tracks)
        return self._resume(thing, image, instance, stamp, key)

    def drop(self, track_id: int) -> None:
        """Let go of a thing; its id is not used again. Raises `TrackingError` if there is none."""
        self._thing(track_id)
        del self.things[track_id]

    @abstractmethod
    def _forget(self, stamp: float) -> None:
        """Everything about earlier images, before a new start."""

    @abstractmethod
    def _begin(
        self, image: np.ndarray, instances: Sequence[Instance], stamp: float, key: Hashable | None
    ) -> list[Track]:
        """`add` for masks that were checked, and are some."""

    @abstractmethod
    def _update(self, image: np.ndarray, stamp: float, key: Hashable | None) -> list[Track]:
        """`update` when the clock has been set."""

    @abstractmethod
    def _resume(
        self, thing: Any, image: np.ndarray, instance: Instance, stamp: float, key: Hashable | None
    ) -> Track | None:
        """`resume` for a mask that was checked."""

    def _thing(self, track_id: int) -> Any:
        if track_id not in self.things:
            raise TrackingError(f"there is no track {track_id}: it was dropped, or never begun")
        return self.things[track_id]

    def hidden_state(self, unseen: float) -> TrackState:
        """Of a thing that was not seen for so many seconds."""
        return TrackState.LOST if unseen > self.lost_after else TrackState.OCCLUDED

    def _shown(self, thing: Any, mask: np.ndarray, score: float) -> Track:
        """A thing as it is handed out; its mask (H, W) is empty where it is not seen."""
        unseen = 0.0 if mask.any() else float(self.clock - thing.last_seen)
        state = TrackState.VISIBLE if mask.any() else self.hidden_state(unseen)
        age = float(self.clock - thing.began)
        return Track(thing.id, thing.label, mask, mask_box(mask), float(score), state, unseen, age)


def check_things(image: np.ndarray, instances: Sequence[Instance], room: int, most: int) -> None:
    """Raise `TrackingError` unless these masks of the image can be followed.

    room: how many more things there may be, of `most` that the tracker keeps.
    """
    check_image(image)
    if len(instances) > room:
        raise TrackingError(
            f"{len(instances)} more things cannot be followed: {most - room} of at most {most} "
            "are; drop some, or allow more"
        )
    for instance in instances:
        if instance.mask.shape != image.shape[:2]:
            raise TrackingError(
                f"a mask of {instance.mask.shape[1]}x{instance.mask.shape[0]} pixels does not "
                f"belong to an image of {image.shape[1]}x{image.shape[0]}"
            )
        if not instance.mask.any():
            raise TrackingError(f"the mask of '{instance.label}' is empty: nothing to follow")


def mask_iou(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two masks of one size; 0 where both are empty."""
    union = np.count_nonzero(first | second)
    return np.count_nonzero(first & second) / union if union else 0.0
