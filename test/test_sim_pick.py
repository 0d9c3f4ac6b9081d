"""The simulated pick: what the hand holds, what counts as a success, and the way over ROS 2.

    python test/test_sim_pick.py [--ros-args ...]

runs the perception node around an engine that knows one picture and the mask in it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

import cv2
import mujoco
import rclpy
from fake_engine import Answer, Finished, Instance, MaskReady, TextDelta
from fake_engine import Status as AnswerStatus
from node_rig import Process, own_domain
from PIL import Image, ImageSequence

from lisa_ros.cli import main
from lisa_ros.errors import LisaError
from lisa_ros.node.sim_robot import IMAGE, NoAnswer, SimRobot
from lisa_ros.sim.camera import View
from lisa_ros.sim.kinds import KINDS
from lisa_ros.sim.pick import film
from lisa_ros.sim.pick.film import MOST_TILES, Tile, save_contact_sheet
from lisa_ros.sim.pick.hand import add_hand
from lisa_ros.sim.pick.report import summary
from lisa_ros.sim.pick.scene import FIRST_SEED, PickScene, question_about, scene_seeds
from lisa_ros.sim.pick.trial import Outcome, Reply, Trial, TrueMasks, judge, run_trial
from lisa_ros.sim.world import Tabletop

PICTURE_FOLDER = "TEST_SIM_PICK_FOLDER"  # variable of the environment
TOO_BIG = {"bowl", "plate", "book", "box", "tray", "pot", "teapot"}


def seen(scene: PickScene) -> View:
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


def test_the_hand_changes_nothing_of_what_is_drawn() -> None:
    for seed in (1, 2, 3):
        plain, extended = Tabletop(seed), Tabletop(seed, extend=add_hand)
        for one, other in zip(plain.items, extended.items, strict=True):
            assert (one.kind, one.color) == (other.kind, other.color)
            size, again = (
                plain.model.geom_rbound[one.geoms],
                extended.model.geom_rbound[other.geoms],
            )
            assert np.allclose(size, again)
            colors = plain.model.geom_rgba[one.geoms], extended.model.geom_rgba[other.geoms]
            assert np.array_equal(*colors)


@pytest.mark.parametrize("kind", KINDS)
def test_objects_rest_alike_on_fine_and_on_coarse_colliders(kind: str) -> None:
    for seed in (4, 5):
        plain = Tabletop(seed, kinds=(kind,), count=(1, 1))
        extended = Tabletop(seed, kinds=(kind,), count=(1, 1), extend=add_hand)
        one, other = plain.points(plain.items[0]), extended.points(extended.items[0])
        assert np.abs(one - other).max() < 0.006, "its picture would be another one"


def test_what_is_too_big_for_the_gripper_and_what_is_not() -> None:
    for kind in KINDS:
        scene = PickScene(6, uncluttered=True)
        scene.table = Tabletop(6, kinds=(kind,), count=(1, 1), extend=add_hand)
        assert scene.can_be_held(scene.table.items[0]) == (kind not in TOO_BIG), kind


def test_the_hand_reaches_poses_and_is_not_seen_by_the_camera() -> None:
    scene = PickScene(FIRST_SEED, uncluttered=True)
    view = seen(scene)
    hand = scene.hand
    hand_geoms = {
        geom
        for geom in range(scene.table.model.ngeom)
        if scene.table.model.body(scene.table.model.geom_bodyid[geom]).name
        in ("hand", "finger", "other_finger")
    }
    assert hand_geoms
    pose = np.linalg.inv(view.camera_pose)
    for geom in hand_geoms:
        place = pose[:3, :3] @ scene.table.data.geom_xpos[geom] + pose[:3, 3]
        u, v, depth = view.intrinsics @ place
        inside = depth > 0 and 0 <= u / depth < 640 and 0 <= v / depth < 480
        assert not inside, "the parked hand hides what the camera should see"
    hand.move(np.array([0.1, -0.1, 0.40]), 0.5)
    hand.wait(0.1)
    assert np.allclose(hand.position, [0.1, -0.1, 0.40], atol=0.002)
    hand.grip(0.0, 0.4)
    assert scene.table.data.joint("finger").qpos < 0.002
    assert scene.table.data.joint("other_finger").qpos < 0.002


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
        assert trial.outcome is Outcome.LIFTED, trial.reason
        assert trial.taken == [trial.meant]
    else:
        assert trial.outcome is Outcome.MISSED and "too large" in trial.reason


class Fixed:
    """Always replies the same."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply

    def ask(self, view: View, question: dict) -> Reply:
        return self._reply


def graspable_scene(at_least: int = 2) -> PickScene:
    """The first scene with enough things that the gripper can hold, well apart."""
    for seed in range(FIRST_SEED, FIRST_SEED + 100):
        scene = PickScene(seed, uncluttered=True)
        held = [item for item in scene.table.items if item.kind in ("mug", "can", "candle", "ball")]
        if len(held) >= at_least and held[:2] == scene.table.items[:2] and scene.gap() > 0.05:
            return scene
    raise AssertionError("no such scene")


