"""The tracker that needs no weights beyond LISA's own: motion, colours, and SAM where in doubt.

All of it happens at WORK_SIDE pixels. In every image:

1. Dense optical flow (DIS, Kroeger et al., 2016) both ways, and the motion of the whole picture.
2. What was seen is carried along: pixel by pixel by the flow (which knows what got covered) and as
   one shape by an affine fit to the flow inside it (which knows what is still to be uncovered).
   Colours of the thing against those around it decide between the two.
3. Pixels that two things claim go to the surer one. Look-alikes are carried along like things, so
   that nothing is taken for the thing that was beside it before.
4. A thing of which too little is left, or which no longer looks like itself, is occluded. It is
   looked for where the picture's motion takes its shape, among regions of its colours, and where
   SAM's mask decoder finds the `[SEG]` embedding; what is found must look like what is remembered.

SAM's encoder runs only while something is doubtful; the language model never.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lisa_ros.engine.answer import Instance
from lisa_ros.engine.question import check_image
from lisa_ros.errors import TrackingError
from lisa_ros.tracking.appearance import (
    Appearance,
    color_bins,
    histogram,
    likeness,
    log_ratio,
)
from lisa_ros.tracking.tracker import (
    LONGEST_GAP,
    LOST_AFTER,
    MAX_TRACKS,
    Track,
    TrackState,
    check_things,
    mask_box,
    mask_iou,
)

if TYPE_CHECKING:
    from lisa_ros.engine.engine import Engine

WORK_SIDE = 480  # pixels of the longer side of the image that motion and colours are taken from
MARGIN = 20  # pixels around a shape in which its pixels are looked for
CONTRAST = 4.0  # standard deviation of grey values below which an image shows nothing
SMALLEST = 16  # pixels at work size of which a mask must have more
LEAST_VISIBLE = 0.2  # share of a shape below which the thing counts as hidden
WHOLE = 0.8  # share of a shape above which the thing is seen as a whole
SAME, UNLIKE = 0.5, 0.15  # probability from which a region is the thing; below which it is not
MEMORY = 8  # appearances of one thing; the first one stays
REMEMBER_EVERY = 0.4  # seconds
SEARCH_EVERY = 3  # images from one run of SAM to the next while something is missing
ALIKES_EVERY = 15  # images between two looks for look-alikes
MAX_ALIKES = 4
PRIOR = 3.9  # log odds of what the last image says of a pixel
SLOPE = 0.9  # log odds per pixel of distance to an outline


@dataclass(eq=False)
class _Thing:
    """What is known of one thing; arrays have the work size (h, w)."""

    id: int
    label: str
    embedding: np.ndarray | None
    began: float
    prob: np.ndarray
    """float32, probability of each pixel to show the thing"""
    shape: np.ndarray
    """float32, signed distance to the outline of the whole thing, hidden parts too; inside > 0"""
    colors: np.ndarray
    """histogram of the thing, (bins,)"""
    around: np.ndarray
    """histogram of what surrounds or covers it, (bins,)"""
    whole: float
    """pixels of the whole thing, hidden parts too, as large as it appears now"""
    contrast: float
    """0..1: how well its colours tell it from what surrounds it"""
    memory: deque[Appearance]
    last_seen: float
    remembered: float
    score: float = 1.0
    visible: bool = True
    partial: bool = False
    """found again in part, and coming out"""
    placed: bool = True
    """whether `shape` says where the thing should be; not after a gap"""
    motion: np.ndarray = field(default_factory=lambda: np.zeros(2))
    """pixels per image that it moved beside the picture's own motion"""


@dataclass(frozen=True, eq=False)
class _View:
    """One image at work size."""

    hw: tuple[int, int]
    """height and width of the image itself"""
    rgb: np.ndarray
    gray: np.ndarray
    bins: np.ndarray
    """(h, w), the colour bin of each pixel"""


