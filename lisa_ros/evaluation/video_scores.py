"""How well things are kept through a clip: J and F, id switches, returns found again.

J is the Jaccard index, F the boundary measure of Perazzi et al. (CVPR 2016), as DAVIS's own code
counts them: frame by frame, then the mean over frames, then over things.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lisa_ros.engine.answer import Instance, mask_box
from lisa_ros.errors import ServerUnreachable
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.video_sets import VideoClip
from lisa_ros.image_files import read_image

if TYPE_CHECKING:
    from lisa_ros.tracking.follow import Asks, Follower
    from lisa_ros.tracking.tracker import Track

TOLERANCE = 0.008  # of the boundary measure, as a share of the image's diagonal
SWITCH = 0.5  # overlap (IoU) with another thing from which a mask is that thing's
FOUND = 0.5  # J from which a thing counts as found
GAP, RETURN = 0.3, 0.25  # seconds unseen that are a gap; share of its usual area that ends one


def jaccard(predicted: np.ndarray, truth: np.ndarray) -> float:
    """J of two masks bool (H,W): intersection over union, 1 where both are empty."""
    union = np.count_nonzero(predicted | truth)
    return np.count_nonzero(predicted & truth) / union if union else 1.0


def boundary_measure(predicted: np.ndarray, truth: np.ndarray) -> float:
    """F of two masks bool (H,W): harmonic mean of precision and recall of their outlines.

    A pixel of an outline counts where the other outline passes within TOLERANCE of the diagonal.
    """
    reach = math.ceil(TOLERANCE * math.hypot(*truth.shape))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x * x + y * y <= reach * reach).astype(np.uint8)
    found, meant = _outline(predicted), _outline(truth)
    n_found, n_meant = np.count_nonzero(found), np.count_nonzero(meant)
    if not n_found or not n_meant:
        return float(n_found == n_meant)
    # all of it lies around the outlines
    x, y, width, height = mask_box(found | meant)
    part = np.s_[y : y + height, x : x + width]
    found, meant = found[part].astype(np.uint8), meant[part].astype(np.uint8)
    precision = np.count_nonzero(found & cv2.dilate(meant, disk)) / n_found
    recall = np.count_nonzero(meant & cv2.dilate(found, disk)) / n_meant
    both = precision + recall
    return 2 * precision * recall / both if both else 0.0


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels bool (H,W) that differ from the one right of, below, or right below them."""
    # beyond the last row and column lies the same again
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    right, below, both = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ both)


@dataclass(frozen=True)
class ClipScore:
    """One clip in numbers.

    Attributes:
        j, f: (N,T) of every thing in every frame that counts.
        wrong: bool (N,T), the mask lies on another thing more than on the one that is meant.
        switches: how often a mask became that of another thing; None where others are not known.
        found_after: seconds from each return of a thing until it was found again; inf for never.
        seconds: of a frame, by the clock that it was scored with.
        sure: score of the one visible track in a frame, and whether most of its mask is on what is
            meant.
    """

    clip: VideoClip
    j: np.ndarray
    f: np.ndarray
    wrong: np.ndarray | None
    switches: int | None
    found_after: list[float]
    seconds: float
    sure: Sequence[tuple[float, bool]] = ()


Predict = Callable[[int, np.ndarray], np.ndarray]
"""from a frame's index and image to masks bool (N,H,W)"""


