"""A random table with a gripper over it, a question about it, and the truth about its objects."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import mujoco
import numpy as np

from lisa_tabletop.language.instructions import compose
from lisa_tabletop.world.camera import SceneView, TabletopCamera, aim
from lisa_tabletop.world.hand import GRIPPER, Hand, add_hand
from lisa_tabletop.world.tabletop import COLLISION_GROUP, TEST_SEEDS, SceneObject, Tabletop

FIRST_SEED, SEEDS_PER_RUN, RUNS = TEST_SEEDS[500_000], 5_000, 100
KINDS_OF_QUESTION = {
    "plain": 0.25, "attribute": 0.12, "relation": 0.19, "use": 0.25, "two_hop": 0.07, "absent": 0.12
}  # fmt: skip
FEW, MANY = (2, 5), (3, 8)  # objects on an uncluttered table and on any other
UNCLUTTERED_GAP = 0.04  # metres between all objects: room for a finger beside each
PARK_DISTANCE, PARK_HEIGHT = 0.88, 0.28
FILM_DISTANCE, FILM_HEIGHT = 0.70, 0.68
FILM_AZIMUTH, FILM_ANGLE = 0.9, 48  # radians from the robot's camera; field of view in degrees
PROBES = 36  # directions in which the width of an object is taken


class PickScene:
    """A settled table, its camera, and the hand, parked behind the camera where it is not seen.

    Args:
        seed: decides everything.
        uncluttered: a few objects, which may still stand close together: see `gap`.
        watch: called with the scene's time after every step that the hand moves.
    """

    def __init__(
        self, seed: int, uncluttered: bool, watch: Callable[[float], None] = lambda _: None
    ) -> None:
        self.seed = seed
        self.table = Tabletop(seed, count=FEW if uncluttered else MANY, extend=_furnish)
        self.watchers = [watch]
        self.hand = Hand(self.table.model, self.table.data, self._step)

    def _step(self, time: float) -> None:
        for watch in tuple(self.watchers):
            watch(time)

    def open_camera(self) -> TabletopCamera:
        """Place the camera; the hand and the camera that films are placed to suit it."""
        camera = TabletopCamera(self.table)
        camera.move(np.random.default_rng((self.seed, 1)))
        x, y, _ = camera.pose()[:3, 3]
        azimuth = float(np.arctan2(y, x))
        self.hand.place(_around(azimuth, PARK_DISTANCE, PARK_HEIGHT), azimuth)
        eye = _around(azimuth + FILM_AZIMUTH, FILM_DISTANCE, FILM_HEIGHT)
        aim(self.table.model, "film", eye, target=np.array([0.0, 0.0, 0.17]))
        self.table.model.camera("film").fovy[:] = FILM_ANGLE
        mujoco.mj_forward(self.table.model, self.table.data)
        return camera

    def lowest(self) -> np.ndarray:
        """Height (N,) of the lowest point of each object above the table, metres."""
        return np.array([self.table.points(item)[:, 2].min() for item in self.table.items])

    def gap(self) -> float:
        """The smallest distance between two objects, metres; infinite for a single one."""
        model, data = self.table.model, self.table.data
        return min(
            (
                mujoco.mj_geomDistance(model, data, one, other, 1.0, None)
                for first, second in combinations(self.table.items, 2)
                for one in self._colliders(first)
                for other in self._colliders(second)
            ),
            default=np.inf,
        )

    def can_be_held(self, item: SceneObject) -> bool:
        """Whether the object, at the height of its centre of mass, fits between the fingers.

        Rays run in from both sides, at the middle and at the edges of the fingers; the object can
        be held if there is a direction in which all of them find it narrower than the opening.
        """
        room = GRIPPER.opening - 2 * GRIPPER.clearance
        center = self.table.data.xipos[item.body]
        for angle in np.linspace(0, np.pi, PROBES, endpoint=False):
            closing = np.array([np.cos(angle), np.sin(angle), 0.0])
            across = np.array([-closing[1], closing[0], 0.0])
            places = [center + step * GRIPPER.finger_width / 2 * across for step in (-1, 0, 1)]
            if all(self._width(item, place, closing) <= room for place in places):
                return True
        return False

    def _width(self, item: SceneObject, place: np.ndarray, closing: np.ndarray) -> float:
        """Of the object along a line, metres; 0 where the line misses it."""
        far = 1.0
        reach = [self._ray(item, place - far * closing, closing)]
        reach.append(self._ray(item, place + far * closing, -closing))
        return 0.0 if np.inf in reach else 2 * far - sum(reach)

    def _ray(self, item: SceneObject, start: np.ndarray, direction: np.ndarray) -> float:
        """How far it is to the object; infinite if the ray misses it."""
        model, data = self.table.model, self.table.data
        hits = [
            mujoco.mju_rayGeom(
                data.geom_xpos[geom], data.geom_xmat[geom], model.geom_size[geom], start, direction,
                model.geom_type[geom],
            )
            for geom in self._colliders(item)
        ]  # fmt: skip
        return min((hit for hit in hits if hit >= 0), default=np.inf)

    def _colliders(self, item: SceneObject) -> list[int]:
        model = self.table.model
        first, count = model.body_geomadr[item.body], model.body_geomnum[item.body]
        geoms = range(first, first + count)
        return [geom for geom in geoms if model.geom_group[geom] == COLLISION_GROUP]


def _around(azimuth: float, distance: float, height: float) -> np.ndarray:
    """A place (3,) around the middle of the table."""
    return np.array([distance * np.cos(azimuth), distance * np.sin(azimuth), height])


def _furnish(spec: mujoco.MjSpec) -> None:
    add_hand(spec)
    spec.worldbody.add_camera(name="film")


def question_about(view: SceneView, seed: int, absent: bool, split: str = "test") -> dict | None:
    """One instruction that means one thing; None if nothing can be asked about the scene.

    Args:
        absent: whether things that are not there may be asked for.
        split: "train" or "test" sentences.
    """
    types = {name: share for name, share in KINDS_OF_QUESTION.items() if absent or name != "absent"}
    random = np.random.default_rng((seed, 2))
    asked = compose(view.record, random, 4, split, types=types, forms={"name": 1.0})
    return next((question for question in asked if len(question["targets"]) <= 1), None)


def scene_seeds(run: int) -> range:
    """Seeds of the scenes of one run; two runs share none."""
    first = FIRST_SEED + run * SEEDS_PER_RUN
    return range(first, first + SEEDS_PER_RUN)
