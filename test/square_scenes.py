"""Scenes for tests of training: nothing is drawn, so they are there at once."""

import numpy as np

from lisa_tabletop.training.scenes import Scenes


def square_scenes() -> Scenes:
    """Four tables with coloured squares for objects: enough for the loop, no drawing needed."""
    random = np.random.default_rng(1)
    tints = {"red": (200, 30, 30), "green": (30, 160, 40), "blue": (30, 60, 200)}
    kinds, materials = ("mug", "ball", "book"), ("ceramic", "rubber", "paper")
    rgb, ids, records = [], [], []
    for scene in range(4):
        picture = np.full((120, 160, 3), 120, np.uint8)
        identity = np.zeros((120, 160), np.uint8)
        objects = []
        for index, (color, tint) in enumerate(tints.items()):
            x, y = 30 + 35 * index, int(random.integers(20, 80))
            picture[y : y + 24, x : x + 24] = tint
            identity[y : y + 24, x : x + 24] = index + 1
            objects.append(
                {
                    "id": index + 1,
                    "kind": kinds[(index + scene) % 3],
                    "color": color,
                    "material": materials[(index + scene) % 3],
                    "size": [0.1, 0.1, 0.1],
                    "position": [0.0, 0.0, 0.05],
                    "center": [x + 11.5, y + 11.5],
                    "box": [x, y, 24, 24],
                    "area": 576,
                    "visible": 1.0,
                }
            )
        rgb.append(picture)
        ids.append(identity)
        records.append({"seed": scene, "width": 160, "height": 120, "objects": objects})
    return Scenes(rgb, ids, records)
