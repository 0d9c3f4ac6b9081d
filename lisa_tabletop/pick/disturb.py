"""A push while the hand is on its way, and how the hand hears of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np

from lisa_tabletop.pick.scene import PickScene
from lisa_tabletop.world.camera import SceneView
from lisa_tabletop.world.tabletop import SceneObject

PUSH, PUSH_SECONDS = 0.08, 0.6  # metres, and how long it takes
FRAME_PERIOD = 0.1  # simulated seconds between two images of the camera meanwhile
DIRECTIONS, STEPS = 16, 4  # that are tried, and places on the way that must be free
FREE = 0.02  # metres to everything else, or the fingers would have no room afterwards
REACH = 0.27  # metres from the middle of the table, so that the camera still sees the thing
HANDS = ("undisturbed", "following", "not following")
"""what each scene is tried with, one after the other"""

Moved = Callable[[SceneView, float], np.ndarray]
"""shows an image, so many simulated seconds after the first; how far the thing has moved since the
first: (3,), metres, table's frame"""


class Disturbance:
    """Pushes the thing that the hand goes for, and shows the camera's images to who follows it.

    Attributes:
        moved: (3,), metres in the table's frame: how far the thing has moved as far as the hand
            knows.
        pushed: metres that it was really pushed; 0 where there was no room for it.
    """

    def __init__(self, scene: PickScene, look: Callable[[], SceneView], follows: bool) -> None:
        """`look`: takes an image; `follows`: whether the hand hears of what it shows."""
        self._scene, self._look, self._follows = scene, look, follows
        self.moved, self.pushed = np.zeros(3), 0.0
        self._tell: Moved | None = None

    @contextmanager
    def running(
        self, item: SceneObject, following: Callable[[SceneView], AbstractContextManager[Moved]]
    ) -> Iterator[Disturbance]:
        """The push begins with the next step of the simulation.

        `following`: begins to follow the thing that was answered, with an image in which it has not
        moved.
        """
        data, model = self._scene.table.data, self._scene.table.model
        velocity = free_way(self._scene, item) * PUSH / PUSH_SECONDS
        start, place = data.time, data.xpos[item.body].copy()
        address, shown = model.body_dofadr[item.body], start

        def step(time: float) -> None:
            nonlocal shown
            if time - start < PUSH_SECONDS and velocity.any():
                # as a finger would that pushes in the middle: straight on, without turning
                data.qvel[address : address + 2] = velocity
                data.qvel[address + 3 : address + 6] = 0.0
                self.pushed = float(np.linalg.norm((data.xpos[item.body] - place)[:2]))
            if self._tell is not None and time - shown >= FRAME_PERIOD:
                shown = time
                self.moved = self._tell(self._look(), time - start)

        begun = following(self._look()) if self._follows else nullcontext(None)
        with begun as self._tell:
            self._scene.watchers.append(step)
            try:
                yield self
            finally:
                self._scene.watchers.remove(step)

    def look_away(self) -> None:
        """From now on the hand hides the thing, and goes where it was last."""
        self._tell = None


def free_way(scene: PickScene, item: SceneObject) -> np.ndarray:
    """The direction (2,) of a push that touches nothing; zeros where there is none.

    Of several the one across the thing, which takes a long one farthest from where it was. What
    lies on another thing, or carries one, is left alone.
    """
    items = scene.table.items
    if item.on or any(other.on == item.id for other in items):
        return np.zeros(2)
    own = scene.table.points(item)[:, :2]
    others = [scene.table.points(other)[:, :2] for other in items if other is not item]
    now = [_gap(own, other) for other in others]
    across = np.linalg.eigh(np.cov(own.T))[1][:, 0]  # (2,), along which it is narrowest
    best, most = np.zeros(2), -1.0
    for direction in _compass(DIRECTIONS):
        way = [own + share * PUSH * direction for share in np.linspace(0, 1, STEPS)[1:]]
        gaps = np.array([[_gap(place, other) for other in others] for place in way])
        # what is near already must not come nearer, and afterwards there is room for the fingers
        is_free = (gaps >= np.minimum(now, FREE)).all() and (gaps[-1] >= FREE).all()
        is_seen = np.linalg.norm(way[-1].mean(axis=0)) <= REACH
        if is_free and is_seen and abs(direction @ across) > most:
            best, most = direction, abs(direction @ across)
    return best


def _compass(count: int) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    """Metres between the hulls of two sets of points (N, 2), as far as some direction of the
    compass shows; negative where they overlap."""
    along = _compass(2 * DIRECTIONS).T
    return float(((other @ along).min(axis=0) - (one @ along).max(axis=0)).max())