def score_clip(
    clip: VideoClip,
    predict: Predict,
    first: int,
    clock: Callable[[], float] = time.process_time,
    tracks: Callable[[], Sequence[Track]] = list,
) -> ClipScore:
    """Run through a clip and compare.

    Args:
        predict: is shown every frame from `first` on, in order.
        first: the frame whose true masks were given away, which does not count; -1: none were, and
            all that is meant counts as one.
        clock: by which `predict` is timed, in seconds.
        tracks: those of the last frame that was shown, for their scores.
    """
    joined = clip.joined or first < 0
    last = len(clip.frames) - (first >= 0 and not joined)
    rows: list[np.ndarray] = []
    sure: list[tuple[float, bool]] = []
    spent = 0.0
    for index in range(max(0, first), len(clip.frames)):
        rgb, truth = read_image(clip.frames[index]), clip.truth(index)
        if truth.masks.shape[1:] != rgb.shape[:2]:
            height, width = truth.masks.shape[1:]
            raise DatasetError(
                f"{clip.frames[index]} is of {rgb.shape[1]}x{rgb.shape[0]}, its masks are of"
                f" {width}x{height}"
            )
        began = clock()
        masks = predict(index, rgb)
        spent += clock() - began
        meant = truth.masks
        if joined:
            masks, meant = masks.any(0, keepdims=True), meant.any(0, keepdims=True)
        if index == first or index >= last:
            continue
        seen = [track for track in tracks() if track.mask.any()]
        if len(seen) == 1 == len(masks):
            on_it = np.count_nonzero(seen[0].mask & meant[0])
            sure.append((seen[0].score, 2 * on_it > np.count_nonzero(seen[0].mask)))
        pairs = zip(masks, meant, strict=True)
        figures = [(jaccard(m, t), boundary_measure(m, t), t.sum()) for m, t in pairs]
        beside = [_beside(mask, meant, n, truth.others) for n, mask in enumerate(masks)]
        rows.append(np.hstack([figures, beside]))  # (N, 5)
    if not rows:
        raise DatasetError(f"clip {clip.name} has no frame to count after its first one")
    j, f, areas, wrong, switched = np.stack(rows).transpose(2, 1, 0)  # each (N, T)
    wrong, switched = wrong > 0, switched > 0
    known = truth.others is not None or len(meant) > 1
    # a switch is the first frame of those in which the mask is another thing's
    began_so = switched & ~np.pad(switched, ((0, 0), (1, 0)))[:, :-1]
    return ClipScore(
        clip,
        j,
        f,
        wrong if known else None,
        int(began_so.sum()) if known else None,
        _found_after(j, areas, clip.rate),
        spent / (len(clip.frames) - max(0, first)),
        sure,
    )


def _beside(
    mask: np.ndarray, meant: np.ndarray, number: int, others: np.ndarray | None
) -> tuple[bool, bool]:
    """Whether a mask lies on another thing more than on its own; whether it is that thing's."""
    area = np.count_nonzero(mask)
    if not area:
        return False, False
    own = np.count_nonzero(mask & meant[number])
    rivals = [(np.count_nonzero(mask & one), np.count_nonzero(one)) for one in
              (meant[i] for i in range(len(meant)) if i != number)]  # fmt: skip
    if others is not None:
        covered, sizes = np.bincount(others[mask], minlength=256), np.bincount(others.ravel())
        rivals += [(int(covered[i]), int(sizes[i])) for i in np.flatnonzero(covered) if i]
    if not rivals:
        return False, False
    wrong = max(overlap for overlap, _ in rivals) > own
    switched = any(both / (area + size - both) > SWITCH for both, size in rivals)
    return wrong, switched


def _found_after(j: np.ndarray, areas: np.ndarray, rate: float) -> list[float]:
    """Seconds from every return of a thing, after a gap of GAP seconds or more, until it is found.

    j, areas: (N,T). A thing has returned when RETURN of its usual (median) area is seen.
    """
    times = []
    for scores, area in zip(j, areas, strict=True):
        usual = float(np.median(area[area > 0])) if (area > 0).any() else 0.0
        hidden = -len(area)  # before it is first seen it has not gone
        for index, pixels in enumerate(area):
            if pixels == 0:
                hidden += 1
            elif pixels >= RETURN * usual:
                if hidden >= GAP * rate:
                    found = np.flatnonzero(scores[index:] > FOUND)
                    times.append(found[0] / rate if len(found) else math.inf)
                hidden = 0
    return times


# who predicts


