"""Clips with the masks of what is meant in them, in the field's formats.

Read as they are published, each known by its files (`is_video_set`):

- DAVIS 2017, and the clips of `lisa-ros sim-clips`: `JPEGImages/480p/CLIP`, `Annotations`,
  `ImageSets/2017/val.txt`;
- Ref-YouTube-VOS (and Ref-DAVIS 17 as it is usually converted): `meta_expressions/SPLIT/
  meta_expressions.json`, `SPLIT/JPEGImages`, `SPLIT/Annotations`;
- MeViS: `meta_expressions.json`, `mask_dict.json` of COCO run lengths, `JPEGImages`;
- ReVOS: the same with `meta_expressions_valid_.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lisa_ros.evaluation.json_files import DatasetError, entries_of, place, read_json, require
from lisa_ros.image_files import image_size, read_samples

RATE = 15.0  # frames a second where a set does not say
VOID = 255  # value of DAVIS's annotations that is no thing
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
        frames: the images, in order.
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


def is_video_set(folder: Path) -> bool:
    """Whether a folder is one of the layouts above, rather than a set of single images."""
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
    content, where = read_json(ours) if ours.is_file() else {"clips": {}}, ()
    with entries_of(
        lambda: place(ours, *where) if where else str(ours), "does not say what its clips are"
    ):
        clips, rate = content["clips"], content.get("rate", 24.0)
        where = ("rate",)
        require(
            type(rate) in (int, float) and 1 <= rate <= 1000,
            "rate must be a number of frames a second, from 1 to 1000",
        )
        where = ("clips",)
        require(isinstance(clips, dict), "clips must be a table by their names")
        for name in names.read_text(encoding="utf-8", errors="replace").split():
            where = name, "clips"
            said = clips.get(name, {})
            require(isinstance(said, dict), "it must be a table of kind and instruction")
            kind, instruction = said.get("kind", "davis"), said.get("instruction", "")
            require(isinstance(kind, str), "kind must be a word")
            require(isinstance(instruction, str), "instruction must be words")
            frames = sorted((folder / "JPEGImages" / size / name).glob("*.jpg"))
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
    # here, because images and DAVIS are evaluated without pycocotools
    from lisa_ros.evaluation.coco import decode_mask

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