def test_lifting_another_object_is_the_wrong_one() -> None:
    scene = graspable_scene()
    view = seen(scene)
    other = scene.table.items[1]
    reply = Reply(view.instances == other.id, "It is this one.")
    trial = run_trial(scene, view, about(scene, 0), Fixed(reply))
    assert trial.outcome is Outcome.WRONG and not trial.right
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
    assert trial.outcome is Outcome.MISSED, "what looks like a grip is not held by friction"


@pytest.mark.parametrize(
    ("status", "there", "outcome", "right"),
    [
        ("NOT_FOUND", False, Outcome.REFUSED, True),
        ("NOT_FOUND", True, Outcome.REFUSED, False),
        ("TEXT_ONLY", False, Outcome.REFUSED, True),
        ("MODEL_ERROR", False, Outcome.FAILED, False),
        ("TIMEOUT", True, Outcome.FAILED, False),
    ],
)
def test_without_a_mask_nothing_moves(
    status: str, there: bool, outcome: Outcome, right: bool
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
    reply = Reply(view.instances == scene.table.items[0].id, "It is this one.")
    trial = run_trial(scene, view, question, Fixed(reply))
    assert trial.outcome is Outcome.WRONG and not trial.right


def test_pushing_another_one_off_the_table_is_no_success() -> None:
    scene = graspable_scene()
    before = scene.lowest()
    items, data = scene.table.items, scene.table.data

    def put(number: int, height: float) -> None:
        data.qpos[7 * number : 7 * number + 3] = [0.0, 0.0, height]
        mujoco.mj_forward(scene.table.model, data)

    put(0, 0.3)
    assert judge(scene, before, items[0])[0] is Outcome.LIFTED
    put(1, -0.5)
    assert judge(scene, before, items[0])[0] is Outcome.PUSHED


def trial(kind: str, outcome: Outcome, meant: str = "red mug", can_be_held: bool = True) -> Trial:
    return Trial(
        1, kind, "the mug", "It is it.", "OK", meant, can_be_held, outcome, "", [], 0.5, 1.0
    )


def test_what_is_not_there_has_verdicts_of_its_own() -> None:
    absent = {"kind": "absent", "meant": ""}
    assert film.verdict(trial(outcome=Outcome.REFUSED, **absent)) == "rightly refused"
    assert film.verdict(trial(outcome=Outcome.MISSED, **absent)) == "not there, but reached for"
    taken = replace(trial(outcome=Outcome.WRONG, **absent), taken=["red mug"])
    assert film.verdict(taken) == "not there, but lifted: red mug"
    assert film.verdict(trial("use", Outcome.REFUSED)) == "refused, but there is the red mug"


def test_the_report_keeps_apart_what_cannot_be_held_and_what_is_not_there() -> None:
    counts = summary(
        [
            trial("plain", Outcome.LIFTED),
            trial("plain", Outcome.MISSED, can_be_held=False),
            trial("use", Outcome.WRONG),
            trial("relation", Outcome.REFUSED),
            trial("absent", Outcome.REFUSED, meant=""),
            trial("absent", Outcome.WRONG, meant=""),
        ]
    )
    assert counts["plain"] == {
        "trials": 2, "cannot_be_held": 1, "lifted": 1, "wrong": 0, "missed": 0, "refused": 0,
        "no_answer": 0, "rate": 1.0,
    }  # fmt: skip
    assert counts["plain and implicit"]["rate"] == 0.5
    assert counts["all"]["trials"] == 4 and counts["all"]["refused"] == 1
    assert counts["absent"] == {
        "trials": 2, "refused": 1, "grasped": 1, "no_answer": 0, "rate": 0.5
    }  # fmt: skip


def test_the_command_writes_table_video_sheet_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film, "PERIOD", 0.7)  # pictures take most of the time,
    monkeypatch.setattr(film, "CODECS", ("mp4v",))  # and so does the good codec
    arguments = ["sim-pick", "--perfect", "--trials", "2", "--seed", "91", "--filmed", "1"]
    assert main([*arguments, "--uncluttered", "--output", str(tmp_path)]) == 0
    assert "lifted" in capsys.readouterr().out
    written = json.loads((tmp_path / "pick.json").read_text())
    assert len(written["trials"]) == 2
    assert written["summary"]["all"]["trials"] == 2
    assert written["settings"]["seed"] == 91
    video = cv2.VideoCapture(str(tmp_path / "pick.mp4"))
    pictures = []
    while (picture := video.read()[1]) is not None:
        pictures.append(picture)
    assert pictures[0].shape == (540, 960, 3)
    assert len(pictures) > film.ASKING + film.ANSWERED + film.ENDED
    assert not np.array_equal(pictures[0], pictures[-1])
    assert cv2.imread(str(tmp_path / "pick.jpg")).shape[2] == 3
    with Image.open(tmp_path / "pick.gif") as animation:
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(animation)]
    assert abs(sum(shown) / 1000 - len(pictures) / film.RATE) < 0.1 + 0.005 * len(shown)
    assert len(shown) < len(pictures) / 2