def follow(follower: Follower, clip: VideoClip, first: int) -> Predict:
    """Begin once and follow: with the true masks of frame `first`, or where it is -1 by asking.

    Where the model finds nothing it is asked again a second later. Raises `ServerUnreachable` where
    the server of a remote model does not answer.
    """
    ids: list[int] = []

    def predict(index: int, rgb: np.ndarray) -> np.ndarray:
        stamp, key = index / clip.rate, (clip.name, index)
        if index == first:
            given = clip.truth(index).masks
            instances = [Instance(mask, 1.0, 1.0, clip.name) for mask in given]
            tracks = follower.begin(
                rgb, stamp=stamp, key=key, instances=instances, instruction=clip.instruction
            )
            numbers = iter(track.id for track in tracks)
            ids[:] = [next(numbers) if mask.any() else 0 for mask in given]
            return given
        tracks, nothing = [], np.zeros(rgb.shape[:2], bool)
        if ids:
            tracks = follower.update(rgb, stamp=stamp, key=key)
            if follower.fault:  # which is no fault of the tracker that is measured
                raise ServerUnreachable(f"clip {clip.name} is not scored: {follower.fault}")
        elif index % round(clip.rate) == 0:
            tracks = follower.begin(rgb, stamp=stamp, key=key, instruction=clip.instruction)
            ids[:] = [track.id for track in tracks]
        if first >= 0:
            shown = {track.id: track.mask for track in tracks}
            return np.stack([shown.get(one, nothing) for one in ids])
        return np.stack([nothing, *(track.mask for track in tracks)])

    return predict


def ask_every_frame(engine: Asks, clip: VideoClip) -> Predict:
    """Ask anew about every image, as if there were no video."""

    def predict(index: int, rgb: np.ndarray) -> np.ndarray:
        answer = engine.segment(rgb, clip.instruction, mode="mask")
        return np.stack([np.zeros(rgb.shape[:2], bool), *(one.mask for one in answer.instances)])

    return predict


def first_mask(clip: VideoClip) -> int:
    """The first frame in which something that is meant is seen."""
    for index in range(len(clip.frames)):
        if clip.truth(index).masks.any():
            return index
    raise DatasetError(
        f"nothing that is meant in clip {clip.name} is ever seen: no mask to begin with"
    )


# the figures of many clips


def report_clips(scores: Sequence[ClipScore]) -> dict[str, dict]:
    """The figures by kind of clip, and of "all": means over things, as DAVIS has them.

    `switched`: share of clips with an id switch; `wrong`: share of frames with a mask on a wrong
    thing; `found`: share of returns found again within a second, `returns`: how many there were;
    `calibration_error`: expected one of the scores of visible tracks, where one thing is followed;
    None where the set does not tell.
    """
    kinds: dict[str, list[ClipScore]] = defaultdict(list)
    for score in scores:
        kinds[score.clip.kind].append(score)
    if len(kinds) > 1:
        kinds["all"] = list(scores)
    return {kind: _figures(group) for kind, group in kinds.items()}


def _figures(scores: Sequence[ClipScore]) -> dict:
    from lisa_ros.evaluation.evaluate import calibration_error  # imports torch

    j = float(np.mean([row.mean() for score in scores for row in score.j]))
    f = float(np.mean([row.mean() for score in scores for row in score.f]))
    told = [score for score in scores if score.wrong is not None]
    waits = [wait for score in scores for wait in score.found_after]
    sure = np.array([pair for score in scores for pair in score.sure]).reshape(-1, 2)
    return {
        "clips": len(scores),
        "j": j,
        "f": f,
        "j_and_f": (j + f) / 2,
        "switched": float(np.mean([score.switches > 0 for score in told])) if told else None,
        "wrong": float(np.concatenate([s.wrong.ravel() for s in told]).mean()) if told else None,
        "found": float(np.mean([wait <= 1 for wait in waits])) if waits else None,
        "returns": len(waits),
        "calibration_error": calibration_error(sure[:, 0], sure[:, 1] > 0) if len(sure) else None,
        "milliseconds": 1000 * float(np.mean([score.seconds for score in scores])),
    }
