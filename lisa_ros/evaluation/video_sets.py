"""How well things are kept through video: clips in the field's formats, J and F, and the rest.

Read as they are published, each known by its files (`is_video_set`):

- DAVIS 2017, and the clips of `lisa-ros sim-clips`: `JPEGImages/480p/CLIP`, `Annotations`,
  `ImageSets/2017/val.txt`;
- Ref-YouTube-VOS (and Ref-DAVIS 17 as it is usually converted): `meta_expressions/SPLIT/
  meta_expressions.json`, `SPLIT/JPEGImages`, `SPLIT/Annotations`;
- MeViS: `meta_expressions.json`, `mask_dict.json` of COCO run lengths, `JPEGImages`;
- ReVOS: the same with `meta_expressions_valid_.json`.

J is the Jaccard index, F the boundary measure of Perazzi et al. (CVPR 2016), as DAVIS's own code
counts them: frame by frame, then the mean over frames, then over things.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from lisa_ros.engine.answer import Instance, mask_box
from lisa_ros.errors import ServerUnreachable
from lisa_ros.evaluation.coco import decode_mask
from lisa_ros.evaluation.json_files import DatasetError, entries_of, place, read_json, require
from lisa_ros.image_files import image_size, read_image, read_samples

if TYPE_CHECKING:
    from lisa_ros.tracking.follow import Asks, Follower
    from lisa_ros.tracking.tracker import Track

RATE = 15.0  # frames a second where a set does not say
VOID = 255  # value of DAVIS's annotations that is no thing
TOLERANCE = 0.008  # of the boundary measure, as a share of the image's diagonal
SWITCH = 0.5  # overlap (IoU) with another thing from which a mask is that thing's
FOUND = 0.5  # J from which a thing counts as found
GAP, RETURN = 0.3, 0.25  # seconds unseen that are a gap; share of its usual area that ends one
TYPES_OF_REVOS = {0: "referring", 1: "reasoning", 2: "absent"}


@dataclass(frozen=True)
class Truth:
    """One frame: masks bool (N,H,W) of what is meant; others uint8 (H,W), the numbers of other
    things, 0 for none; None where the set does not tell."""

    masks: np.ndarray
    others: np.ndarray | None = None


@dataclass(frozen=True)
class VideoClip:
    """One clip, with one question about it or without.

    Attributes:
        name: of the clip, and of the expression where there are several.
        kind: what happens in it, or what kind of question it is.
        frames: the pictures, in order.
        instruction: words that mean the things of `truth`; empty in DAVIS.
        rate: frames a second.
        truth: what is meant in a frame, by its index.
        joined: all things that are meant count as one, as they do for an expression. Else each
            counts for itself, and the last frame does not count, as in DAVIS.
    """

    name: str
    kind: str
    frames: Sequence[Path]
    instruction: str
    rate: float
    truth: Callable[[int], Truth]
    joined: bool = True


# reading


def is_video_set(folder: Path) -> bool:
    """Whether a folder is one of the layouts above, rather than a set of single pictures."""
    return (
        (folder / "ImageSets").is_dir()
        or (folder / "meta_expressions").is_dir()
        or (folder / "mask_dict.json").is_file()
    )


def read_clips(folder: Path) -> list[VideoClip]:
    """Every clip of a set, or every expression about one; pixels are read when they are asked for.

    Raises:
        DatasetError: which file is missing or damaged.
    """
    if (folder / "ImageSets").is_dir():
        clips = list(_read_davis(folder))
    elif (folder / "meta_expressions").is_dir():
        clips = list(_read_youtube(folder))
    else:
        clips = list(_read_mevis(folder))
    if not clips:
        raise DatasetError(f"{folder} holds no clips")
    for clip in clips:
        if not clip.frames or not clip.frames[0].is_file():
            raise DatasetError(f"the frames of clip {clip.name} are missing from {folder}")
    return clips


def _read_davis(folder: Path) -> Iterator[VideoClip]:
    sets = [folder / "ImageSets" / "2017" / f"{split}.txt" for split in ("val", "train")]
    names = next((path for path in sets if path.is_file()), None)
    if names is None:
        raise DatasetError(f"{sets[0]} is missing: it names the clips of a set like DAVIS 2017")
    size = "480p" if (folder / "JPEGImages" / "480p").is_dir() else "Full-Resolution"
    ours = folder / "clips.json"
    content = read_json(ours) if ours.is_file() else {"clips": {}}
    for name in names.read_text(encoding="utf-8", errors="replace").split():
        frames = sorted((folder / "JPEGImages" / size / name).glob("*.jpg"))
        with entries_of(lambda: str(ours), "does not say what its clips are"):
            said, rate = content["clips"].get(name, {}), float(content.get("rate", 24.0))
            kind, instruction = said.get("kind", "davis"), said.get("instruction", "")
        # every thing of our clips is annotated apart, the one that is meant as 1
        part, meant = ("Things", (1,)) if said else ("Annotations", ())
        masks = [folder / part / size / name / f"{frame.stem}.png" for frame in frames]
        truth = _numbered(masks, meant)
        yield VideoClip(name, kind, frames, instruction, rate, truth, joined=False)


def _read_youtube(folder: Path) -> Iterator[VideoClip]:
    for split in ("valid", "test", "train"):
        meta = folder / "meta_expressions" / split / "meta_expressions.json"
        annotations = folder / split / "Annotations"
        if meta.is_file() and annotations.is_dir():
            break
    else:
        raise DatasetError(
            f"{folder} has no split with both meta_expressions and Annotations: without published "
            "masks there is nothing to measure; use the split train"
        )
    for video, names, number, asked, _, meant in _read_expressions(meta, "obj_id"):
        frames = [folder / split / "JPEGImages" / video / f"{name}.jpg" for name in names]
        masks = [annotations / video / f"{name}.png" for name in names]
        # the truth of most of the validation split was never published
        if meant and masks[0].is_file():
            truth = _numbered(masks, meant)
            yield VideoClip(f"{video}/{number}", split, frames, asked, RATE, truth)


def _read_mevis(folder: Path) -> Iterator[VideoClip]:
    names = ("meta_expressions.json", "meta_expressions_valid_.json")
    meta = next((folder / name for name in names if (folder / name).is_file()), None)
    if meta is None:
        raise DatasetError(f"{folder} has a mask_dict.json but none of {', '.join(names)}")
    path = folder / "mask_dict.json"
    masks = read_json(path)
    if not isinstance(masks, dict):
        raise DatasetError(f"{path} must be a table of masks by their numbers")
    for video, names, number, asked, kind, meant in _read_expressions(meta, "anno_id"):
        frames = [folder / "JPEGImages" / video / f"{name}.jpg" for name in names]
        runs = {str(thing): masks.get(str(thing)) for thing in meant}
        for thing, of_frames in runs.items():
            if not isinstance(of_frames, list) or len(of_frames) < len(frames):
                raise DatasetError(
                    f"{place(path, thing) if thing in masks else path} has no mask {thing} for"
                    f" every frame of {video}, which {meta.name} speaks of"
                )
        truth = _from_run_lengths(path, runs, frames)
        yield VideoClip(f"{video}/{number}", kind, frames, asked, RATE, truth)


def _read_expressions(
    path: Path, field: str
) -> Iterator[tuple[str, list[str], str, str, str, list[int]]]:
    """The expressions of a meta_expressions.json: video, its frames, number, words, kind, and the
    numbers of what is meant, which stand in `field`.

    DatasetError by file, line and key where one is none.
    """
    content, where = read_json(path), ("videos",)
    with entries_of(
        lambda: place(path, *where),
        "is not in the format of meta_expressions.json (videos, each with frames and expressions,"
        f" each with exp and {field})",
    ):
        for video, about in content["videos"].items():
            where = video, "videos"
            names = about["frames"]
            require(names and isinstance(names, list), "frames must be a list of names")
            for number, said in about["expressions"].items():
                where = number, "videos", video, "expressions"
                require(isinstance(said["exp"], str), "exp must be words")
                meant = said.get(field, [])
                meant = [int(one) for one in (meant if isinstance(meant, list) else [meant])]
                kind = TYPES_OF_REVOS.get(said.get("type_id"), "expression")
                yield video, names, number, said["exp"], kind, meant
                where = video, "videos"


def _numbered(paths: Sequence[Path], meant: Sequence[int]) -> Callable[[int], Truth]:
    """Truth from PNGs of numbers; `meant`: which of them, or all of the first one (DAVIS)."""
    first = [0]

    def truth(index: int) -> Truth:
        numbers = _read_numbers(paths[index])
        if not meant and first == [0]:
            first[:] = range(1, int(_read_numbers(paths[0]).max(initial=0)) + 1)
        wanted = list(meant) or first
        masks = numbers == np.array(wanted, int)[:, None, None]  # (N, H, W)
        return Truth(masks, np.where(masks.any(0), 0, numbers))

    return truth


def _read_numbers(path: Path) -> np.ndarray:
    """The number of the thing at every pixel uint8 (H,W), 0 for none and for VOID."""
    numbers = read_samples(path)
    if numbers.ndim != 2:
        raise DatasetError(f"{path} is no map of things: it must have one channel of numbers")
    return np.where(numbers == VOID, 0, numbers).astype(np.uint8)


def _from_run_lengths(
    path: Path, runs: Mapping[str, Sequence], frames: Sequence[Path]
) -> Callable[[int], Truth]:
    """Truth from the masks of `path` by thing and frame; None where a thing is not seen."""

    def truth(index: int) -> Truth:
        width, height = image_size(frames[index])
        masks = np.zeros((len(runs), height, width), bool)
        for number, (thing, some) in enumerate(runs.items()):
            try:
                masks[number] = decode_mask(some[index] or [], height, width)
            except ValueError as error:
                where = place(path, index, thing)
                raise DatasetError(f"{where}: the mask of {frames[index].name} {error}") from error
        return Truth(masks)

    return truth


# measuring


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
"""from a frame's index and picture to masks bool (N,H,W)"""


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
    """Ask anew about every picture, as if there were no video."""

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
