"""Scenes for tests of training: nothing is drawn, so they are there at once."""

import json
from pathlib import Path

import numpy as np

from lisa_tabletop.training.scenes import HEIGHT, VIEWS, WIDTH, Scenes, classes_of

SIDE = 48  # pixels


def square_scenes(folder: Path, tables: int = 2) -> Scenes:
    """Tables with coloured squares for objects: enough for the loop, no drawing needed."""
    random = np.random.default_rng(1)
    tints = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 200)}
    kinds, materials = ("mug", "ball", "book"), ("ceramic", "rubber", "paper")
    scenes = Scenes(folder, tables)
    for table in range(tables):
        records = []
        for view in range(table * VIEWS, (table + 1) * VIEWS):
            image, ids = np.full((HEIGHT, WIDTH, 3), 120, np.uint8), scenes.ids[view]
            objects = []
            for index, (color, tint) in enumerate(tints.items()):
                x, y = 30 + 90 * index, int(random.integers(20, 160))
                square = (slice(y, y + SIDE), slice(x, x + SIDE))
                image[square], ids[square] = tint, index + 1
                which = (index + view) % 3
                objects.append(
                    {
                        "id": index + 1,
                        "kind": kinds[which],
                        "color": color,
                        "material": materials[which],
                        "size": [0.1, 0.1, 0.1],
                        "position": [0.0, 0.0, 0.05],
                        "center": [x + (SIDE - 1) / 2, y + (SIDE - 1) / 2],
                        "box": [x, y, SIDE, SIDE],
                        "area": SIDE**2,
                        "visible": 1.0,
                    }
                )
            record = {"seed": table, "width": WIDTH, "height": HEIGHT, "objects": objects}
            scenes.rgb[view], scenes.classes[view] = image, classes_of(record)
            records.append(record)
        (folder / "records" / f"{table}.json").write_text(json.dumps(records))
        scenes.done[table] = 1
    return scenes
