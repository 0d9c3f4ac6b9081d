"""A table in motion: ten seconds before a camera, one thing that is meant, the words that mean it.

Everything follows from the seed and the kind of clip. Poses are set frame by frame (no physics):
things slide on the table or are carried by the hand, with smooth acceleration. A clip in which two
things would pass through each other, or in which the thing that is meant is not seen when it must
be, is drawn again from another table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.random import Generator, default_rng

from lisa_ros.errors import LisaError
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.world.camera import TabletopCamera, aim
from lisa_tabletop.world.camera_model import simulate
from lisa_tabletop.world.exact import cos, norm, sin
from lisa_tabletop.world.hand import Hand, add_hand, minimum_jerk
from lisa_tabletop.world.tabletop import SceneObject, Tabletop

RATE, SECONDS = 15, 10.0  # frames per second, length of a clip
CLIP_KINDS = {
    "camera": "the camera moves around things that stand still",
    "pushed": "the hand pushes it, twice",
    "hidden": "the hand carries another thing past, which hides it for a second",
    "hand": "the hand itself comes between and hides it for a second",
    "lookalike": "it slides around another of its kind and colour, close beside it",
    "out": "the camera turns away until it is out of the image, and back",
    "swap": "it changes places with another of its kind",
}
"""What happens in each kind of clip; a set takes them in turn."""
TWINS = ("lookalike", "swap")  # kinds of clip that take two things of one kind
GONE = ("hidden", "hand", "out")  # kinds in which it is not seen for a second
HAND = 254  # the hand's number in the masks
QUESTIONS = {"plain": 0.3, "attribute": 0.15, "relation": 0.25, "use": 0.3}
DRAWN = 12  # questions about the first frame, of which one must mean the thing
REGION = (0.30, 0.25)  # half sizes in metres of where things slide
PLAN = (160, 120)  # width and height of the images in which a plan is tried
SMALLEST, LEAST = 60, 0.35  # pixels of such an image; share of the first frame's
DEEP = 0.004  # metres that two things may overlap before one sees it
TRIED = 40  # frames of a clip in which a plan is tried
TRIES, STRIDE = 50, 100  # tables tried for a clip, seeds from one to the next


class Unfit(Exception):
    """This table gives no clip of the kind asked for."""


@dataclass(frozen=True)
class Script:
    """Where everything is in every frame (T of them): metres and radians, in the table's frame.

    Attributes:
        eye, look: (T,3) where the camera is, and what is in the middle of its image.
        moved: for the id of each thing that moves (T,4): x, y, z and turn from where it rested.
        hand: (T,4): x, y, z of the fingertips, and yaw.
    """

    eye: np.ndarray
    look: np.ndarray
    moved: dict[int, np.ndarray]
    hand: np.ndarray


class Clip:
    """One clip; `frames` renders it.

    Args:
        seed: of the first table that is tried; the next ones are STRIDE apart.
        kind: one of CLIP_KINDS.
        seconds: its length; what happens is stretched or squeezed to it.

    Attributes:
        seed: of the table that was taken.
        target: the thing that the question means.
        question: as `compose` makes it: instruction, answer, type ...
        numbers: the value of each thing in the masks, by the id that the scene gives it: the target
            is 1, the one of its kind 2 in the kinds of clip that have one, then the others.
    """

    def __init__(self, seed: int, kind: str, seconds: float = SECONDS) -> None:
        self.kind, self.length = kind, round(RATE * seconds)
        for self.seed in range(seed, seed + TRIES * STRIDE, STRIDE):
            try:
                self._compose()
                return
            except Unfit:
                continue
        raise LisaError(f"no table from seed {seed} on gives a clip '{kind}': take another seed")

    def _compose(self) -> None:
        self.scene = Tabletop(self.seed, count=(5, 8), extend=add_hand)
        self.model, self.data = self.scene.model, self.scene.data
        self._hand = Hand(self.model, self.data, lambda _: None)
        self._rest = self.data.qpos.copy()
        self._times = np.arange(self.length) / self.length
        self._random = default_rng((self.seed, 5))
        # 1. who takes part, and what happens; what is in the way is taken off the table
        self.target, self.partner = self._cast()
        self.script = self._direct()
        self._clear_the_way()
        first = [self.target] if self.partner is None else [self.target, self.partner]
        others = [item for item in self.scene.items if item not in first]
        self.numbers = {item.id: n for n, item in enumerate([*first, *others], start=1)}
        camera = TabletopCamera(self.scene, *PLAN)
        try:
            # 2. lens and light; a second shadow would cost a fifth of the time of a frame
            camera.move(default_rng((self.seed, 1)))
            self.model.light_castshadow[1:] = False
            self._check(camera)
            # 3. the words: true and clear in the first frame
            self._set(0)
            record = camera.look().record
            drawn = compose(
                record, self._random, DRAWN, types=QUESTIONS, forms={"name": 1.0}, whole_frame=True
            )
            meant = [question for question in drawn if question["targets"] == [self.target.id]]
            if not meant:
                raise Unfit("nobody would ask for it")
            self.question = meant[0]
        finally:
            camera.close()

    def frames(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Every frame as a camera delivers it, uint8 (H,W,3), and the numbers of things (H,W)."""
        camera = TabletopCamera(self.scene)
        try:
            for index in range(self.length):
                self._set(index)
                clean, geoms = camera.image("camera"), camera.geoms()
                # the same camera at the same setting throughout, new noise in each frame
                settings, grain = default_rng((self.seed, 3)), default_rng((self.seed, 4, index))
                yield simulate(clean, settings, grain), self._numbered(geoms)
        finally:
            camera.close()

    def _numbered(self, geoms: np.ndarray) -> np.ndarray:
        """The numbers (H,W) uint8 of what the geoms (H,W) belong to."""
        table = np.zeros(self.model.ngeom + 1, dtype=np.uint8)  # -1, nothing, is the last entry
        for item in self.scene.items:
            table[item.geoms] = self.numbers[item.id]
        for name in ("hand", "finger", "other_finger"):
            table[:-1][self.model.geom_bodyid == self.model.body(name).id] = HAND
        return table[geoms]

    def _set(self, index: int) -> None:
        """Put camera, hand and things where they are in a frame."""
        script, data = self.script, self.data
        data.qpos[:] = self._rest
        for item in self.scene.items:
            if item.id in script.moved:
                x, y, z, turn = script.moved[item.id][index]
                start = self._joint(item)
                data.qpos[start : start + 3] += [x, y, z]
                spin, turned = np.array([cos(turn / 2), 0, 0, sin(turn / 2)]), np.zeros(4)
                mujoco.mju_mulQuat(turned, spin, self._rest[start + 3 : start + 7])
                data.qpos[start + 3 : start + 7] = turned
        aim(self.model, "camera", script.eye[index], script.look[index])
        self._hand.place(script.hand[index, :3], script.hand[index, 3])

    def _joint(self, item: SceneObject) -> int:
        """Where an item's pose begins among the scene's coordinates."""
        return int(self.model.jnt_qposadr[self.model.body_jntadr[item.body]])

    # who takes part

    def _cast(self) -> tuple[SceneObject, SceneObject | None]:
        """The thing that is meant, and the other one that the kind of clip takes."""
        items = [self.scene.items[i] for i in self._random.permutation(len(self.scene.items))]
        if self.kind in TWINS:
            for index, item in enumerate(items):
                for other in items[index + 1 :]:
                    if item.kind == other.kind:
                        if self.kind == "lookalike" or self._random.random() < 0.5:
                            self._dress_alike(other, item)
                        return item, other
            raise Unfit("no two of a kind")
        if self.kind == "hidden":
            # smaller things are hidden, the largest is carried
            items.sort(key=self._radius)
            return items[int(self._random.integers(len(items) - 1))], items[-1]
        return items[0], None

    def _dress_alike(self, item: SceneObject, other: SceneObject) -> None:
        item.color = other.color
        rgba = self.model.geom_rgba
        rgba[item.main_geoms, :3] = rgba[other.main_geoms[0], :3]

    def _radius(self, item: SceneObject) -> float:
        """Of the circle on the table around an item's origin that holds it, metres."""
        flat = self.scene.points(item)[:, :2] - self._place(item)[:2]
        return float(np.sqrt((flat**2).sum(1)).max())

    def _place(self, item: SceneObject) -> np.ndarray:
        start = self._joint(item)
        return self._rest[start : start + 3]

    # what happens

    def _direct(self) -> Script:
        """The script of the kind of clip, or Unfit."""
        random, times = self._random, self._times
        # a camera in somebody's hand: never quite still
        azimuth = random.uniform(-np.pi, np.pi) + self._sway(0.012)
        elevation = np.deg2rad(random.uniform(32, 62)) + self._sway(0.008)
        distance = random.uniform(0.56, 0.76) + self._sway(0.004)
        middle = np.array([*random.uniform(-0.04, 0.04, 2), 0.03])
        look = middle + np.stack([self._sway(0.004) for _ in range(3)], axis=1)  # (T, 3)
        if self.kind == "camera":
            azimuth = azimuth + random.choice([-1, 1]) * 0.55 * sin(2 * np.pi * times)
            elevation = elevation + 0.14 * sin(4 * np.pi * times)
            distance = distance * (1 - 0.2 * glide(times, [(0.2, 0), (0.5, 1), (0.8, 0)]))
        flat = cos(elevation)
        ray = np.stack([flat * cos(azimuth), flat * sin(azimuth), sin(elevation)], axis=1)
        eye = look + distance[:, None] * ray
        back = ray[0, :2] / norm(ray[0, :2])
        right = np.array([-back[1], back[0], 0.0])
        park = np.array([*(0.95 * back), 0.28, float(azimuth[0])])  # behind the camera
        hand, moved = np.tile(park, (self.length, 1)), {}
        place, side = self._place(self.target), random.choice([-1.0, 1.0])
        if self.kind == "out":
            turn = glide(times, [(0.32, 0), (0.44, 1), (0.54, 1), (0.66, 0)])
            look = look + turn[:, None] * side * 0.66 * right
        elif self.kind == "pushed":
            moved[self.target.id], hand = self._push(random)
        elif self.kind in ("hidden", "hand"):
            center = self.scene.points(self.target).mean(0)
            # the nearer to the camera, the larger what comes between
            share = random.uniform(0.35, 0.6)
            way = 0.75 * share * float(distance[0]) + 0.16
            crossing = glide(times, [(0.22, -1), (0.42, 0), (0.56, 0), (0.76, 1)])
            path = center + share * (eye[0] - center) + crossing[:, None] * side * way * right
            yaw = np.full((self.length, 1), np.arctan2(right[1], right[0]) - np.pi / 2)
            if self.kind == "hidden":
                points = self.scene.points(self.partner)
                offset = path - (points.max(0) + points.min(0)) / 2
                moved[self.partner.id] = np.hstack([offset, np.zeros((self.length, 1))])
                path[:, 2] += np.ptp(points[:, 2]) / 2 - 0.012  # it holds it at the top
            else:
                path[:, 2] -= 0.085  # its palm is the broadest of it
            hand = np.hstack([path, yaw])
        elif self.kind in TWINS:
            moved = self._around(place, random, side)
        return Script(eye, look, moved, hand)

    def _sway(self, size: float) -> np.ndarray:
        """A slow unrest (T,) of about that size."""
        waves = [(self._random.uniform(0.1, 0.5), self._random.uniform(0, 1)) for _ in range(2)]
        seconds = self._times * SECONDS
        return size * sum(sin(2 * np.pi * (rate * seconds + phase)) for rate, phase in waves)

    def _push(self, random: Generator) -> tuple[np.ndarray, np.ndarray]:
        """Of the target (T,4) and the hand (T,4): two pushes in different directions."""
        points = self.scene.points(self.target)
        height = max(0.012, 0.4 * float(points[:, 2].max()))
        place = self._place(self.target).copy()
        inward = float(np.arctan2(-place[1], -place[0]))
        angle, spin = inward + random.uniform(-1, 1), 0.0
        slide, turn = [(0.0, np.zeros(3))], [(0.0, 0.0)]
        hand: list[tuple[float, np.ndarray]] = []
        for start in (0.16, 0.56):
            toward = np.array([cos(angle), sin(angle), 0.0])
            reach = float(((points[:, :2] - self._place(self.target)[:2]) @ -toward[:2]).max())
            behind = place - (reach + 0.016) * toward
            behind[2] = height
            step = random.uniform(0.09, 0.15) * toward
            high = np.array([0, 0, 0.16])
            for time, point in (
                (start - 0.14, behind - 0.2 * toward + high),
                (start - 0.06, behind - 0.03 * toward),
                (start, behind), (start + 0.2, behind + step),
                (start + 0.24, behind + step - 0.05 * toward),
                (start + 0.3, behind + step - 0.2 * toward + high),
            ):  # fmt: skip
                hand.append((time, np.array([*point, angle])))
            slide += [(start, slide[-1][1]), (start + 0.2, slide[-1][1] + step)]
            spin_to = spin + random.uniform(-0.2, 0.2)
            turn += [(start, spin), (start + 0.2, spin_to)]
            place, spin = place + step, spin_to
            angle += random.uniform(1.2, 2.4) * random.choice([-1, 1])
        times = self._times
        way = np.hstack([glide(times, slide), glide(times, turn)[:, None]])
        if (np.abs(self._place(self.target)[:2] + way[:, :2]) > REGION).any():
            raise Unfit("it would leave the table's middle")
        return way, glide(times, hand)

    def _around(self, place: np.ndarray, random: Generator, side: float) -> dict[int, np.ndarray]:
        """Of the two of a kind (T,4): one goes around the other, or both around their middle."""
        apart = self._radius(self.target) + self._radius(self.partner) + random.uniform(0.012, 0.03)
        if apart > 0.24:
            raise Unfit("they are too large to go around each other")
        angle = random.uniform(-np.pi, np.pi)
        full = np.pi if self.kind == "swap" else random.uniform(2.0, 3.4)
        turned = angle + side * full * glide(self._times, [(0.15, 0.0), (0.8, 1.0)])
        ring = np.stack([cos(turned), sin(turned), 0 * turned], axis=1)  # (T, 3)
        middle = np.array([*random.uniform(-0.06, 0.06, 2), 0.0])
        inner = 0.5 * apart if self.kind == "swap" else 0.0
        target, partner = middle + (apart - inner) * ring, middle - inner * ring
        moved = {}
        for item, path in ((self.target, target), (self.partner, partner)):
            if (np.abs(path[:, :2]) > REGION).any():
                raise Unfit("it would leave the table's middle")
            offset = path - self._place(item) * [1, 1, 0]
            moved[item.id] = np.hstack([offset, np.zeros((self.length, 1))])
        return moved

    # whether it is what it says

    def _clear_the_way(self) -> None:
        """Take away what others would move through; Unfit if those who take part touch."""
        script, model, data = self.script, self.model, self.data
        if self.kind not in ("camera", "out"):
            bodies = {item.body: item for item in self.scene.items}
            hand = {model.body(name).id for name in ("hand", "finger", "other_finger")}
            actors = [item for item in (self.target, self.partner) if item is not None]
            held = self.partner if self.kind == "hidden" else self.target
            for index in range(0, self.length, max(1, self.length // TRIED)):
                self._set(index)
                for contact in data.contact[: data.ncon]:
                    pair = [int(model.geom_bodyid[geom]) for geom in contact.geom]
                    items = [bodies[body] for body in pair if body in bodies]
                    touched = len(items) == 2 or (hand & {*pair} and items and items != [held])
                    if contact.dist > -DEEP or not touched:
                        continue
                    extras = [item for item in items if item not in actors]
                    if not extras:
                        raise Unfit("one would pass through the other")
                    if any(item.id in script.moved for item in items) or hand & {*pair}:
                        self._take_away(extras[0])
                        del bodies[extras[0].body]
                        self._set(index)
                        break
        if len(self.scene.items) < 3:
            raise Unfit("too little would be left on the table")

    def _take_away(self, item: SceneObject) -> None:
        self.scene.items.remove(item)
        self.model.geom_rgba[item.geoms, 3] = 0
        self._rest[self._joint(item) + 2] = -0.5 - item.id  # below the table, clear of the others

    def _check(self, camera: TabletopCamera) -> None:
        """Unfit if the target is seen too little, or where it should not be."""
        for index in range(0, self.length, max(1, self.length // TRIED)):
            part = index / self.length
            self._set(index)
            numbers = self._numbered(camera.geoms())
            seen = numbers == 1
            if index == 0:
                area = int(seen.sum())
                if seen[[0, -1]].any() or seen[:, [0, -1]].any():
                    raise Unfit("it is cut off")
                if not SMALLEST <= area <= seen.size / 8:
                    raise Unfit("it is too small, or too large")
            share = seen.sum() / area
            if self.kind not in GONE:
                if share < LEAST:
                    raise Unfit("something hides it")
            elif 0.45 < part < 0.53:
                if share > 0:
                    raise Unfit("it is seen where it should be hidden")
            elif (part < 0.2 or part > 0.8) and share < 2 * LEAST:
                raise Unfit("something hides it")


def glide(times: np.ndarray, keys: Sequence[tuple[float, float | np.ndarray]]) -> np.ndarray:
    """Values (T,) or (T,n) from one key (time, value) to the next with smooth acceleration."""
    values = np.array([value for _, value in keys], dtype=float)
    result = np.empty((len(times), *values.shape[1:]))
    for row, time in enumerate(times):
        after = next((i for i, (moment, _) in enumerate(keys) if moment > time), len(keys))
        if after in (0, len(keys)):
            result[row] = values[min(after, len(keys) - 1)]
            continue
        before = after - 1
        part = (time - keys[before][0]) / (keys[after][0] - keys[before][0])
        result[row] = values[before] + minimum_jerk(part) * (values[after] - values[before])
    return result
