"""A parallel gripper that hangs from three slides and a wrist, and its program of movements.

The hand's frame lies in the middle between its fingertips: z up, y along the way of the fingers.
"""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np

from lisa_ros.geometry import Gripper
from lisa_tabletop.world.tabletop import COLLISION_GROUP, VISUAL_GROUP

GRIPPER = Gripper(
    opening=0.11,
    finger_length=0.065,
    finger_width=0.022,
    finger_thickness=0.012,
    hand_width=0.060,
    clearance=0.004,
)
HOME = 0.6  # height of the fingertips where the hand waits while the objects come to rest
TIME_STEP = 0.002
SQUEEZE = 30.0  # newtons between the fingers, as common electric hands have
SLIDES = ("hand_x", "hand_y", "hand_z")
JOINTS = (*SLIDES, "hand_yaw", "finger")
SPEED, TURN_SPEED = 0.6, 3.0  # metres and radians per second, on average
LIGHT, DARK, RUBBER, GLOW = (
    (0.86, 0.87, 0.89, 1.0),
    (0.17, 0.18, 0.20, 1.0),
    (0.05, 0.05, 0.055, 1.0),
    (0.10, 0.55, 0.95, 1.0),
)
BOX, CYLINDER = mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_CYLINDER


def add_hand(spec: mujoco.MjSpec) -> None:
    """Put the hand into a scene, and choose the solver that holds things by friction."""
    spec.option.timestep = TIME_STEP
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    # Pyramidal cones and soft friction let a held object creep out of the fingers.
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10
    hand = spec.worldbody.add_body(name="hand", pos=[0, 0, HOME], gravcomp=1)
    for name, axis in zip(SLIDES, np.eye(3), strict=True):
        hand.add_joint(name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=axis, armature=0.5)
        _servo(spec, name, stiffness=6000.0, force=400.0)
    hand.add_joint(name="hand_yaw", type=mujoco.mjtJoint.mjJNT_HINGE, axis=[0, 0, 1], armature=0.02)
    _servo(spec, "hand_yaw", stiffness=100.0, force=40.0)
    _draw_hand(hand)
    for side in (1, -1):
        _add_finger(hand, side)
    _servo(spec, "finger", stiffness=2500.0, force=SQUEEZE)
    # One motor drives both fingers, so that they meet in the middle whatever lies between them.
    spec.add_equality(
        name="fingers", type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT,
        name1="other_finger", name2="finger", data=[0, 1, *[0] * 10], solref=[0.005, 1],
    )  # fmt: skip
    spec.add_exclude(bodyname1="finger", bodyname2="other_finger")


def _servo(spec: mujoco.MjSpec, joint: str, stiffness: float, force: float) -> None:
    motor = spec.add_actuator(
        name=joint, target=joint, trntype=mujoco.mjtTrn.mjTRN_JOINT,
        forcelimited=1, forcerange=[-force, force],
    )  # fmt: skip
    motor.set_to_position(kp=stiffness, dampratio=1.0)


def _draw_hand(hand: mujoco.MjsBody) -> None:
    """Rail, housing, ring and column, from the lowest to the highest; only the rail is solid."""
    palm = GRIPPER.finger_length + 0.005
    hand.add_geom(
        name="palm", type=BOX, size=[GRIPPER.hand_width / 2, 0.070, 0.010],
        pos=[0, 0, palm + 0.010], rgba=DARK, group=VISUAL_GROUP, mass=0.4, material="shine_4",
    )  # fmt: skip
    stack = (  # radius, height, colour, shine
        (0.034, 0.040, LIGHT, 5),
        (0.0345, 0.006, GLOW, 8),
        (0.034, 0.014, LIGHT, 5),
        (0.024, 0.030, DARK, 3),
        (0.018, 0.900, LIGHT, 6),
    )
    low = palm + 0.020
    for radius, height, color, shine in stack:
        hand.add_geom(
            type=CYLINDER, size=[radius, height / 2, 0], pos=[0, 0, low + height / 2], rgba=color,
            group=VISUAL_GROUP, contype=0, conaffinity=0, mass=0.1, material=f"shine_{shine}",
        )  # fmt: skip
        low += height


