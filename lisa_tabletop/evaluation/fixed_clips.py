"""The fixed clips of the simulated tabletop, in DAVIS 2017's folders, for any tracker to be scored.

    JPEGImages/480p/CLIP/00000.jpg      the frames, 15 a second, as a camera delivers them
    Annotations/480p/CLIP/00000.png     the thing that is meant: 1, everything else 0
    Things/480p/CLIP/00000.png          every thing: 1 the one that is meant, 254 the robot's hand
    ImageSets/2017/val.txt              the names of the clips
    clips.json                          what happens in each, and the words that mean the thing
    Scripts/CLIP.json                   where camera, hand and things are in every frame

world/moving_table.py draws one clip; docs/tracking.md describes the set.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.reasonseg import SUMMARY
from lisa_ros.image_files import read_image, read_samples
from lisa_tabletop.evaluation.fixed_test_set import draw_all, first_difference, new_set
from lisa_tabletop.world.moving_table import CLIP_KINDS, RATE, SECONDS, Clip
from lisa_tabletop.world.tabletop import TEST_SEEDS

FIXED = Path(__file__).with_name("fixed_clips.json")  # the SUMMARY of the fixed clips
CLIPS = 9 * len(CLIP_KINDS)
FIRST_SEED, SEEDS_PER_SERIES, SERIES = TEST_SEEDS[400_000], 5_000, 20  # series 0 is the fixed one
QUALITY = 88  # of the JPGs
FOLDERS = ("JPEGImages/480p", "Annotations/480p", "Things/480p")
WORDS = "clips.json"
HASHED = RATE  # of so many frames one is hashed: all follow from the script and the renderer


def draw_clips(
    folder: Path, clips: int = CLIPS, series: int = 0, seconds: float = SECONDS,
    processes: int | None = None,
) -> None:  # fmt: skip
    """Write clips into a new folder, which appears under its name when it is complete.

    Args:
        series: which tables: 0 for the fixed set, another to tune on.
        seconds: length of each clip; what happens in it is squeezed into it.

    Raises:
        DatasetError: the folder holds something already.
        WriteError: nothing can be written there, or no longer.
    """
    kinds = [kind for _ in range(clips) for kind in CLIP_KINDS][:clips]
    first = FIRST_SEED + series * SEEDS_PER_SERIES
    todo = [(f"{index:02d}-{kind}", first + index, kind) for index, kind in enumerate(kinds)]
    with new_set(folder) as beside:
        for name in ("ImageSets/2017", "Scripts"):
            (beside / name).mkdir(parents=True)
        words = draw_all(partial(_write_clip, beside, seconds), todo, processes)
        names = [name for name, _, _ in todo]
        (beside / "ImageSets/2017/val.txt").write_text("\n".join(names) + "\n")
        said = {"rate": RATE, "clips": dict(zip(names, words, strict=True))}
        (beside / WORDS).write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        (beside / SUMMARY).write_text(json.dumps(summarise_clips(beside), indent=2) + "\n")


def _write_clip(folder: Path, seconds: float, what: tuple[str, int, str]) -> dict:
    """Draw one clip; what it says about it."""
    name, seed, kind = what
    clip = Clip(seed, kind, seconds)
    for part in FOLDERS:
        (folder / part / name).mkdir(parents=True)
    for index, (rgb, things) in enumerate(clip.frames()):
        image, meant, all_of_them = (folder / part / name / f"{index:05d}" for part in FOLDERS)
        Image.fromarray(rgb).save(image.with_suffix(".jpg"), quality=QUALITY)
        for path, values in ((meant, (things == 1).astype(np.uint8)), (all_of_them, things)):
            write_palette_png(path.with_suffix(".png"), values)
    script = clip.script
    poses = {
        "eye": script.eye,
        "look": script.look,
        "hand": script.hand,
        **{f"moved {clip.numbers[id]}": poses for id, poses in sorted(script.moved.items())},
    }
    rounded = {name: np.round(values, 4).tolist() for name, values in poses.items()}
    (folder / "Scripts" / f"{name}.json").write_text(json.dumps(rounded) + "\n")
    things = sorted(clip.scene.items, key=lambda item: clip.numbers[item.id])
    return {
        "kind": kind,
        "seed": clip.seed,
        "instruction": clip.question["instruction"],
        "answer": clip.question["answer"],
        "type": clip.question["type"],
        "things": [f"{item.color} {item.kind}" for item in things],
    }


def write_palette_png(path: Path, values: np.ndarray) -> None:
    """Numbers (H,W) uint8 as a PNG whose palette gives each its colour, as DAVIS's have it."""
    image = Image.fromarray(values).convert("L")
    image.putpalette(PALETTE)
    image.save(path)


def _palette() -> bytes:
    """The colours of PASCAL VOC and DAVIS: a number's bits, in turn, are high bits of R, G, B."""
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        colors[:, bit % 3] |= (np.arange(256) >> bit & 1).astype(np.uint8) << (7 - bit // 3)
    return colors.tobytes()


PALETTE = _palette()


def summarise_clips(folder: Path) -> dict:
    """How many clips of each kind a set of ours holds, and the SHA-256 of its files, in parts.

    `script`: words and poses of all frames; of one frame a second `masks`: the numbers of the
    things, and `images`: the pixels as the JPGs decode.

    Raises:
        DatasetError: the folder holds no clips of ours.
    """
    try:
        said = json.loads((folder / WORDS).read_text(encoding="utf-8"))
        clips = said["clips"]
    except (OSError, ValueError, KeyError) as error:
        raise DatasetError(
            f"{folder} holds no clips of `lisa-ros sim-clips`: {WORDS} is missing or damaged"
        ) from error
    hashes = {part: hashlib.sha256() for part in ("script", "masks", "images")}
    frames = 0
    for name, words in clips.items():
        poses = (folder / "Scripts" / f"{name}.json").read_bytes()
        hashes["script"].update(json.dumps([name, words], sort_keys=True).encode() + poses)
        images = sorted((folder / FOLDERS[0] / name).glob("*.jpg"))
        frames += len(images)
        for image in images[::HASHED]:
            things = folder / FOLDERS[2] / name / f"{image.stem}.png"
            hashes["images"].update(read_image(image).tobytes())
            hashes["masks"].update(read_samples(things).tobytes())
    return {
        "clips": dict(Counter(words["kind"] for words in clips.values())),
        "frames": frames,
        "sha256": {name: h.hexdigest() for name, h in hashes.items()},
    }


def compare_clips(summary: Mapping) -> str:
    """In words: are the clips of this summary the fixed ones, and if not, what that means."""
    fixed = json.loads(FIXED.read_text())
    return {
        "": "These are the fixed clips: script, masks and images are the recorded ones.",
        "script": f"Not the {sum(fixed['clips'].values())} fixed clips: other tables, lengths, "
        "words or movements. Figures cannot be compared with the published ones.",
        "masks": "The script is that of the fixed clips, the masks are not: another renderer has "
        "moved edges of things by a pixel. Figures may differ in the third digit.",
        "images": "Script and masks are those of the fixed clips, the pixels are not: another "
        "renderer or JPG library shades some of them a little differently. Figures compare.",
    }[first_difference(summary, fixed)]
