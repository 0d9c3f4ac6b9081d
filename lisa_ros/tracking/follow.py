"""Find a thing once and keep it: an instruction asked of the engine, and a tracker in between.

No ROS here. A follower asks again when a track is lost or doubtful, never more often than its
interval; the answer is taken for the old id only if the tracker finds that it looks like the thing
(`Tracker.resume`) and, where places are known, if the thing can have come there meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from lisa_ros.engine.answer import Answer, Instance
from lisa_ros.engine.question import check_image
from lisa_ros.errors import BusyError, LisaError, ServerUnreachable, TrackingError, counted
from lisa_ros.tracking.tracker import Track, Tracker, TrackState, mask_iou

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from lisa_ros.engine.question import AskOptions

Locate = Callable[[np.ndarray], np.ndarray | None]
"""the place (3,), metres, of a mask (H, W) of the image at hand, in a frame that stands still; None
where it cannot be told"""

SAME_THING = 0.5  # IoU from which an answer shows what a track shows already
GRABCUT_ROUNDS = 4


class Asks(Protocol):
    """Who runs the language model: an `Engine`, or one on another machine."""

    def segment(self, image: np.ndarray, instruction: str, **options: Unpack[AskOptions]) -> Answer:
        """As `Engine.segment`."""


@dataclass(frozen=True)
class FollowConfig:
    """When a follower asks again, and how far a thing may have gone."""

    ask_interval: float = 1.0
    """seconds between two runs of the language model at least, by the stamps of the images"""
    doubtful_below: float = 0.4
    """score of a visible track below which the instruction is asked again"""
    place_tolerance: float = 0.15
    """metres between the last place of a thing and where it is found again, if no time passed"""
    max_speed: float = 0.5
    """metres per second that a thing may have moved while it was unseen"""


class Follower:
    """Follows what an instruction means, or what somebody pointed at, from image to image."""

    def __init__(
        self, engine: Asks, tracker: Tracker, config: FollowConfig = FollowConfig()
    ) -> None:
        """`tracker`: this follower's own; it may have been used before."""
        self.engine, self.tracker, self.config = engine, tracker, config
        self.instruction = ""
        """what is asked again; empty: nothing is, and a lost thing must be found by the tracker"""
        self.answer: Answer | None = None
        """the last one of the model"""
        self.asked = 0
        """runs of the language model since `begin`"""
        self.left_out = 0
        """things of the first answer for which the tracker had no room, the least sure ones"""
        self.fault = ""
        """why nothing could be looked for in the newest image, or asked about it: the server of a
        remote model does not answer, or has no room"""
        self.tracks: list[Track] = []
        self.places: dict[int, np.ndarray] = {}
        self.clock, self.last_stamp, self.asked_at = 0.0, 0.0, 0.0

    def begin(
        self,
        image: np.ndarray,
        *,
        stamp: float,
        key: Hashable | None = None,
        instruction: str = "",
        instances: Sequence[Instance] = (),
        box: Sequence[int] = (),
        point: Sequence[int] = (),
        locate: Locate | None = None,
        **limits: Unpack[AskOptions],
    ) -> list[Track]:
        """Begin with the first of these that is given: instances, box, point, instruction.

        `instances`: of an earlier answer about this very image; where the instruction behind them
        is given as well, it is asked again when they are lost. `box`: x, y, width, height; `point`:
        x, y, in pixels. `limits`: `cancel` and `deadline` of the question.
        Returns no tracks where the model found nothing; `answer` then holds what it said.

        Raises:
            TrackingError: nothing to begin with is given, or box or point lie beside the image.
            ImageError, InstructionError: as `Engine.segment`.
        """
        check_image(image)
        self.instruction, self.answer = instruction, None
        self.asked, self.left_out, self.places = 0, 0, {}
        self.clock, self.last_stamp = 0.0, stamp
        if instances:
            found = list(instances)
        elif len(box) or len(point):
            found = [instance_at(image, box=box, point=point, label=instruction)]
        elif instruction:
            found = self._ask(image, key, limits)
        else:
            raise TrackingError(
                "nothing says what to follow; give an instruction, an instance of an earlier "
                "answer, a box or a point"
            )
        found = sorted((i for i in found if i.area), key=lambda i: -i.score)
        self.left_out = max(0, len(found) - self.tracker.max_tracks)
        tracks = self.tracker.start(image, found[: self.tracker.max_tracks], stamp=stamp, key=key)
        self._note_places(tracks, locate)
        self.tracks, self.fault = tracks, ""
        return tracks

    def update(
        self,
        image: np.ndarray,
        *,
        stamp: float,
        key: Hashable | None = None,
        locate: Locate | None = None,
        **limits: Unpack[AskOptions],
    ) -> list[Track]:
        """The tracks in the next image; asks the model where one is lost or doubtful.

        An answer that was broken off by `cancel` or `deadline` is not taken. Where a remote model's
        server does not answer, nothing is visible, and `fault` says why.
        """
        passed = max(0.0, stamp - self.last_stamp)  # a clock that jumps back adds nothing
        self.clock, self.last_stamp, self.fault = self.clock + passed, stamp, ""
        try:
            tracks = self.tracker.update(image, stamp=stamp, key=key)
        except (ServerUnreachable, BusyError) as error:
            self.fault = str(error)
            tracks = [self._unseen(track, image, passed) for track in self.tracks]
        least = self.config.doubtful_below
        missing = [t for t in tracks if t.state != TrackState.VISIBLE or t.score < least]
        may_ask = not self.asked or self.clock - self.asked_at >= self.config.ask_interval
        if self.instruction and missing and not self.fault and may_ask:
            try:
                # without the key: what is kept of images must not grow with every question
                found = self._ask(image, None, limits)
                tracks = self._match(tracks, missing, found, image, stamp, key, locate)
            except (ServerUnreachable, BusyError) as error:
                self.fault = str(error)
        self._note_places(tracks, locate)
        self.tracks = tracks
        return tracks

    def drop(self, track_id: int) -> None:
        """Follow one thing less."""
        self.tracker.drop(track_id)
        self.places.pop(track_id, None)
        self.tracks = [track for track in self.tracks if track.id != track_id]

    def _unseen(self, track: Track, image: np.ndarray, passed: float) -> Track:
        """The same track in an image in which nothing could be looked for, some seconds later."""
        return replace(
            track,
            mask=np.zeros(image.shape[:2], bool),
            box=(0, 0, 0, 0),
            score=0.0,
            state=self.tracker.hidden_state(track.unseen + passed),
            unseen=track.unseen + passed,
            age=track.age + passed,
        )

    def _ask(self, image: np.ndarray, key: Hashable | None, limits: AskOptions) -> list[Instance]:
        self.asked, self.asked_at = self.asked + 1, self.clock
        self.answer = self.engine.segment(image, self.instruction, mode="mask", key=key, **limits)
        return self.answer.instances if self.answer.status == "OK" else []

    def _match(
        self,
        tracks: list[Track],
        missing: list[Track],
        found: list[Instance],
        image: np.ndarray,
        stamp: float,
        key: Hashable | None,
        locate: Locate | None,
    ) -> list[Track]:
        """Give each instance to at most one doubtful track that it agrees with."""
        sure = [t for t in tracks if t not in missing]
        # what a sure track shows already is that thing, not the one that is missing
        free = [i for i in found if all(mask_iou(i.mask, t.mask) < SAME_THING for t in sure)]
        resumed: dict[int, Track] = {}
        for track in missing:
            for instance in sorted(free, key=lambda i: -i.score):
                if not self._can_be_there(track, instance, locate):
                    continue
                again = self.tracker.resume(track.id, image, instance, stamp=stamp, key=key)
                if again is not None:
                    resumed[track.id] = again
                    free = [i for i in free if i is not instance]
                    break
        return [resumed.get(t.id, t) for t in tracks]

    def _can_be_there(self, track: Track, instance: Instance, locate: Locate | None) -> bool:
        last = self.places.get(track.id)
        place = locate(instance.mask) if locate is not None and last is not None else None
        if place is None:
            return True
        reach = self.config.place_tolerance + self.config.max_speed * track.unseen
        return float(np.linalg.norm(place - last)) <= reach

    def _note_places(self, tracks: Sequence[Track], locate: Locate | None) -> None:
        for track in tracks:
            if locate is not None and track.state == TrackState.VISIBLE:
                place = locate(track.mask)
                if place is not None:
                    self.places[track.id] = place


