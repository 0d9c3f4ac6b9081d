"""Small made-up sets of video in the published layouts, and predictions for them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from lisa_ros.evaluation.video_sets import VideoClip
from lisa_tabletop.evaluation.fixed_clips import write_palette_png

SIZE, FRAMES, CLIPS = (96, 72), 7, ("bear", "two-dogs")


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """A mask (H, W); also where it hangs over the border."""
    rows, columns = np.mgrid[: SIZE[1], : SIZE[0]]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def truth(clip: str, index: int) -> np.ndarray:
    """Masks (2, H, W): two things that cross the image; the second is gone for two frames."""
    shift = 4 * index + 9 * CLIPS.index(clip)
    first = disc(14 + shift, 30 + index, 11.5)
    second = disc(88 - shift, 60, 14.0) & ~first & (index not in (3, 4))
    return np.stack([first, second])


def predicted(clip: str, index: int) -> np.ndarray:
    """Masks (2, H, W) that are a little off, at times empty, at times where nothing is."""
    random = np.random.default_rng((CLIPS.index(clip), index))
    masks = np.roll(truth(clip, index), random.integers(-3, 4, 2), (1, 2))
    if index == 2:
        masks[0] = False
    if index == 4:
        masks[1] = disc(50, 20, 6)
    return masks & (random.random(masks.shape) > 0.02)


def numbers(masks: np.ndarray) -> np.ndarray:
    """One number for each pixel (H, W), later masks beneath earlier ones."""
    return np.where(masks[0], 1, np.where(masks[1], 2, 0)).astype(np.uint8)


def write_frames(folder: Path) -> None:
    for clip in CLIPS:
        (folder / clip).mkdir(parents=True)
        for index in range(FRAMES):
            grey = np.full((*SIZE[::-1], 3), 20 * index, np.uint8)
            Image.fromarray(grey).save(folder / clip / f"{index:05d}.jpg")


def write_masks(folder: Path, masks, void: bool = False) -> None:
    for clip in CLIPS:
        (folder / clip).mkdir(parents=True)
        for index in range(FRAMES):
            values = numbers(masks(clip, index))
            if void:
                values[:3, :5] = 255
            write_palette_png(folder / clip / f"{index:05d}.png", values)


def write_davis(folder: Path) -> None:
    write_frames(folder / "JPEGImages" / "480p")
    write_masks(folder / "Annotations" / "480p", truth, void=True)
    (folder / "ImageSets" / "2017").mkdir(parents=True)
    (folder / "ImageSets" / "2017" / "val.txt").write_text("\n".join(CLIPS) + "\n")


EXPRESSIONS = {"0": ("the first", ["1"]), "1": ("both of them", ["1", "2"])}


def meta(field: str, **more: object) -> dict:
    """meta_expressions.json; anno_id of the second clip go on where those of the first end."""
    videos = {}
    for number, clip in enumerate(CLIPS):
        said = {}
        for key, (words, things) in EXPRESSIONS.items():
            ids = [int(t) - 1 + 2 * number for t in things] if field == "anno_id" else things
            said[key] = {"exp": words, field: ids, **{k: int(key) for k in more}}
        videos[clip] = {"expressions": said, "frames": [f"{i:05d}" for i in range(FRAMES)]}
    return {"videos": videos}


def write_youtube(folder: Path) -> None:
    write_frames(folder / "train" / "JPEGImages")
    write_masks(folder / "train" / "Annotations", truth)
    (folder / "meta_expressions" / "train").mkdir(parents=True)
    path = folder / "meta_expressions" / "train" / "meta_expressions.json"
    path.write_text(json.dumps(meta("obj_id")))


def run_lengths() -> dict:
    """mask_dict.json: COCO's run lengths, None where a thing is not seen."""
    from pycocotools import mask as coco

    masks = {}
    for clip in CLIPS:
        for thing in range(2):
            frames = []
            for index in range(FRAMES):
                seen = truth(clip, index)[thing]
                run = coco.encode(np.asfortranarray(seen.astype(np.uint8)))
                frames.append({**run, "counts": run["counts"].decode()} if seen.any() else None)
            masks[str(len(masks))] = frames
    return masks


def write_mevis(folder: Path, revos: bool = False) -> None:
    write_frames(folder / "JPEGImages")
    (folder / "mask_dict.json").write_text(json.dumps(run_lengths()))
    name = "meta_expressions_valid_.json" if revos else "meta_expressions.json"
    more = {"type_id": 0} if revos else {}
    (folder / name).write_text(json.dumps(meta("anno_id", **more)))


def predict(clip: VideoClip, masks=predicted):
    """What `score_clip` takes: the masks of all things, or of those that an expression means."""
    name, _, expression = clip.name.partition("/")
    things = [int(t) - 1 for t in EXPRESSIONS[expression][1]] if expression else [0, 1]
    return lambda index, rgb: masks(name, index)[things]