class LisaTracker:
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
    ) -> None:
        """`engine`: whose SAM helps to find things again; None: motion and colours alone.

        `lost_after`: seconds unseen after which a thing is lost instead of occluded.
        """
        self.engine, self.max_tracks, self.lost_after = engine, max_tracks, lost_after
        self.counters: Counter[str] = Counter()
        self.things: list[_Thing] = []
        self.alikes: list[_Thing] = []
        self.last_id, self.clock, self.stamp = 0, 0.0, 0.0
        self.shown = 0.0  # stamp of `view`
        self.view: _View | None = None  # the last one that showed something
        self.hw = (0, 0)
        self.blank = False
        self.since_search = SEARCH_EVERY
        self.dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    # What the protocol asks for

    def start(
        self,
        image: np.ndarray,
        instances: Sequence[Instance],
        *,
        stamp: float,
        key: Hashable | None = None,
    ) -> list[Track]:
        """Drop what was tracked and begin with these."""
        check_things(image, instances, self.max_tracks, self.max_tracks)
        self.things, self.alikes, self.view = [], [], None
        self.clock, self.stamp, self.shown = 0.0, stamp, stamp
        return self.add(image, instances, stamp=stamp, key=key)

    def add(
        self,
        image: np.ndarray,
        instances: Sequence[Instance],
        *,
        stamp: float,
        key: Hashable | None = None,
    ) -> list[Track]:
        """Begin more tracks with the newest image."""
        room = self.max_tracks - len(self.things)
        check_things(image, instances, room, self.max_tracks)
        view = self._newest(image, stamp, key)
        new = [self._begin(view, instance) for instance in instances]
        self.things += new
        self._find_alikes(view)
        return [self._track(thing) for thing in new]

    def update(
        self, image: np.ndarray, *, stamp: float, key: Hashable | None = None
    ) -> list[Track]:
        """Look for everything in the next image."""
        check_image(image)
        self.counters["frames"] += 1
        self.clock += max(0.0, stamp - self.stamp)
        self.stamp = stamp
        view = _view(image)
        self.hw = view.hw
        # 1. images that say nothing new, or nothing at all
        self.blank = float(view.gray.std()) < CONTRAST
        if self.blank:
            self.counters["blank"] += 1
            return self._tracks()
        gap, self.shown = stamp - self.shown, stamp
        last, self.view = self.view, view
        if last is not None and np.array_equal(last.rgb, view.rgb):
            self.counters["frozen"] += 1
            return self._seen()
        every = self.things + self.alikes
        if last is not None and last.gray.shape != view.gray.shape:
            last = self._rescale(last, view)
        if last is None or not 0 <= gap <= LONGEST_GAP:
            # 2. nothing connects this image with the last one
            self.alikes = []
            for thing in self.things:
                thing.visible, thing.placed = False, False
        elif every:
            # 3. carry along what was seen
            self.counters["flow"] += 1
            self._carry(last, view, every)
        # 4. look for what is missing
        missing = [thing for thing in self.things if not thing.visible]
        if missing:
            self._search(view, missing, image, key)
        self.alikes = [alike for alike in self.alikes if alike.visible]
        if self.counters["frames"] % ALIKES_EVERY == 0:
            self._find_alikes(view)
        return self._seen()

    def resume(
        self,
        track_id: int,
        image: np.ndarray,
        instance: Instance,
        *,
        stamp: float,
        key: Hashable | None = None,
    ) -> Track | None:
        """Go on from this mask if it looks like the thing of that track."""
        thing = self._thing(track_id)
        check_things(image, [instance], 1, self.max_tracks)
        view = self._newest(image, stamp, key)
        mask = _work_mask(instance.mask, view)
        if instance.seg_embedding is not None:
            mask = _snapped(mask, view, thing.colors, thing.around)
        like = self._likeness(thing, view, mask)
        if like < SAME or self._is_taken(mask, thing):
            return None
        if instance.seg_embedding is not None:
            thing.embedding = instance.seg_embedding
        self._place(thing, view, mask, like)
        return self._track(thing)

    def drop(self, track_id: int) -> None:
        """Let go of a thing."""
        self.things.remove(self._thing(track_id))
        if not self.things:
            self.alikes = []

    # Beginning

    def _newest(self, image: np.ndarray, stamp: float, key: Hashable | None) -> _View:
        """The view of the newest image, after an update where it is not known yet."""
        view = _view(image)
        if self.view is None:
            self.view, self.hw, self.blank = view, view.hw, False
        elif view.hw != self.view.hw or not np.array_equal(view.rgb, self.view.rgb):
            self.update(image, stamp=stamp, key=key)
        return self.view

    def _begin(self, view: _View, instance: Instance) -> _Thing:
        self.last_id += 1
        mask = _work_mask(instance.mask, view)
        if instance.seg_embedding is not None:
            # a model's mask is coarse; one that was drawn by hand is not
            mask = _snapped(mask, view)
        thing = self._new(view, mask, self.last_id, instance.label)
        thing.embedding = instance.seg_embedding
        return thing

    def _new(self, view: _View, mask: np.ndarray, number: int, label: str) -> _Thing:
        shape = _signed_distance(mask)
        colors = histogram(view.bins[mask])
        ring = (shape < -1) & (shape > -MARGIN)
        around = histogram(view.bins[ring])
        likely = log_ratio(colors, around)[view.bins] > 0
        contrast = float(likely[mask].mean() - likely[ring].mean()) if ring.any() else 1.0
        return _Thing(
            number, label, None, self.clock, mask.astype(np.float32), shape, colors, around,
            float(np.count_nonzero(mask)), max(0.0, contrast),
            deque([Appearance.of(view.rgb, view.bins, mask)], MEMORY), self.clock, self.clock,
        )  # fmt: skip

    # Carrying along

    def _carry(self, last: _View, view: _View, every: list[_Thing]) -> None:
        """Move masks and shapes by the flow; decide by colours; say what is hidden."""
        back = self.dis.calc(view.gray, last.gray, None)  # (h, w, 2): where a pixel was
        forth = self.dis.calc(last.gray, view.gray, None)
        height, width = view.gray.shape
        grid = _grid(height, width)
        source = grid + back
        returned = cv2.remap(forth, source, None, cv2.INTER_LINEAR, borderValue=1e3)
        error = np.abs(returned + back).sum(-1)  # (h, w) pixels: large where something got covered
        agrees = error < 1.5 + 0.1 * np.abs(back).sum(-1)
        steps = grid[4::8, 4::8].reshape(-1, 2), back[4::8, 4::8].reshape(-1, 2)
        camera = _fit_affine(steps[0] + steps[1], steps[0])  # (2, 3), last image to this one
        odds: list[tuple[_Thing, tuple[slice, slice], np.ndarray]] = []
        for thing in every:
            if not thing.visible:
                if thing.placed:
                    moved = camera.copy()
                    moved[:, 2] += thing.motion
                    thing.motion *= 0.9
                    thing.shape = _warp(thing.shape, moved)
                    thing.prob = np.zeros_like(thing.prob)
                continue
            room = _around(thing.shape, back, MARGIN)
            was = cv2.remap(thing.prob, source[room], None, cv2.INTER_LINEAR)
            inner = (was > 0.5) & agrees[room]
            here = grid[room][inner]
            motion = camera
            if len(here) >= SMALLEST:
                here = here[:: max(1, len(here) // 400)]
                there = source[here[:, 1].astype(int), here[:, 0].astype(int)]
                motion = _fit_affine(there, here)
                middle = here.mean(0)
                shift = middle - _apply(camera, there.mean(0))
                thing.motion = 0.7 * thing.motion + 0.3 * shift
            thing.shape = _warp(thing.shape, motion)
            thing.whole *= float(np.clip(np.linalg.det(motion[:, :2]), 0.95, 1.05))
            flowed = np.where(agrees[room], was, 0.5 * was)
            color = log_ratio(thing.colors, thing.around)[view.bins[room]]
            color = cv2.blur(color, (3, 3))
            shape = np.clip(SLOPE * thing.shape[room], -2 * PRIOR, PRIOR)
            weight = 0.3 + 0.8 * thing.contrast
            post = 0.6 * _logit(flowed) + 0.4 * shape + weight * color
            odds.append((thing, room, post))
        # pixels that two claim are those of the surer one
        best = np.full((height, width), -np.inf, np.float32)
        for _, room, post in odds:
            np.maximum(best[room], post, out=best[room])
        for thing, room, post in odds:
            won = np.where(post >= best[room], post, -PRIOR)
            thing.prob = np.zeros((height, width), np.float32)
            thing.prob[room] = 1 / (1 + np.exp(-np.clip(won, -PRIOR, PRIOR)))
            self._judge(thing, view)

    def _judge(self, thing: _Thing, view: _View) -> None:
        """Whether a thing is still seen after it was carried along, and what is learnt from it."""
        mask = _clean(thing.prob > 0.5, thing.shape)
        if thing.partial and mask.any():
            mask = self._grown(thing, view, mask)
        thing.prob = np.where(mask, thing.prob, np.minimum(thing.prob, 0.45))
        inside = thing.shape > 0
        area = np.count_nonzero(mask)
        share = area / thing.whole
        # it may turn from one image to the next: its colours alone must stay
        like = self._likeness(thing, view, mask, whole=False)
        thing.score = 0.6 * thing.score + 0.4 * like
        if area <= SMALLEST or share < LEAST_VISIBLE or thing.score < UNLIKE:
            self._hide(thing, view)
            return
        thing.partial = thing.partial and share < WHOLE
        ring = (thing.shape < -1) & (thing.shape > -MARGIN) & ~mask
        covered = inside & ~mask & (thing.prob < 0.3)
        thing.around = 0.8 * thing.around + 0.2 * histogram(view.bins[ring | covered])
        likely = log_ratio(thing.colors, thing.around)[view.bins] > 0
        contrast = float(likely[mask].mean() - likely[ring].mean()) if ring.any() else 1.0
        thing.contrast += 0.2 * (min(1.0, max(0.0, contrast)) - thing.contrast)
        if WHOLE < share < 1 / WHOLE and like > SAME:
            rate = 0.2 + 0.3 * thing.contrast
            thing.shape = (1 - rate) * thing.shape + rate * _signed_distance(mask)
            thing.whole += 0.05 * (area - thing.whole)
            if self.clock - thing.remembered >= REMEMBER_EVERY:
                self._remember(thing, view, mask)

    def _grown(self, thing: _Thing, view: _View, mask: np.ndarray) -> np.ndarray:
        """The mask of a thing that came back in part, with what has come out since."""
        area = np.count_nonzero(mask)
        for more, _, _ in self._candidates(thing, view, None):
            fits = area < np.count_nonzero(more) < 1.25 * thing.whole
            if fits and np.count_nonzero(more & mask) > 0.6 * area:
                thing.shape = _signed_distance(more)
                thing.prob = np.maximum(thing.prob, np.where(more, 0.9, 0)).astype(np.float32)
                return more
        return mask

    def _hide(self, thing: _Thing, view: _View) -> None:
        """It is seen no more. What looks like it and stands in its place now is what hides it."""
        thing.visible, thing.prob = False, np.zeros_like(thing.prob)
        if thing.id == 0 or len(self.alikes) >= MAX_ALIKES:
            return
        for mask, _, _ in reversed(self._candidates(thing, view, None)):
            over = np.count_nonzero(mask & (thing.shape > 0))
            if over > 0.3 * thing.whole and not self._is_taken(mask, thing):
                self.alikes.append(self._new(view, mask, 0, ""))
                return

    def _remember(self, thing: _Thing, view: _View, mask: np.ndarray) -> None:
        """Keep how it looks now; the first look stays, of the others the oldest goes."""
        thing.remembered = self.clock
        thing.colors = 0.9 * thing.colors + 0.1 * histogram(view.bins[mask])
        if len(thing.memory) == MEMORY:
            del thing.memory[1]
        thing.memory.append(Appearance.of(view.rgb, view.bins, mask))

    # Looking for what is missing

    def _search(
        self, view: _View, missing: list[_Thing], image: np.ndarray, key: Hashable | None
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
                mask = _work_mask(one > 0, view)
                decoded[thing.id] = _snapped(mask, view, thing.colors, thing.around)
        found: list[tuple[float, _Thing, np.ndarray]] = []
        for thing in missing:
            thing.score = 0.0
            for mask, near, whole in self._candidates(thing, view, decoded.get(thing.id)):
                like = near * self._likeness(thing, view, mask, whole=whole)
                thing.score = max(thing.score, min(like, SAME))
                if like >= SAME and not self._is_taken(mask, thing):
                    found.append((like, thing, mask))
        for like, thing, mask in sorted(found, key=lambda f: -f[0]):
            if not thing.visible and not self._is_taken(mask, thing):
                self._place(thing, view, mask, like)
        for thing in missing:
            inside = thing.shape > 0
            covered = thing.placed and not thing.visible and inside.any()
            if covered and self._likeness(thing, view, inside, whole=False) < UNLIKE:
                # the colours of what hides it, so that they are not taken for its own
                thing.around = 0.9 * thing.around + 0.1 * histogram(view.bins[inside])

    def _candidates(
        self, thing: _Thing, view: _View, decoded: np.ndarray | None
    ) -> list[tuple[np.ndarray, float, bool]]:
        """Masks (h, w) that may show a thing, each with how near it is to where it should be, and
        whether it must show the whole of it."""
        color = cv2.blur(log_ratio(thing.colors, thing.around)[view.bins], (3, 3))
        likely = color > 0.3
        for other in self.things + self.alikes:
            if other is not thing and other.visible:
                likely &= other.prob < 0.5
        found = []
        if thing.placed:
            # uncovered where it is expected
            inside = thing.shape > 0
            part = _clean(likely & (thing.shape > -2), thing.shape)
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

    def _nearness(self, thing: _Thing, mask: np.ndarray) -> float:
        """0..1: whether the thing can have come there since it was seen."""
        if not thing.placed:
            return 1.0
        rows, columns = np.nonzero(thing.shape > 0)
        if not len(rows):
            return 1.0  # it went out of the picture, and may come in anywhere
        y, x = np.nonzero(mask)
        distance = math.hypot(x.mean() - columns.mean(), y.mean() - rows.mean())
        reach = 20 + 150 * (self.clock - thing.last_seen)
        return float(min(1.0, math.exp(1 - distance / reach)))

    def _place(self, thing: _Thing, view: _View, mask: np.ndarray, like: float) -> None:
        """Go on with a mask that was found."""
        whole = thing.placed and np.count_nonzero(mask & (thing.shape > 0)) > 0.6 * mask.sum()
        thing.prob = np.where(mask, 0.9, 0.0).astype(np.float32)
        if not whole:
            area = float(np.count_nonzero(mask))
            thing.partial = area < WHOLE * thing.whole
            thing.shape = _signed_distance(mask)
            if not thing.partial:
                thing.whole = area
        thing.visible, thing.placed, thing.score = True, True, like
        thing.motion = np.zeros(2)

    def _is_taken(self, mask: np.ndarray, thing: _Thing) -> bool:
        """Whether a mask shows what another thing or a look-alike shows already."""
        area = np.count_nonzero(mask)
        others = [o for o in self.things + self.alikes if o is not thing and o.visible]
        return any(np.count_nonzero(mask & (o.prob > 0.5)) > 0.3 * area for o in others)

    def _find_alikes(self, view: _View) -> None:
        """Carry along what looks like one of the things and is none."""
        for thing in self.things:
            if not thing.visible:
                continue
            for mask, _, _ in self._candidates(thing, view, None):
                if len(self.alikes) >= MAX_ALIKES:
                    return
                seen = thing.prob > 0.5
                if mask_iou(mask, seen) > 0.1 or np.count_nonzero(mask & seen):
                    continue
                if not self._is_taken(mask, thing) and self._likeness(thing, view, mask) > SAME:
                    self.alikes.append(self._new(view, mask, 0, ""))

    def _likeness(self, thing: _Thing, view: _View, mask: np.ndarray, whole: bool = True) -> float:
        """0..1: how probable it is that a mask shows the thing, by what is remembered of it."""
        if np.count_nonzero(mask) <= SMALLEST:
            return 0.0
        now = Appearance.of(view.rgb, view.bins, mask)
        return max(likeness(then, now, whole=whole) for then in thing.memory)

    # What is handed out

    def _thing(self, track_id: int) -> _Thing:
        for thing in self.things:
            if thing.id == track_id:
                return thing
        raise TrackingError(f"there is no track {track_id}: it was dropped, or never begun")

    def _seen(self) -> list[Track]:
        for thing in self.things:
            if thing.visible:
                thing.last_seen = self.clock
        return self._tracks()

    def _tracks(self) -> list[Track]:
        return [self._track(thing) for thing in self.things]

    def _track(self, thing: _Thing) -> Track:
        unseen = self.clock - thing.last_seen
        mask = np.zeros(self.hw, bool)
        if thing.visible and not self.blank:
            state = TrackState.VISIBLE
            scaled = cv2.resize(thing.prob, self.hw[::-1], interpolation=cv2.INTER_LINEAR)
            mask = scaled > 0.5
        else:
            state = TrackState.LOST if unseen > self.lost_after else TrackState.OCCLUDED
        return Track(
            thing.id, thing.label, mask, mask_box(mask), float(thing.score), state,
            float(unseen), float(self.clock - thing.began),
        )  # fmt: skip

    def _rescale(self, last: _View, view: _View) -> _View | None:
        """The last view and all masks at the size of this one; None for another aspect ratio."""
        height, width = view.gray.shape
        if abs(last.hw[0] * view.hw[1] / (last.hw[1] * view.hw[0]) - 1) > 0.02:
            zeros = np.zeros((height, width), np.float32)
            for thing in self.things:
                thing.prob, thing.shape = zeros, zeros - 1
            return None
        ratio = width / last.gray.shape[1]
        for thing in self.things + self.alikes:
            thing.prob = cv2.resize(thing.prob, (width, height))
            thing.shape = ratio * cv2.resize(thing.shape, (width, height))
        rgb = cv2.resize(last.rgb, (width, height), interpolation=cv2.INTER_AREA)
        return _View(view.hw, rgb, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), color_bins(rgb))


def _view(image: np.ndarray) -> _View:
    height, width = image.shape[:2]
    scale = min(1.0, WORK_SIDE / max(height, width))
    size = max(8, round(width * scale)), max(8, round(height * scale))
    rgb = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return _View((height, width), rgb, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), color_bins(rgb))


def _work_mask(mask: np.ndarray, view: _View) -> np.ndarray:
    """A mask (H, W) at work size; one of a pixel or two keeps a pixel."""
    size = view.gray.shape[::-1]
    scaled = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return scaled > min(0.5, 0.5 * float(scaled.max()))


def _snapped(
    mask: np.ndarray,
    view: _View,
    colors: np.ndarray | None = None,
    around: np.ndarray | None = None,
) -> np.ndarray:
    """A coarse mask (h, w), its outline moved to where the colours change.

    `colors`, `around`: histograms of the thing and of what surrounds it, where they are known.
    """
    known = colors is not None
    shape = _signed_distance(mask)
    snapped = mask
    for _ in range(1 if known else 3):
        if not known:
            near = _signed_distance(snapped)
            core = near > min(1.5, 0.5 * float(near.max()))
            colors = histogram(view.bins[core])
            around = histogram(view.bins[(near < -1.5) & (near > -MARGIN)])
        color = cv2.blur(log_ratio(colors, around)[view.bins], (3, 3))
        snapped = _clean(np.clip(0.25 * shape, -PRIOR, PRIOR) + color > 0, shape)
        if mask_iou(snapped, mask) < SAME:
            return mask  # its colours do not tell it from what surrounds it
    return snapped


def _signed_distance(mask: np.ndarray) -> np.ndarray:
    """Pixels to the outline, (h, w) float32; inside > 0."""
    inner = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 3)
    outer = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 3)
    return np.where(mask, inner - 0.5, 0.5 - outer)


