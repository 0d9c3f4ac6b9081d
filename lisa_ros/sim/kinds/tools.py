"""Hand tools."""

from __future__ import annotations

import numpy as np

from lisa_ros.sim.kinds.shape import Collider, Draw, Part, Shape
from lisa_ros.sim.meshes import lathe


def hammer(draw: Draw) -> Shape:
    length, head = draw(0.20, 0.26), draw(0.038, 0.050)
    thick = draw(0.012, 0.016)
    parts = [
        Part("capsule", "main", (0.010, length / 2 - 0.01, 0), (0, 0, thick), (0, np.pi / 2, 0)),
        Part("box", "steel", (thick, head, thick), (length / 2, 0, thick)),
        Part(
            "cylinder",
            "steel",
            (thick * 1.25, 0.010, 0),
            (length / 2, head, thick * 1.25),
            (np.pi / 2, 0, 0),
        ),
    ]
    return Shape(
        parts,
        [
            Collider("box", (length / 2, 0.010, 0.010), (0, 0, thick)),
            Collider("box", (thick, head, thick), (length / 2, 0, thick)),
        ],
        shine=0.6,
    )


def screwdriver(draw: Draw) -> Shape:
    handle, shaft = draw(0.085, 0.105), draw(0.08, 0.12)
    thick = draw(0.014, 0.018)
    grip = lathe(
        [
            (0, 0),
            (thick * 0.8, 0),
            (thick, 0.01),
            (thick, handle * 0.7),
            (thick * 0.65, handle * 0.85),
            (thick * 0.8, handle),
            (0, handle),
        ],
        12,
    )
    parts = [
        Part(grip, position=(-handle, 0, thick), euler=(0, np.pi / 2, 0)),
        Part("cylinder", "steel", (0.0045, shaft / 2, 0), (shaft / 2, 0, thick), (0, np.pi / 2, 0)),
        Part("box", "steel", (0.010, 0.007, 0.003), (shaft, 0, thick)),
    ]
    middle = (shaft - handle) / 2
    return Shape(
        parts,
        [Collider("box", ((shaft + handle) / 2, thick * 0.8, thick), (middle, 0, thick))],
        shine=0.6,
        fine_colliders=[
            Collider("box", (handle / 2, thick * 0.9, thick), (-handle / 2, 0, thick)),
            Collider("box", (shaft / 2 + 0.005, 0.005, thick), (shaft / 2 + 0.005, 0, thick)),
        ],
    )