def _add_finger(hand: mujoco.MjsBody, side: int) -> None:
    """A finger with its rubber pad on the inside; `side` is the sign of its y."""
    name = "finger" if side > 0 else "other_finger"
    thick, width = GRIPPER.finger_thickness, GRIPPER.finger_width
    finger = hand.add_body(name=name, pos=[0, side * thick / 2, 0], gravcomp=1)
    finger.add_joint(
        name=name, type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, side, 0], limited=1,
        range=[0, GRIPPER.opening / 2], armature=0.1,
    )  # fmt: skip
    length = GRIPPER.finger_length + 0.005
    finger.add_geom(
        type=BOX, size=[width / 2, thick / 2, length / 2], pos=[0, 0, length / 2],
        rgba=[0, 0, 0, 0], group=COLLISION_GROUP, mass=0.05,
        condim=6, priority=1, friction=[1.3, 0.03, 0.003], solref=[0.006, 1],
    )  # fmt: skip
    look = {"type": BOX, "group": VISUAL_GROUP, "contype": 0, "conaffinity": 0, "mass": 0}
    finger.add_geom(
        size=[width / 2 - 0.001, thick / 2 - 0.0015, length / 2],
        pos=[0, side * 0.0015, length / 2],
        rgba=LIGHT, material="shine_5", **look,
    )  # fmt: skip
    finger.add_geom(
        size=[width / 2, 0.002, length * 0.36], pos=[0, -side * (thick / 2 - 0.002), length * 0.36],
        rgba=RUBBER, material="shine_1", **look,
    )  # fmt: skip
    finger.add_geom(
        size=[width / 2 + 0.004, thick / 2 + 0.003, 0.007], pos=[0, 0, length - 0.007],
        rgba=DARK, material="shine_4", **look,
    )  # fmt: skip


class Hand:
    """Moves the hand of a compiled scene.

    Args:
        model, data: of the scene, which holds a hand.
        watch: called with the scene's time after every step of the simulation.
    """

    def __init__(
        self, model: mujoco.MjModel, data: mujoco.MjData, watch: Callable[[float], None]
    ) -> None:
        self._model, self._data, self._watch = model, data, watch
        self._motors = [model.actuator(name).id for name in JOINTS]

    @property
    def position(self) -> np.ndarray:
        """Where the middle between the fingertips is (3,), metres in the table frame."""
        return self._data.body("hand").xpos.copy()

    def place(self, position: np.ndarray, yaw: float) -> None:
        """Put it somewhere at once, open; nothing else in the scene moves."""
        goal = [*(position - [0, 0, HOME]), yaw, GRIPPER.opening / 2]
        for name, value in zip((*JOINTS, "other_finger"), [*goal, goal[-1]], strict=True):
            self._data.joint(name).qpos = value
            self._data.joint(name).qvel = 0
        self._data.ctrl[self._motors] = goal
        mujoco.mj_forward(self._model, self._data)

    def move(self, position: np.ndarray, yaw: float, speed: float = SPEED) -> None:
        """Glide to a pose along a straight line; turns the shorter way, as fingers are alike."""
        start = self._data.ctrl[self._motors].copy()
        turn = (yaw - start[3] + np.pi / 2) % np.pi - np.pi / 2
        goal = np.array([*(position - [0, 0, HOME]), start[3] + turn, start[4]])
        way = float(np.linalg.norm(goal[:3] - start[:3]))
        self._glide(start, goal, max(way / speed, abs(turn) / TURN_SPEED, 0.2))

    def grip(self, opening: float, seconds: float) -> None:
        """Bring the fingers to a distance, or as near as what is between them lets them come."""
        start = self._data.ctrl[self._motors].copy()
        goal = start.copy()
        goal[4] = opening / 2
        self._glide(start, goal, seconds)

    def wait(self, seconds: float) -> None:
        """Hold still."""
        for _ in range(round(seconds / self._model.opt.timestep)):
            mujoco.mj_step(self._model, self._data)
            self._watch(self._data.time)

    def _glide(self, start: np.ndarray, goal: np.ndarray, seconds: float) -> None:
        """Set points from start to goal with smooth acceleration."""
        steps = max(1, round(seconds / self._model.opt.timestep))
        for part in np.linspace(0, 1, steps + 1)[1:]:
            self._data.ctrl[self._motors] = start + minimum_jerk(part) * (goal - start)
            mujoco.mj_step(self._model, self._data)
            self._watch(self._data.time)


def minimum_jerk(part: float) -> float:
    """The share of a way that is done when `part` of its time is over, both from 0 to 1."""
    return part**3 * (10 - 15 * part + 6 * part**2)
