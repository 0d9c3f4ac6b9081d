"""Questions about an image of three drawn things, as a set on disk."""

from pathlib import Path

import cv2
import numpy as np

from lisa_tabletop.evaluation.fixed_test_set import write_questions
from lisa_tabletop.world.camera import SceneView

SHAPES = {
    1: ("mug", "red", (52, 60)),
    2: ("mug", "blue", (150, 70)),
    3: ("book", "green", (90, 20)),
}


def drawn_view() -> SceneView:
    """A red and a blue mug, each a ring (a mask with a hole), and a green book."""
    rgb = np.full((120, 200, 3), 90, np.uint8)
    ids = np.zeros((120, 200), np.uint8)
    tints = {"red": (200, 30, 30), "blue": (30, 60, 200), "green": (30, 160, 40)}
    objects = []
    for number, (kind, color, (u, v)) in SHAPES.items():
        cv2.circle(ids, (u, v), 16, number, -1)
        if kind == "mug":
            cv2.circle(ids, (u, v), 7, 0, -1)
        rgb[ids == number] = tints[color]
        area = int((ids == number).sum())
        objects.append(
            {
                "id": number,
                "kind": kind,
                "color": color,
                "material": "paper" if kind == "book" else "ceramic",
                "size": [0.1, 0.1, 0.1],
                "position": [0.0, 0.0, 0.05],
                "center": [u, v],
                "box": [u - 16, v - 16, 33, 33],
                "area": area,
                "visible": 1.0,
            }
        )
    record = {"seed": 5, "width": 200, "height": 120, "objects": objects}
    return SceneView(rgb, np.ones((120, 200)), ids, np.eye(3), np.eye(4), record)


QUESTIONS = [
    {
        "instruction": "Give me the red mug.",
        "answer": "It is the red mug [SEG].",
        "targets": [1],
        "type": "plain",
        "patterns": "train",
    },
    {
        "instruction": "All mugs, please.",
        "answer": "They are the red mug [SEG] and the blue mug [SEG].",
        "targets": [1, 2],
        "type": "plural",
        "patterns": "train",
    },
    {
        "instruction": "And the knife?",
        "answer": "There is no knife here.",
        "targets": [],
        "type": "absent",
        "patterns": "test",
        "history": [["Give me the red mug.", "It is the red mug [SEG]."]],
    },
]


def drawn_dataset(folder: Path, view: SceneView) -> Path:
    """A split of questions about the view, written into `folder`."""
    (folder / "test-seen" / "instances").mkdir(parents=True)
    write_questions(folder / "test-seen", "0000", view, QUESTIONS)
    return folder
