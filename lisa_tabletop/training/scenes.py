"""Rendered scenes on disk: what training reads, drawn ahead so that the network never waits.

A shard is three files: `<first seed>.rgb.npy` uint8 (N,h,w,3), `<first seed>.ids.npy` uint8 (N,h,w)
and `<first seed>.json`, the N scene records with pixel quantities scaled to (h, w).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

TRAIN_SEEDS = range(0, 5_000_000)
VALIDATION_SEEDS = range(7_000_000, 8_000_000)
TEST_SEEDS = range(8_000_000, 9_000_000)
SHARD_SCENES, VIEWS = 50, 6
RENDER_SIZE, STORE_SIZE = (320, 240), (160, 120)  # width, height


@dataclass(frozen=True)
class Scenes:
    """All views of a folder: memory-mapped pictures, instance ids and records, index by index."""

    rgb: list[np.ndarray]
    ids: list[np.ndarray]
    records: list[dict]

    def __len__(self) -> int:
        return len(self.records)


def render_views(seed: int, views: int) -> Iterable[tuple[np.ndarray, np.ndarray, dict]]:
    """Pictures (h,w,3), instance ids (h,w) and records of one scene seen `views` times."""
    from lisa_tabletop.world.camera import TabletopCamera
    from lisa_tabletop.world.tabletop import Tabletop

    scene = Tabletop(seed)
    camera = TabletopCamera(scene, *RENDER_SIZE)
    random = np.random.default_rng((seed, 1))
    for _ in range(views):
        scene.recolor(random)
        camera.move(random)
        view = camera.look()
        small = cv2.resize(view.rgb, STORE_SIZE, interpolation=cv2.INTER_AREA)
        ids = cv2.resize(view.instances, STORE_SIZE, interpolation=cv2.INTER_NEAREST)
        yield small, ids, shrink_record(view.record, STORE_SIZE)
    camera.close()


def shrink_record(record: dict, size: tuple[int, int]) -> dict:
    """The record as it reads for a picture resized to `size` (width, height)."""
    scale = size[0] / record["width"]
    objects = [
        {
            **thing,
            "center": [round(value * scale, 1) for value in thing["center"]],
            "box": [round(value * scale) for value in thing["box"]],
            "area": round(thing["area"] * scale**2),
        }
        for thing in record["objects"]
    ]
    return {**record, "width": size[0], "height": size[1], "objects": objects}


def render_shard(folder: Path, first_seed: int) -> Path:
    """Render one shard unless it is there; its JSON is written last and marks it complete."""
    done = folder / f"{first_seed:07d}.json"
    if done.exists():
        return done
    views = [
        view
        for seed in range(first_seed, first_seed + SHARD_SCENES)
        for view in render_views(seed, VIEWS)
    ]
    rgb, ids, records = zip(*views, strict=True)
    np.save(done.with_suffix(".rgb.npy"), np.stack(rgb))
    np.save(done.with_suffix(".ids.npy"), np.stack(ids))
    partial = done.with_suffix(".partial")
    partial.write_text(json.dumps(records))
    partial.rename(done)
    return done


def render_scenes(folder: Path, shards: int, processes: int) -> Iterable[Path]:
    """Render the missing shards of the training seeds in parallel, yielding each as it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    seeds = [TRAIN_SEEDS.start + SHARD_SCENES * index for index in range(shards)]
    with ProcessPoolExecutor(processes) as pool:
        yield from pool.map(render_shard, [folder] * shards, seeds)


def open_scenes(folder: Path) -> Scenes:
    """Map every complete shard of `folder`."""
    rgb, ids, records = [], [], []
    for done in sorted(folder.glob("*.json")):
        rgb.extend(np.load(done.with_suffix(".rgb.npy"), mmap_mode="r"))
        ids.extend(np.load(done.with_suffix(".ids.npy"), mmap_mode="r"))
        records.extend(json.loads(done.read_text()))
    return Scenes(rgb, ids, records)
