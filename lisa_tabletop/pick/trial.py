"""One trial: look, ask, grasp, lift, and judge by what hangs in the air two seconds later.

What a robot program does with an answer is here too: it locates the thing behind the mask (1),
chooses one of its grasps, from above (2), and moves the hand (3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import numpy as np

from lisa_ros.geometry import (
    Grasp,
    Intrinsics,
    cloud,
    locate,
    parallel_grasps,
    transform_points,
    without_object,
)
from lisa_tabletop.pick.disturb import Disturbance, Moved
from lisa_tabletop.pick.scene import PickScene
from lisa_tabletop.world.camera import SceneView
from lisa_tabletop.world.hand import GRIPPER
from lisa_tabletop.world.tabletop import SceneObject

LIFTED_HEIGHT = 0.10  # metres above the table
TAKEN_ALONG = 0.03  # metres: another object that rises so far has been lifted too
FALLEN = -0.05  # metres: below this an object has left the table
TRAVEL_HEIGHT, LIFT = 0.36, 0.25  # metres: of the fingertips on the way, and how far they lift
SPEED_NEAR_THINGS = 0.35  # metres per second
CLOSING_SECONDS, HOLD_SECONDS = 0.5, 2.0
CORRECTIONS = 2  # of the place above the thing: it may still have been moving at the first
STANDS_UP = 0.006  # metres above the table from which on a point is an obstacle
MARGIN = 5  # pixels around the mask that are no obstacle: a mask is never quite exact
FROM_ABOVE = 0.97  # cosine between an approach and straight down that the hand can follow
REFUSALS = ("NOT_FOUND", "TEXT_ONLY")  # statuses of an answer that says in words why it has no mask


class PickOutcome(Enum):
    """How a trial ended."""

    LIFTED = "lifted"
    WRONG = "wrong object"
    MISSED = "missed"
    PUSHED = "pushed another one off the table"
    REFUSED = "refused"
    FAILED = "no answer"


@dataclass(frozen=True)
class Target:
    """A thing in space, in the table's frame, whose z points up from the table.

    Attributes:
        grasps: for the gripper, the best first.
        size: lengths (3,) of its box, metres; None if it could not be located.
        reason: why it could not.
    """

    grasps: Sequence[Grasp] = ()
    size: np.ndarray | None = None
    reason: str = ""


@dataclass(frozen=True)
class GraspPlan:
    """What the hand should do; without `grasp` the `reason` says why it does nothing."""

    grasp: Grasp | None = None
    reason: str = ""


@dataclass(frozen=True)
class Reply:
    """What came back for an instruction.

    Attributes:
        mask: bool (H,W) of the thing to lift; None if there is none.
        answer: the model's words.
        status: OK, NOT_FOUND, ...: the name of the result's status.
        error: why there is no answer.
        seconds: from the instruction to the answer.
        target: the thing behind the mask.
    """

    mask: np.ndarray | None
    answer: str
    status: str = "OK"
    error: str = ""
    seconds: float = 0.0
    target: Target = field(default_factory=Target)


class Perception(Protocol):
    """Who is asked which thing is meant."""

    def reply_to(self, view: SceneView, question: dict) -> Reply: ...

    def following(self, view: SceneView) -> AbstractContextManager[Moved]:
        """Follow the thing of the last reply, from a view in which it has not moved yet."""


class TrueMasks:
    """Answers with the simulator's own mask of the object that is meant."""

    def reply_to(self, view: SceneView, question: dict) -> Reply:
        answer = question["answer"].replace(" [SEG]", "")
        self._target = question["targets"][0]
        return reply_with(view, view.instances == self._target, answer)

    @contextmanager
    def following(self, view: SceneView) -> Iterator[Moved]:
        """By the middle of what its own mask shows."""
        before = _middle(view, self._target)
        yield lambda view, seconds: _middle(view, self._target) - before


def _middle(view: SceneView, number: int) -> np.ndarray:
    """Mean (3,) of an object's points, metres in the table's frame."""
    points, _ = cloud(
        np.where(view.instances == number, view.depth, 0).astype(np.float32),
        Intrinsics.from_matrix(view.intrinsics, *view.depth.shape[::-1]),
    )
    return transform_points(points, view.camera_pose).mean(axis=0)


def choose(target: Target) -> GraspPlan:
    """The best grasp from above, which is the only way that the hand can go."""
    if target.size is None:
        return GraspPlan(reason=target.reason)
    for grasp in target.grasps:
        if -grasp.pose[2, 2] > FROM_ABOVE:
            return GraspPlan(grasp)
    long, short = 100 * target.size[:2]
    return GraspPlan(
        reason=f"{long:.0f} by {short:.0f} cm is too large, too flat or too close to others "
        "for the gripper"
    )


def reply_with(view: SceneView, mask: np.ndarray, answer: str) -> Reply:
    """A reply with a mask (H,W) from anywhere; the thing behind it is located without a node."""
    pose, (height, width) = view.camera_pose, view.depth.shape
    camera = Intrinsics.from_matrix(view.intrinsics, width, height)
    depth = np.round(1000 * view.depth).astype(np.uint16)  # millimetres, as depth cameras give it
    thing = locate(mask, depth, camera, up=pose[:3, :3].T @ [0.0, 0.0, 1.0])
    if thing.box is None:
        return Reply(mask, answer, target=Target(reason=thing.reason))
    thing = thing.transformed(pose)
    others = transform_points(cloud(without_object(depth, mask, MARGIN), camera)[0], pose)
    others = others[others[:, 2] > STANDS_UP]
    target = Target(parallel_grasps(thing, GRIPPER, others), thing.box.size)
    return Reply(mask, answer, target=target)


