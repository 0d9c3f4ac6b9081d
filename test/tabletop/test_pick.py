"""The simulated pick: what the hand lifts, and what counts as a success."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

import mujoco
from pick_scenes import about, graspable_scene, seen

from lisa_tabletop.pick.scene import FIRST_SEED, PickScene, question_about, scene_seeds
from lisa_tabletop.pick.trial import PickOutcome, Reply, TrueMasks, judge, reply_with, run_trial
from lisa_tabletop.world.camera import View


@pytest.mark.parametrize("seed", scene_seeds(90)[:6])
def test_perfect_masks_lift_what_can_be_held(seed: int) -> None:
    scene = PickScene(seed, uncluttered=True)
    view = seen(scene)
    question = question_about(view, seed, absent=False)
    if question is None:
        pytest.skip("nothing can be asked about this scene")
    trial = run_trial(scene, view, question, TrueMasks())
    assert trial.overlap == 1.0
    if trial.can_be_held:
        assert trial.outcome is PickOutcome.LIFTED, trial.reason
        assert trial.taken == [trial.meant]
    else:
        assert trial.outcome is PickOutcome.MISSED and "too large" in trial.reason


class Fixed:
    """Always replies the same."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def reply_to(self, view: View, question: dict) -> Reply:
        return self._reply


def test_lifting_another_object_is_the_wrong_one() -> None:
    scene = graspable_scene()
    view = seen(scene)
    other = scene.table.items[1]
    reply = reply_with(view, view.instances == other.id, "It is this one.")
    trial = run_trial(scene, view, about(scene, 0), Fixed(reply))
    assert trial.outcome is PickOutcome.WRONG and not trial.right
    assert trial.taken == [f"{other.color} {other.kind}"]
    assert trial.overlap == 0.0


def test_a_split_has_sentences_of_its_own() -> None:
    sentences = {"train": set(), "test": set()}
    for seed in scene_seeds(90)[:4]:
        scene = PickScene(seed, uncluttered=True)
        view = seen(scene)
        for split, said in sentences.items():
            question = question_about(view, seed, absent=False, split=split)
            said.add(question["instruction"] if question else None)
    assert len(sentences["train"]) > 1
    assert not sentences["train"] & sentences["test"] - {None}


def test_the_fingers_slip_off_without_friction() -> None:
    scene = graspable_scene()
    scene.table.model.geom_friction[:] = 1e-5
    view = seen(scene)
    trial = run_trial(scene, view, about(scene, 0), TrueMasks())
    assert trial.outcome is PickOutcome.MISSED, "what looks like a grip is not held by friction"


@pytest.mark.parametrize(
    ("status", "there", "outcome", "right"),
    [
        ("NOT_FOUND", False, PickOutcome.REFUSED, True),
        ("NOT_FOUND", True, PickOutcome.REFUSED, False),
        ("TEXT_ONLY", False, PickOutcome.REFUSED, True),
        ("MODEL_ERROR", False, PickOutcome.FAILED, False),
        ("TIMEOUT", True, PickOutcome.FAILED, False),
    ],
)
def test_without_a_mask_nothing_moves(
    status: str, there: bool, outcome: PickOutcome, right: bool
) -> None:
    scene = PickScene(FIRST_SEED, uncluttered=True)
    view = seen(scene)
    before = scene.table.data.time
    question = about(scene, 0) if there else about(scene, 0) | {"targets": [], "type": "absent"}
    trial = run_trial(scene, view, question, Fixed(Reply(None, "There is none.", status)))
    assert scene.table.data.time == before
    assert (trial.outcome, trial.right) == (outcome, right)


def test_grasping_although_the_thing_is_not_there_is_wrong() -> None:
    scene = graspable_scene()
    view = seen(scene)
    question = about(scene, 0) | {"targets": [], "type": "absent"}
    reply = reply_with(view, view.instances == scene.table.items[0].id, "It is this one.")
    trial = run_trial(scene, view, question, Fixed(reply))
    assert trial.outcome is PickOutcome.WRONG and not trial.right


def test_pushing_another_one_off_the_table_is_no_success() -> None:
    scene = graspable_scene()
    before = scene.lowest()
    items, data = scene.table.items, scene.table.data

    def put(number: int, height: float) -> None:
        data.qpos[7 * number : 7 * number + 3] = [0.0, 0.0, height]
        mujoco.mj_forward(scene.table.model, data)

    put(0, 0.3)
    assert judge(scene, before, items[0])[0] is PickOutcome.LIFTED
    put(1, -0.5)
    assert judge(scene, before, items[0])[0] is PickOutcome.PUSHED