def _grid(height: int, width: int) -> np.ndarray:
    """x and y of each pixel, (h, w, 2) float32."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack([x, y], axis=-1)


def _fit_affine(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(2, 3), what takes points (N, 2) to where they are now, by least squares with few outliers.

    Few points give a shift alone.
    """
    if len(before) < 30:
        shift = np.median(after - before, axis=0) if len(before) else np.zeros(2)
        return np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float64)
    middle = before.mean(0)
    known = np.concatenate([before - middle, np.ones((len(before), 1))], axis=1)
    wanted = after - middle
    weight = np.ones(len(before))
    for _ in range(4):
        heavy = known * weight[:, None]
        normal = known.T @ heavy + np.diag([1e-3, 1e-3, 1e-6])
        solution = np.linalg.solve(normal, heavy.T @ wanted + 1e-3 * np.eye(3, 2))
        residual = np.linalg.norm(known @ solution - wanted, axis=1)
        scale = max(0.3, 1.5 * float(np.median(residual)))
        weight = 1 / (1 + (residual / scale) ** 2) ** 2
    linear = solution[:2].T
    return np.concatenate([linear, (solution[2] + middle - linear @ middle)[:, None]], axis=1)


def _apply(affine: np.ndarray, point: np.ndarray) -> np.ndarray:
    return affine[:, :2] @ point + affine[:, 2]


