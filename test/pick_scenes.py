"""Tables of the simulated pick, and questions about them."""

from __future__ import annotations

import pytest

from lisa_ros.errors import LisaError
from lisa_tabletop.pick.scene import FIRST_SEED, PickScene
from lisa_tabletop.world.camera import SceneView


def seen(scene: PickScene) -> SceneView:
    """What its camera sees."""
    try:
        camera = scene.open_camera()
    except LisaError as error:
        pytest.skip(str(error))
    view = camera.look()
    camera.close()
    return view


def about(scene: PickScene, number: int) -> dict:
    """A question that means one object."""
    item = scene.table.items[number]
    answer = f"It is the {item.kind} [SEG]."
    return {"instruction": item.kind, "answer": answer, "targets": [item.id], "type": "plain"}


def graspable_scene(at_least: int = 2) -> PickScene:
    """The first scene with enough things that the gripper can hold, well apart."""
    for seed in range(FIRST_SEED, FIRST_SEED + 100):
        scene = PickScene(seed, uncluttered=True)
        held = [item for item in scene.table.items if item.kind in ("mug", "can", "candle", "ball")]
        if len(held) >= at_least and held[:2] == scene.table.items[:2] and scene.gap() > 0.05:
            return scene
    raise AssertionError("no such scene")