def instance_at(
    image: np.ndarray, *, box: Sequence[int] = (), point: Sequence[int] = (), label: str = ""
) -> Instance:
    """The thing in a box (x, y, width, height) or around a point (x, y), cut out by its colours.

    GrabCut (Rother et al., 2004). Around a point, what differs in colour from the point's own
    surroundings is left out, and nothing is taken that lies further than a quarter of the image.
    """
    height, width = image.shape[:2]
    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    if len(box):
        if len(box) != 4:
            given = counted(len(box), "number")
            raise TrackingError(f"a box is x, y, width, height; this one has {given}")
        x, y, w, h = (int(v) for v in box)
        if w < 2 or h < 2 or x < 0 or y < 0 or x + w > width or y + h > height:
            raise TrackingError(
                f"the box {x}, {y}, {w}, {h} does not lie in the image of {width}x{height} pixels"
            )
        labels[y : y + h, x : x + w] = cv2.GC_PR_FGD
        whole = labels == cv2.GC_PR_FGD
    else:
        if len(point) != 2:
            raise TrackingError(f"a point is x, y; this one has {counted(len(point), 'number')}")
        x, y = (int(v) for v in point)
        if not (0 <= x < width and 0 <= y < height):
            raise TrackingError(
                f"the point {x}, {y} does not lie in the image of {width}x{height} pixels"
            )
        reach = max(4, min(height, width) // 4)
        cv2.circle(labels, (x, y), reach, cv2.GC_PR_BGD, -1)
        cv2.circle(labels, (x, y), max(2, reach // 4), cv2.GC_PR_FGD, -1)
        cv2.circle(labels, (x, y), max(1, reach // 16), cv2.GC_FGD, -1)
        whole = labels == cv2.GC_PR_FGD
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)
    cut = np.zeros((height, width), bool)
    try:
        cv2.grabCut(image, labels, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
        cut = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    except cv2.error:
        pass  # a box that leaves no background: nothing to tell it apart from
    if len(point):
        # only the part that holds the point
        _, parts = cv2.connectedComponents(cut.astype(np.uint8))
        cut &= parts == parts[y, x]
    mask = cut if cut.any() else whole
    return Instance(mask, 1.0, 1.0, label)


def load_sam2(trackers: Sequence[str], folder: str | None) -> Any:
    """The network of the tracker `sam2` from its folder; None where no tracker is that one.

    Raises:
        LisaError: the folder is not given though it is used, or given and is not.
        CheckpointError: it holds no SAM 2.
    """
    if "sam2" in trackers and not folder:
        raise LisaError("the tracker sam2 needs --sam2 DIR: a folder of SAM 2 or EdgeTAM")
    if folder and "sam2" not in trackers:
        raise LisaError("--sam2 has the weights of another tracker: give --tracker sam2 as well")
    if not folder:
        return None
    from lisa_ros.tracking.sam2 import load_sam2_network

    return load_sam2_network(folder)