def _warp(shape: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """A signed distance moved along; what comes into the picture is far outside."""
    size = shape.shape[::-1]
    return cv2.warpAffine(shape, affine, size, flags=cv2.INTER_LINEAR, borderValue=-1e3)


def _around(shape: np.ndarray, back: np.ndarray, margin: int) -> tuple[slice, slice]:
    """The part of the picture in which a shape can be in the next image."""
    height, width = shape.shape
    x, y, w, h = mask_box(shape > 0)
    reach = margin
    if w:
        reach += int(min(60, np.abs(back[y : y + h, x : x + w]).max()))
    return (
        slice(max(0, y - reach), min(height, y + h + reach)),
        slice(max(0, x - reach), min(width, x + w + reach)),
    )


def _clean(mask: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """The parts of a mask that reach into the shape, without specks."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    count, labels, stats, _ = cv2.connectedComponentsWithStats(opened)
    if count <= 1:
        return np.zeros_like(mask)
    largest = stats[1:, cv2.CC_STAT_AREA].max()
    keep = np.zeros(count, bool)
    keep[1:] = stats[1:, cv2.CC_STAT_AREA] >= max(4, 0.15 * largest)
    touching = np.unique(labels[(shape > 0) & (opened > 0)])
    return (keep & np.isin(np.arange(count), touching))[labels]


def _logit(probability: np.ndarray) -> np.ndarray:
    clipped = np.clip(probability, 0.02, 0.98)
    return np.log(clipped / (1 - clipped))
