"""The tracker that needs no weights beyond LISA's own: motion, colours, and SAM where in doubt.

All of it happens at WORK_SIDE pixels. In every image:

1. Dense optical flow (DIS, Kroeger et al., 2016) both ways, and the motion of the whole image.
2. What was seen is carried along: pixel by pixel by the flow (which knows what got covered) and as
   one shape by an affine fit to the flow inside it (which knows what is still to be uncovered).
   Colours of the thing against those around it decide between the two.
3. Pixels that two things claim go to the surer one. Look-alikes are carried along like things, so
   that nothing is taken for the thing that was beside it before.
4. A thing of which too little is left, or which no longer looks like itself, is occluded. It is
   looked for where the image's motion takes its shape, among regions of its colours, and where
   SAM's mask decoder finds the `[SEG]` embedding; what is found must look like what is remembered.

SAM's encoder runs only while something is doubtful; the language model never.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lisa_ros.engine.answer import Instance
from lisa_ros.tracking.motion import SharedMotion, warp
from lisa_ros.tracking.thing import (
    MARGIN,
    PRIOR,
    SMALLEST,
    Thing,
    View,
    clean,
    contrast_of,
    histogram,
    log_ratio,
    signed_distance,
    snapped,
    work_mask,
)
from lisa_ros.tracking.tracker import (
    LONGEST_GAP,
    LOST_AFTER,
    MAX_TRACKS,
    Track,
    Tracker,
    mask_iou,
)

if TYPE_CHECKING:
    from lisa_ros.engine.engine import Engine

CONTRAST = 4.0  # standard deviation of grey values below which an image shows nothing
LEAST_VISIBLE = 0.2  # share of a shape below which the thing counts as hidden
WHOLE = 0.8  # share of a shape above which the thing is seen as a whole
SAME, UNLIKE = 0.5, 0.15  # probability from which a region is the thing; below which it is not
REMEMBER_EVERY = 0.4  # seconds
SEARCH_EVERY = 3  # images from one run of SAM to the next while something is missing
ALIKES_EVERY = 15  # images between two looks for look-alikes
MAX_ALIKES = 4
SLOPE = 0.9  # log odds per pixel of distance to an outline


class LisaTracker(Tracker):
    """Follows things through images by flow and appearance; see `Tracker` for the methods.

    `counters`: frames; flow, frozen, blank (what became of them); sam_encodes (runs of SAM's
    encoder: at most one an image); decodes (masks decoded from an embedding); searches.
    """

    def __init__(
        self,
        engine: Engine | None,
        *,
        max_tracks: int = MAX_TRACKS,
        lost_after: float = LOST_AFTER,
        shared: SharedMotion | None = None,
    ) -> None:
        """`engine`: whose SAM helps to find things again; None: motion and colours alone.

        `shared`: with the other trackers that look at the same images, which must name them by
        `key`.
        """
        super().__init__(max_tracks, lost_after)
        self.engine = engine
        self.alikes: list[Thing] = []
        self.shown = 0.0  # stamp of `view`
        self.view: View | None = None  # the last one that showed something
        self.hw = (0, 0)
        self.blank = False
        self.since_search = SEARCH_EVERY
        self.shared = shared or SharedMotion()

    # What every tracker does

    def _forget(self, stamp: float) -> None:
        self.alikes, self.view, self.shown = [], None, stamp

    def _begin(
        self, image: np.ndarray, instances: Sequence[Instance], stamp: float, key: Hashable | None
    ) -> list[Track]:
        view, new = self._newest(image, stamp, key), []
        for instance in instances:
            self.last_id += 1
            mask = work_mask(instance.mask, view)
            if instance.seg_embedding is not None:
                # a model's mask is coarse; one that was drawn by hand is not
                mask = snapped(mask, view)
            thing = Thing.begun(view, mask, self.last_id, instance.label, self.clock)
            thing.embedding = instance.seg_embedding
            new.append(thing)
        self.things |= {thing.id: thing for thing in new}
        self._find_alikes(view)
        return [self._track(thing) for thing in new]

    def _update(self, image: np.ndarray, stamp: float, key: Hashable | None) -> list[Track]:
        view = self.shared.view(image, key)
        self.hw = view.hw
        # 1. images that say nothing new, or nothing at all
        self.blank = float(view.gray.std()) < CONTRAST
        if self.blank:
            self.counters["blank"] += 1
            return [self._track(thing) for thing in self.things.values()]
        gap, self.shown = stamp - self.shown, stamp
        last, self.view = self.view, view
        if last is not None and np.array_equal(last.rgb, view.rgb):
            self.counters["frozen"] += 1
            return self._seen()
        if last is not None and last.gray.shape != view.gray.shape:
            last = self._rescale(last, view)
        if last is None or not 0 <= gap <= LONGEST_GAP:
            # 2. nothing connects this image with the last one
            self.alikes = []
            for thing in self.things.values():
                thing.visible, thing.placed = False, False
        elif self.things:
            # 3. carry along what was seen
            self.counters["flow"] += 1
            self._carry(last, view)
        # 4. look for what is missing
        missing = [thing for thing in self.things.values() if not thing.visible]
        if missing:
            self._search(view, missing, image, key)
        self.alikes = [alike for alike in self.alikes if alike.visible]
        if self.counters["frames"] % ALIKES_EVERY == 0:
            self._find_alikes(view)
        return self._seen()

    def _resume(
        self,
        thing: Thing,
        image: np.ndarray,
        instance: Instance,
        stamp: float,
        key: Hashable | None,
    ) -> Track | None:
        view = self._newest(image, stamp, key)
        mask = work_mask(instance.mask, view)
        if instance.seg_embedding is not None:
            mask = snapped(mask, view, thing.colors, thing.around)
        like = thing.likeness(view, mask)
        if like < SAME or self._is_taken(mask, thing):
            return None
        if instance.seg_embedding is not None:
            thing.embedding = instance.seg_embedding
        self._place(thing, view, mask, like)
        return self._track(thing)

    def drop(self, track_id: int) -> None:
        """Let go of a thing; what looked like the last one goes with it."""
        super().drop(track_id)
        if not self.things:
            self.alikes = []

    def _newest(self, image: np.ndarray, stamp: float, key: Hashable | None) -> View:
        """The view of the newest image, after an update where it is not known yet."""
        view = self.shared.view(image, key)
        if self.view is None:
            self.view, self.hw, self.blank = view, view.hw, False
        elif view.hw != self.view.hw or not np.array_equal(view.rgb, self.view.rgb):
            self.update(image, stamp=stamp, key=key)
        return self.view

    @property
    def _every(self) -> list[Thing]:
        """Things and look-alikes."""
        return [*self.things.values(), *self.alikes]

    # Carrying along

    def _carry(self, last: View, view: View) -> None:
        """Move masks and shapes by the flow; decide by colours; say what is hidden."""
        motion = self.shared.between(last, view)
        odds: list[tuple[Thing, tuple[slice, slice], np.ndarray]] = []
        for thing in self._every:
            if not thing.visible:
                if thing.placed:
                    moved = motion.camera.copy()
                    moved[:, 2] += thing.motion
                    thing.motion *= 0.9
                    thing.shape = warp(thing.shape, moved)
                    thing.prob = np.zeros_like(thing.prob)
                continue
            room = motion.room(thing.shape, MARGIN)
            agrees = motion.agrees[room]
            was = cv2.remap(thing.prob, motion.source[room], None, cv2.INTER_LINEAR)
            rows, columns = np.nonzero((was > 0.5) & agrees)
            affine = motion.camera
            if len(rows) >= SMALLEST:
                here = np.stack([columns + room[1].start, rows + room[0].start], axis=1)
                affine, shift = motion.of(here)
                thing.motion = 0.7 * thing.motion + 0.3 * shift
            thing.shape = warp(thing.shape, affine)
            thing.whole *= float(np.clip(np.linalg.det(affine[:, :2]), 0.95, 1.05))
            flowed = np.clip(np.where(agrees, was, 0.5 * was), 0.02, 0.98)
            color = log_ratio(thing.colors, thing.around)[view.bins[room]]
            color = cv2.blur(color, (3, 3))
            shape = np.clip(SLOPE * thing.shape[room], -2 * PRIOR, PRIOR)
            weight = 0.3 + 0.8 * thing.contrast
            post = 0.6 * np.log(flowed / (1 - flowed)) + 0.4 * shape + weight * color
            odds.append((thing, room, post))
        # pixels that two claim are those of the surer one
        best = np.full(view.gray.shape, -np.inf, np.float32)
        for _, room, post in odds:
            np.maximum(best[room], post, out=best[room])
        for thing, room, post in odds:
            won = np.where(post >= best[room], post, -PRIOR)
            thing.prob = np.zeros(view.gray.shape, np.float32)
            thing.prob[room] = 1 / (1 + np.exp(-np.clip(won, -PRIOR, PRIOR)))
            self._judge(thing, view, room)

    def _judge(self, thing: Thing, view: View, room: tuple[slice, slice]) -> None:
        """Whether a thing is still seen after it was carried along, and what is learnt from it.

        `room`: the part of the image in which it can be.
        """
        part, prob, shape = view.part(room), thing.prob[room], thing.shape[room]
        mask = clean(prob > 0.5, shape)
        if thing.partial and mask.any():
            known = np.zeros(view.gray.shape, bool)
            known[room] = mask
            mask = self._completed(thing, view, known)  # it may come out beyond the room
            part, prob, shape = view, thing.prob, thing.shape
        prob[~mask] = np.minimum(prob[~mask], 0.45)
        area = np.count_nonzero(mask)
        share = area / thing.whole
        # it may turn from one image to the next: its colours alone must stay
        like = thing.likeness(part, mask, whole=False)
        thing.score = 0.6 * thing.score + 0.4 * like
        if area <= SMALLEST or share < LEAST_VISIBLE or thing.score < UNLIKE:
            self._hide(thing, view)
            return
        thing.partial = thing.partial and share < WHOLE
        ring = (shape < -1) & (shape > -MARGIN) & ~mask
        covered = (shape > 0) & ~mask & (prob < 0.3)
        thing.around = 0.8 * thing.around + 0.2 * histogram(part.bins[ring | covered])
        contrast = contrast_of(part, mask, ring, thing.colors, thing.around)
        thing.contrast += 0.2 * (min(1.0, max(0.0, contrast)) - thing.contrast)
        if WHOLE < share < 1 / WHOLE and like > SAME:
            rate = 0.2 + 0.3 * thing.contrast
            shape += rate * (signed_distance(mask) - shape)
            thing.whole += 0.05 * (area - thing.whole)
            if self.clock - thing.remembered >= REMEMBER_EVERY:
                thing.remember(part, mask, self.clock)

    def _completed(self, thing: Thing, view: View, mask: np.ndarray) -> np.ndarray:
        """The mask of a thing that came back in part, with what has come out since."""
        area = np.count_nonzero(mask)
        for more, _, _ in self._candidates(thing, view, None):
            fits = area < np.count_nonzero(more) < 1.25 * thing.whole
            if fits and np.count_nonzero(more & mask) > 0.6 * area:
                thing.shape = signed_distance(more)
                thing.prob = np.maximum(thing.prob, np.where(more, 0.9, 0)).astype(np.float32)
                return more
        return mask

    def _hide(self, thing: Thing, view: View) -> None:
        """It is seen no more. What looks like it and stands in its place now is what hides it."""
        thing.visible, thing.prob = False, np.zeros_like(thing.prob)
        if thing.id == 0 or len(self.alikes) >= MAX_ALIKES:
            return
        for mask, _, _ in reversed(self._candidates(thing, view, None)):
            over = np.count_nonzero(mask & (thing.shape > 0))
            if over > 0.3 * thing.whole and not self._is_taken(mask, thing):
                self.alikes.append(Thing.begun(view, mask, 0, "", self.clock))
                return

    # Looking for what is missing

    def _search(
        self, view: View, missing: list[Thing], image: np.ndarray, key: Hashable | None
    ) -> None:
        """Find missing things again; a candidate goes to the thing that it is most like."""
        self.counters["searches"] += 1
        decoded: dict[int, np.ndarray] = {}
        self.since_search += 1
        concepts = [thing for thing in missing if thing.embedding is not None]
        if self.engine is not None and concepts and self.since_search >= SEARCH_EVERY:
            self.since_search = 0
            features, computed = self.engine.sam_features(image, key)
            self.counters["sam_encodes"] += computed
            self.counters["decodes"] += len(concepts)
            logits = self.engine.decode_masks(features, np.stack([t.embedding for t in concepts]))
            for thing, one in zip(concepts, logits, strict=True):
                mask = work_mask(one > 0, view)
                decoded[thing.id] = snapped(mask, view, thing.colors, thing.around)
        found: list[tuple[float, Thing, np.ndarray]] = []
        for thing in missing:
            thing.score = 0.0
            for mask, near, whole in self._candidates(thing, view, decoded.get(thing.id)):
                like = near * thing.likeness(view, mask, whole=whole)
                thing.score = max(thing.score, min(like, SAME))
                if like >= SAME and not self._is_taken(mask, thing):
                    found.append((like, thing, mask))
        for like, thing, mask in sorted(found, key=lambda f: -f[0]):
            if not thing.visible and not self._is_taken(mask, thing):
                self._place(thing, view, mask, like)
        for thing in missing:
            inside = thing.shape > 0
            covered = thing.placed and not thing.visible and inside.any()
            if covered and thing.likeness(view, inside, whole=False) < UNLIKE:
                # the colours of what hides it, so that they are not taken for its own
                thing.around = 0.9 * thing.around + 0.1 * histogram(view.bins[inside])

    def _candidates(
        self, thing: Thing, view: View, decoded: np.ndarray | None
    ) -> list[tuple[np.ndarray, float, bool]]:
        """Masks (h, w) that may show a thing, each with how near it is to where it should be, and
        whether it must show the whole of it."""
        color = cv2.blur(log_ratio(thing.colors, thing.around)[view.bins], (3, 3))
        likely = color > 0.3
        for other in self._every:
            if other is not thing and other.visible:
                likely &= other.prob < 0.5
        found = []
        if thing.placed:
            # uncovered where it is expected
            inside = thing.shape > 0
            part = clean(likely & (thing.shape > -2), thing.shape)
            area = np.count_nonzero(part)
            if area > max(SMALLEST, LEAST_VISIBLE * thing.whole):
                found.append((part, 1.0, area > WHOLE * np.count_nonzero(inside)))
        _, labels, stats, _ = cv2.connectedComponentsWithStats(likely.astype(np.uint8))
        order = np.argsort(-stats[1:, cv2.CC_STAT_AREA])[:6] + 1
        for number in order:
            x, y, w, h, area = stats[number]
            if LEAST_VISIBLE * thing.whole < area < 2 * thing.whole:
                mask = labels == number
                height, width = mask.shape
                cut = x == 0 or y == 0 or x + w == width or y + h == height
                found.append((mask, self._nearness(thing, mask), not cut))
        if decoded is not None and np.count_nonzero(decoded) > SMALLEST:
            found.append((decoded, self._nearness(thing, decoded), True))
        return found

    def _nearness(self, thing: Thing, mask: np.ndarray) -> float:
        """0..1: whether the thing can have come there since it was seen."""
        if not thing.placed:
            return 1.0
        rows, columns = np.nonzero(thing.shape > 0)
        if not len(rows):
            return 1.0  # it went out of the image, and may come in anywhere
        y, x = np.nonzero(mask)
        distance = math.hypot(x.mean() - columns.mean(), y.mean() - rows.mean())
        reach = 20 + 150 * (self.clock - thing.last_seen)
        return float(min(1.0, math.exp(1 - distance / reach)))

    def _place(self, thing: Thing, view: View, mask: np.ndarray, like: float) -> None:
        """Go on with a mask that was found."""
        whole = thing.placed and np.count_nonzero(mask & (thing.shape > 0)) > 0.6 * mask.sum()
        thing.prob = np.where(mask, 0.9, 0.0).astype(np.float32)
        if not whole:
            area = float(np.count_nonzero(mask))
            thing.partial = area < WHOLE * thing.whole
            thing.shape = signed_distance(mask)
            if not thing.partial:
                thing.whole = area
        thing.visible, thing.placed, thing.score = True, True, like
        thing.motion = np.zeros(2)

    def _is_taken(self, mask: np.ndarray, thing: Thing) -> bool:
        """Whether a mask shows what another thing or a look-alike shows already."""
        area = np.count_nonzero(mask)
        others = [o for o in self._every if o is not thing and o.visible]
        return any(np.count_nonzero(mask & (o.prob > 0.5)) > 0.3 * area for o in others)

    def _find_alikes(self, view: View) -> None:
        """Carry along what looks like one of the things and is none."""
        for thing in self.things.values():
            if not thing.visible:
                continue
            for mask, _, _ in self._candidates(thing, view, None):
                if len(self.alikes) >= MAX_ALIKES:
                    return
                seen = thing.prob > 0.5
                if mask_iou(mask, seen) > 0.1 or np.count_nonzero(mask & seen):
                    continue
                if not self._is_taken(mask, thing) and thing.likeness(view, mask) > SAME:
                    self.alikes.append(Thing.begun(view, mask, 0, "", self.clock))

    # What is handed out

    def _seen(self) -> list[Track]:
        for thing in self.things.values():
            if thing.visible:
                thing.last_seen = self.clock
        return [self._track(thing) for thing in self.things.values()]

    def _track(self, thing: Thing) -> Track:
        mask = np.zeros(self.hw, bool)
        if thing.visible and not self.blank:
            mask = cv2.resize(thing.prob, self.hw[::-1], interpolation=cv2.INTER_LINEAR) > 0.5
        return self._shown(thing, mask, thing.score)

    def _rescale(self, last: View, view: View) -> View | None:
        """The last view and all masks at the size of this one; None for another aspect ratio."""
        height, width = view.gray.shape
        if abs(last.hw[0] * view.hw[1] / (last.hw[1] * view.hw[0]) - 1) > 0.02:
            zeros = np.zeros((height, width), np.float32)
            for thing in self.things.values():
                thing.prob, thing.shape = zeros, zeros - 1
            return None
        ratio = width / last.gray.shape[1]
        for thing in self._every:
            thing.resize((width, height), ratio)
        rgb = cv2.resize(last.rgb, (width, height), interpolation=cv2.INTER_AREA)
        return View.at_work_size(rgb, view.hw)