@dataclass(frozen=True)
class Trial:
    """What happened; everything that the report counts.

    Attributes:
        seed: of the scene.
        kind: of the instruction: plain, attribute, relation, use, two_hop or absent.
        meant: colour and kind of the meant object; empty if what was asked for is not there.
        can_be_held: whether the gripper can hold it; true where nothing is meant.
        outcome: what became of it.
        reason: why nothing was lifted, where that is known.
        taken: colours and kinds of everything that was lifted.
        overlap: intersection over union of mask and meant object; None if nothing is meant.
        answer_seconds: from the instruction to the answer.
        hand: of `HANDS`; empty outside of `--disturb`.
        pushed: metres that the thing was pushed while the hand was on its way.
    """

    seed: int
    kind: str
    instruction: str
    answer: str
    status: str
    meant: str
    can_be_held: bool
    outcome: PickOutcome
    reason: str
    taken: list[str]
    overlap: float | None
    answer_seconds: float
    hand: str = ""
    pushed: float = 0.0

    @property
    def right(self) -> bool:
        """Lifted what was meant; or left everything alone where nothing was."""
        return self.outcome is (PickOutcome.LIFTED if self.meant else PickOutcome.REFUSED)


def run_trial(
    scene: PickScene,
    view: SceneView,
    question: dict,
    perception: Perception,
    planned: Callable[[Reply, GraspPlan], None] = lambda *_: None,
    disturbance: Disturbance | None = None,
) -> Trial:
    """Ask, grasp, lift and judge.

    Args:
        scene: with the hand parked, as `view` shows it.
        question: about this view, with one target at most.
        planned: called before the hand starts.
        disturbance: pushes the thing behind the mask meanwhile.
    """
    meant = next((item for item in scene.table.items if item.id in question["targets"]), None)
    can_be_held = meant is None or scene.can_be_held(meant)
    reply = perception.reply_to(view, question)
    plan = choose(reply.target) if reply.mask is not None else GraspPlan()
    planned(reply, plan)
    before = scene.lowest()
    if plan.grasp is not None and disturbance is None:
        pick(scene, plan.grasp)
    elif plan.grasp is not None:
        item = max(
            scene.table.items, key=lambda one: _overlap(reply.mask, view.instances == one.id)
        )
        with disturbance.running(item, perception.following):
            pick(scene, plan.grasp, disturbance)
    outcome, taken = judge(scene, before, meant)
    if reply.mask is None:
        outcome = PickOutcome.REFUSED if reply.status in REFUSALS else PickOutcome.FAILED
    elif plan.grasp is None:  # the hand did not move
        outcome = PickOutcome.MISSED
    return Trial(
        seed=scene.seed,
        kind=question["type"],
        instruction=question["instruction"],
        answer=reply.answer,
        status=reply.status,
        meant=_name(meant) if meant else "",
        can_be_held=can_be_held,
        outcome=outcome,
        reason=reply.error or plan.reason,
        taken=[_name(item) for item in taken],
        overlap=_overlap(reply.mask, view.instances == meant.id) if meant else None,
        answer_seconds=reply.seconds,
        pushed=disturbance.pushed if disturbance is not None else 0.0,
    )


def pick(scene: PickScene, grasp: Grasp, disturbance: Disturbance | None = None) -> None:
    """Approach from above, close, lift, and hold for two seconds. `grasp`: in the table's frame.

    With a disturbance the hand goes after the thing, as far as it hears of it, before it comes
    down.
    """
    hand, place = scene.hand, grasp.pose[:3, 3]
    yaw = float(np.arctan2(-grasp.pose[0, 1], grasp.pose[1, 1]))
    hand.grip(GRIPPER.opening, 0.1)
    hand.move(np.array([hand.position[0], hand.position[1], TRAVEL_HEIGHT]), yaw)
    hand.move(np.array([place[0], place[1], TRAVEL_HEIGHT]), yaw)
    if disturbance is not None:
        first = place
        for _ in range(CORRECTIONS):
            place = first + disturbance.moved * [1, 1, 0]
            hand.move(np.array([place[0], place[1], TRAVEL_HEIGHT]), yaw)
        disturbance.look_away()
    hand.move(place, yaw, SPEED_NEAR_THINGS)
    hand.grip(0.0, CLOSING_SECONDS)
    hand.move(place + np.array([0, 0, LIFT]), yaw, SPEED_NEAR_THINGS)
    hand.wait(HOLD_SECONDS)


def judge(
    scene: PickScene, before: np.ndarray, meant: SceneObject | None
) -> tuple[PickOutcome, list[SceneObject]]:
    """What the hand did to the objects, and those that are in the air.

    Args:
        before: (N,) heights of their lowest points before it moved.
    """
    now = scene.lowest()
    items = scene.table.items
    taken = [
        item
        for item, old, new in zip(items, before, now, strict=True)
        if (new > LIFTED_HEIGHT if item is meant else new - old > TAKEN_ALONG)
    ]
    others = [item for item in taken if item is not meant]
    if others:
        return PickOutcome.WRONG, taken
    if any(new < FALLEN for item, new in zip(items, now, strict=True) if item is not meant):
        return PickOutcome.PUSHED, taken
    return (PickOutcome.LIFTED if taken else PickOutcome.MISSED), taken


def _name(item: SceneObject) -> str:
    return f"{item.color} {item.kind}"


def _overlap(mask: np.ndarray | None, truth: np.ndarray) -> float:
    """Intersection over union; 0 without a mask."""
    return float((mask & truth).sum() / (mask | truth).sum()) if mask is not None else 0.0
