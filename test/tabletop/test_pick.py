"""The simulated pick: what the hand lifts, and what counts as a success."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

import cv2
import mujoco
from pick_scenes import about, graspable_scene, seen

from lisa_ros.geometry import Grasp
from lisa_tabletop.pick.disturb import Disturbance, free_way
from lisa_tabletop.pick.film import Film
from lisa_tabletop.pick.scene import (
    FIRST_SEED,
    UNCLUTTERED_GAP,
    PickScene,
    question_about,
    scene_seeds,
)
from lisa_tabletop.pick.series import Series, run_trials
from lisa_tabletop.pick.trial import (
    PickOutcome,
    Reply,
    Target,
    TrueMasks,
    choose,
    judge,
    reply_with,
    run_trial,
)
from lisa_tabletop.world.camera import SceneView
from lisa_tabletop.world.camera_model import simulate


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

    def reply_to(self, view: SceneView, question: dict) -> Reply:
        return self._reply


def test_the_edge_of_the_thing_is_no_obstacle_to_its_own_grasps() -> None:
    """A mask is never quite exact: what it leaves out around the thing is still the thing."""
    import cv2

    scene = graspable_scene()
    view = seen(scene)
    whole = (view.instances == scene.table.items[0].id).astype(np.uint8)
    small = cv2.erode(whole, np.ones((5, 5), np.uint8)) > 0
    assert reply_with(view, small, "It is this one.").target.grasps


def test_lifting_another_object_is_the_wrong_one() -> None:
    scene = graspable_scene()
    view = seen(scene)
    other = scene.table.items[1]
    reply = reply_with(view, view.instances == other.id, "It is this one.")
    trial = run_trial(scene, view, about(scene, 0), Fixed(reply))
    assert trial.outcome is PickOutcome.WRONG and not trial.right
    assert trial.taken == [f"{other.color} {other.kind}"]
    assert trial.overlap == 0.0


def test_a_pushed_thing_is_lifted_by_a_hand_that_follows_it_and_by_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("lisa_tabletop.pick.disturb.PUSH", 0.10)  # beyond half of any such thing
    outcomes = {}
    for follows in (True, False):
        scene = graspable_scene()
        camera = scene.open_camera()
        try:
            view = camera.look()
            disturbance = Disturbance(scene, camera.look, follows)
            question = about(scene, 0)
            trial = run_trial(scene, view, question, TrueMasks(), disturbance=disturbance)
        finally:
            camera.close()
        assert trial.pushed > 0.08
        outcomes[follows] = trial.outcome
    assert outcomes[True] is PickOutcome.LIFTED
    assert outcomes[False] is not PickOutcome.LIFTED, "it reaches for where the thing was"


def test_a_thing_without_room_is_not_pushed() -> None:
    scene = graspable_scene()
    first, second = scene.table.items[:2]
    assert np.linalg.norm(free_way(scene, first)) == pytest.approx(1)
    second.on = first.id
    assert not free_way(scene, first).any() and not free_way(scene, second).any()


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


def test_what_stands_high_without_having_risen_was_not_lifted() -> None:
    scene = graspable_scene()
    items, data = scene.table.items, scene.table.data
    heights = {0: 0.02, 1: 0.09}

    def put(number: int, height: float) -> None:
        data.qpos[7 * number : 7 * number + 3] = [0.3 * number, 0.0, height]
        mujoco.mj_forward(scene.table.model, data)

    for number, height in heights.items():
        put(number, height)
    before = scene.lowest()
    put(0, 0.3)
    assert judge(scene, before, items[0]) == (PickOutcome.LIFTED, [items[0]])
    put(1, 0.2)  # it has come along
    assert judge(scene, before, items[0])[0] is PickOutcome.WRONG


def test_the_meant_thing_dropped_beside_the_table_was_missed() -> None:
    scene = graspable_scene()
    before = scene.lowest()
    scene.table.data.qpos[:3] = [0.0, 0.0, -0.5]
    mujoco.mj_forward(scene.table.model, scene.table.data)
    assert judge(scene, before, scene.table.items[0])[0] is PickOutcome.MISSED


def test_only_a_grasp_from_above_is_chosen() -> None:
    down, sideways = np.diag([1.0, -1.0, -1.0, 1.0]), np.eye(4)
    sideways[:3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    grasps = [
        Grasp(pose, 0.05, score, kind="front") for pose, score in ((sideways, 0.9), (down, 0.4))
    ]
    assert choose(Target(grasps, np.full(3, 0.05))).grasp is grasps[1]
    plan = choose(Target(grasps[:1], np.array([0.21, 0.12, 0.05])))
    assert plan.grasp is None and plan.reason.startswith("21 by 12 cm is too large")


def test_neighbours_are_obstacles() -> None:
    """The fingers find no way down where everything around the thing is as high as it is."""
    scene = graspable_scene()
    view = seen(scene)
    mask = view.instances == scene.table.items[0].id
    assert choose(reply_with(view, mask, "").target).grasp is not None
    near = cv2.dilate(mask.astype(np.uint8), np.ones((111, 111), np.uint8)).astype(bool)
    margin = cv2.dilate(mask.astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool)
    depth = np.where(near & ~margin, view.depth - 0.06, view.depth)
    crowded = replace(view, depth=depth)
    assert choose(reply_with(crowded, mask, "").target).grasp is None


class Watching:
    """Answers with the true masks, and keeps what it was shown."""

    def __init__(self) -> None:
        self.views: list[SceneView] = []

    def reply_to(self, view: SceneView, question: dict) -> Reply:
        self.views.append(view)
        return Reply(None, "There is none.", "NOT_FOUND")


def test_a_series_shows_what_a_camera_would_have_taken_of_tables_with_room(tmp_path: Path) -> None:
    watching = Watching()
    series = Series(90, uncluttered=True)
    trials = list(run_trials(series, 3, watching, Film(tmp_path, 0)))
    assert len(trials) == len(watching.views) == 3
    for trial, view in zip(trials, watching.views, strict=True):
        scene = PickScene(trial.seed, uncluttered=True)
        assert scene.gap() >= UNCLUTTERED_GAP
        clean = seen(scene)
        assert not np.array_equal(view.rgb, clean.rgb)
        taken = simulate(clean.rgb, np.random.default_rng((trial.seed, 3)))
        assert np.array_equal(view.rgb, taken)
    tight = [s for s in scene_seeds(90)[:12] if PickScene(s, True).gap() < UNCLUTTERED_GAP]
    assert tight and not {trial.seed for trial in trials} & set(tight)