def test_a_long_run_still_has_a_sheet(tmp_path: Path) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    tiles = [Tile(trial("plain", Outcome.LIFTED), picture, picture)] * (MOST_TILES + 40)
    save_contact_sheet(tmp_path / "sheet.jpg", tiles)
    assert (tmp_path / "sheet.jpg").stat().st_size > 0
    with pytest.raises(LisaError, match="cannot write"):
        save_contact_sheet(tmp_path / "missing" / "sheet.jpg", tiles)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--trials", "0"), "--trials must be 1 or more"),
        (("--trials", "-3"), "--trials must be 1 or more"),
        (("--seed", "-1"), "--seed must be from 0 to"),
        (("--filmed", "-1"), "--filmed must not be negative"),
    ],
)
def test_arguments_that_cannot_be_meant(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim-pick", *arguments, "--output", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


class OnePicture:
    """An engine that knows one picture, and the mask of what is asked about it."""

    def __init__(self, folder: Path) -> None:
        self._image = np.load(folder / "image.npy")
        self._mask = np.load(folder / "mask.npy")

    def stream(self, image: np.ndarray, instruction: str, **_: object) -> Iterator[object]:
        """Finds nothing in any other picture, nor if it is asked for the impossible."""
        found = []
        if np.array_equal(image, self._image) and "unicorn" not in instruction:
            rows, columns = np.nonzero(self._mask)
            box = (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
            found = [Instance(self._mask, 0.9, 1.0, "it", box, int(self._mask.sum()))]
            yield MaskReady(found[0])
        yield TextDelta("It is it.")
        status = AnswerStatus.OK if found else AnswerStatus.NOT_FOUND
        counters = {name: 1 for name in ("sam_encodes", "clip_encodes", "forwards", "tokens")}
        yield Finished(Answer("It is it.", status, found, {}, counters, "end"))


@contextmanager
def robot(command: list[str], **limits: float) -> Iterator[SimRobot]:
    """A robot, and the node that it asks, in a ROS domain of their own."""
    with own_domain() as domain:
        node = Process([*command, "--ros-args", "-r", f"image:={IMAGE}"], domain)
        rclpy.init(domain_id=domain)
        try:
            robot = SimRobot(**limits)
            robot.wait_for_node()
            yield robot
            robot.destroy_node()
        finally:
            rclpy.try_shutdown()
            node.stop()


def test_over_ros_a_mask_becomes_a_lifted_thing_and_a_refusal_moves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = graspable_scene()
    view = seen(scene)
    question = about(scene, 0)
    np.save(tmp_path / "image.npy", view.rgb)
    np.save(tmp_path / "mask.npy", view.instances == question["targets"][0])
    monkeypatch.setenv(PICTURE_FOLDER, str(tmp_path))
    with robot([sys.executable, __file__]) as asking:
        absent = question | {"instruction": "the unicorn", "targets": [], "type": "absent"}
        assert run_trial(scene, view, absent, asking).outcome is Outcome.REFUSED
        lifted = run_trial(scene, view, question, asking)
    assert lifted.outcome is Outcome.LIFTED
    assert lifted.overlap == 1.0 and lifted.answer == "It is it."
    assert 0 < lifted.answer_seconds < 60


def test_a_node_that_says_nothing_is_given_up_with_a_sentence() -> None:
    scene = graspable_scene()
    view = seen(scene)
    silent = [sys.executable, str(Path(__file__).with_name("fake_engine.py"))]
    question = about(scene, 0) | {"instruction": "deaf stall:20"}
    sentence = "no answer to 'deaf stall:20' on /lisa/mask within 1.5 s"
    with robot(silent, answer_limit=1.5) as asking, pytest.raises(NoAnswer, match=sentence):
        asking.ask(view, question)


def test_an_output_that_is_no_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["sim-pick", "--perfect", "--output", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_model_that_is_missing_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lisa_ros.cli", "sim-pick", "--trials", "1"]
    command += ["--model", str(tmp_path / "nothing_here"), "--output", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2
    assert "nothing_here" in ended.stderr and "Traceback" not in ended.stderr


if __name__ == "__main__":
    from lisa_ros.node.loading import Model
    from lisa_ros.node.run import run

    engine = OnePicture(Path(os.environ[PICTURE_FOLDER]))
    sys.exit(run(sys.argv[1:], lambda _: Model(engine, "one picture", "cpu")))
