"""The rendered tables of a run: one file an array, filled by several processes while others learn.

    scenes/rgb.npy      uint8 (V,240,320,3)
    scenes/ids.npy      uint8 (V,240,320), the object of every pixel, 0 for none
    scenes/classes.npy  uint8 (V,2,MAX_OBJECTS+1), kind and colour of every object id (concepts.py)
    scenes/done.npy     uint8 (T,), which tables are there
    scenes/records/     what the VIEWS views of a table hold, one JSON file a table

View v is the (v % VIEWS)-th of table v // VIEWS, whose seed is that number. The files are as long
as the run may become and sparse, so that what isn't rendered yet takes no room.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np

from lisa_ros.writing import write_file
from lisa_tabletop.training.concepts import COLOR_INDEX, KIND_INDEX

VIEWS = 6  # of each table, with new colours, light and camera
WIDTH, HEIGHT = 320, 240
MAX_OBJECTS = 16
ARRAYS = {"rgb": (HEIGHT, WIDTH, 3), "ids": (HEIGHT, WIDTH), "classes": (2, MAX_OBJECTS + 1)}


class Scenes:
    """The views of a folder, mapped into memory; `tables` is how many there may become."""

    def __init__(self, folder: Path, tables: int | None = None) -> None:
        """Open a folder, or make one for `tables` tables. FileNotFoundError if there is none."""
        self.folder = folder
        if tables is not None and not (folder / "done.npy").exists():
            (folder / "records").mkdir(parents=True, exist_ok=True)
            for name, shape in ARRAYS.items():
                _create(folder / f"{name}.npy", (tables * VIEWS, *shape))
            _create(folder / "done.npy", (tables,))
        self.rgb, self.ids, self.classes, self.done = (
            np.load(folder / f"{name}.npy", mmap_mode="r+") for name in (*ARRAYS, "done")
        )

    def __len__(self) -> int:
        """Views that are rendered."""
        return VIEWS * int(np.count_nonzero(self.done))

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Indices (count,) of rendered views, no table twice before all have been drawn."""
        tables = np.flatnonzero(np.array(self.done))  # a copy: others mark theirs meanwhile
        rounds = [random.permutation(tables) for _ in range(-(-count // len(tables)))]
        return VIEWS * np.concatenate(rounds)[:count] + random.integers(VIEWS, size=count)

    def record(self, view: int) -> dict:
        """What a view holds (docs/design.md), its pixel quantities those of the stored image."""
        table, number = divmod(int(view), VIEWS)
        return json.loads(self._record_file(table).read_bytes())[number]

    def render(self, table: int) -> None:
        """Draw a table unless it is there; its mark in `done` is set last."""
        if self.done[table]:
            return
        from lisa_tabletop.world.camera import TabletopCamera
        from lisa_tabletop.world.tabletop import TRAIN_SEEDS, Tabletop

        scene = Tabletop(TRAIN_SEEDS[table])
        camera = TabletopCamera(scene, WIDTH, HEIGHT)
        random = np.random.default_rng((TRAIN_SEEDS[table], 1))
        records = []
        for view in range(table * VIEWS, (table + 1) * VIEWS):
            scene.recolor(random)
            camera.move(random)
            look = camera.look()
            self.rgb[view], self.ids[view] = look.rgb, look.instances
            self.classes[view] = classes_of(look.record)
            records.append(look.record)
        camera.close()
        write_file(self._record_file(table), json.dumps(records))
        self.done[table] = 1

    def _record_file(self, table: int) -> Path:
        return self.folder / "records" / f"{table}.json"


def render_share(folder: Path, first: int, workers: int) -> None:
    """Render every `workers`-th table from `first` on; runs in a process of its own until all are
    there."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_DFL)
    os.nice(5)  # who learns goes first
    os.environ.setdefault("MUJOCO_GL", "egl")
    scenes = Scenes(folder)
    for table in range(first, len(scenes.done), workers):
        scenes.render(table)


def classes_of(record: dict) -> np.ndarray:
    """Kind and colour (2,MAX_OBJECTS+1) uint8 of every object id, 0 where there is none."""
    classes = np.zeros((2, MAX_OBJECTS + 1), np.uint8)
    for entry in record["objects"]:
        classes[:, entry["id"]] = KIND_INDEX[entry["kind"]], COLOR_INDEX[entry["color"]]
    return classes


def mirror(record: dict) -> dict:
    """The record of the image seen in a mirror: left becomes right."""
    width = record["width"]
    objects = [
        {
            **entry,
            "center": [width - 1 - entry["center"][0], entry["center"][1]],
            "box": [width - entry["box"][0] - entry["box"][2], *entry["box"][1:]],
        }
        for entry in record["objects"]
    ]
    return {**record, "objects": objects}


def _create(path: Path, shape: tuple[int, ...]) -> None:
    """An array file of zeros that takes no room before something is written into it."""
    np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape).flush()
