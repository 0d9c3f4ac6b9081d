"""A settled random tabletop: objects of known kinds, dropped, at rest, ready to be looked at.

Everything follows from the seed: which objects (1), where they are dropped, side by side, in a
crowd or one into another (2), the model that MuJoCo simulates (3). camera.py takes images of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from lisa_tabletop.world.exact import product
from lisa_tabletop.world.kinds import KINDS, build, palette
from lisa_tabletop.world.parts import COLORS, TINTS, Mesh, Part, Shape, Vector
from lisa_tabletop.world.textures import table_texture

# Seeds of what is learnt from, of what neither trains nor tests, and of what is tested on: first
# by the fixed test set, those from 8,400,000 by the fixed clips, from 8,500,000 by the picks.
# Those from 9,000,000 on are shown, by the demonstration and `lisa-ros sim`.
TRAIN_SEEDS = range(0, 5_000_000)
VALIDATION_SEEDS = range(7_000_000, 8_000_000)
TEST_SEEDS = range(8_000_000, 9_000_000)
TABLE = (0.62, 0.47, 0.02)  # half sizes of the table top in metres; its upper face is z = 0
PRIMITIVES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
}
VISUAL_GROUP, COLLISION_GROUP = 1, 3
AREA = (0.25, 0.20)  # half sizes in metres of the region in which objects are dropped
SETTLE_SECONDS, MOST_SECONDS, TIME_STEP = 0.6, 0.9, 0.004
RESTING = 0.04  # metres per second; what moves faster gets up to MOST_SECONDS to come to rest
USUAL, CROWD = (3, 8), (7, 10)  # fewest and most objects
CROWDED, STACKED = 0.25, 0.30  # shares of scenes that are a crowd, that put a thing into another
CROWD_AREA = 0.6  # of the side lengths of `AREA`
CARRIERS = ("bowl", "plate", "book", "box", "tray", "pot")
LOADS = (
    "mug", "can", "spoon", "apple", "banana", "carrot", "scissors", "pencil", "tape", "sponge",
    "candle", "phone", "ball", "fork", "car", "clock", "pear", "bread", "stapler",
)  # fmt: skip
CARRIED = 0.55  # share of its weight that an object puts on what it is said to lie on
BREADTH = 0.7  # how broad that is at the least, compared with the object
DropPose = tuple[np.ndarray, np.ndarray]  # origin (3,) in metres, orientation (4,)


@dataclass
class SceneObject:
    """One object: `id` is its value in the instance mask, `body` its body in the model.

    `on` is the id of the object that it lies on or in, 0 for the table.
    """

    id: int
    kind: str
    color: str
    material: str
    body: int
    main_geoms: list[int]
    geoms: list[int]
    on: int = 0


class Tabletop:
    """A random scene that has come to rest.

    Args:
        seed: decides kinds, shapes, poses, colours and the table.
        kinds: draw from these kinds only (all by default).
        count: (fewest, most) objects, side by side where there is room. By default a mix: 3 to 8,
            at times a crowd of up to 10, at times a thing or two in or on another.
        extend: adds something to the scene before it is compiled, such as a gripper. The objects
            then have their finer colliders; what is drawn and where it is dropped stays the same.
        held_out: objects of shapes and colours that are not in the scenes without it.

    `items` leaves out what fell off the table; that is not drawn either.
    """

    def __init__(
        self,
        seed: int,
        kinds: tuple[str, ...] = tuple(KINDS),
        count: tuple[int, int] | None = None,
        extend: Callable[[mujoco.MjSpec], None] | None = None,
        held_out: bool = False,
    ) -> None:
        self.seed, self.held_out = seed, held_out
        random = np.random.default_rng(seed)
        crowded = count is None and random.random() < CROWDED
        fewest, most = count or (CROWD if crowded else USUAL)
        chosen = _choose_kinds(random, kinds, int(random.integers(fewest, most + 1)))
        pile = _choose_pile(random, kinds) if count is None and random.random() < STACKED else []
        chosen[: len(pile)] = pile
        shapes = [build(kind, random, held_out) for kind in chosen]
        poses = _drop_poses(random, shapes, len(pile), CROWD_AREA if crowded else 1.0)
        self.model = _build(random, shapes, poses, extend)
        self.data = mujoco.MjData(self.model)
        self.items = [self._item(index, kind) for index, kind in enumerate(chosen)]
        self.recolor(random)
        self._settle()
        for item in self.items:
            item.on = self._support(item)

    def recolor(self, random: np.random.Generator) -> None:
        """Give every object another of its kind's colours."""
        for item in self.items:
            item.color = str(random.choice(palette(item.kind, self.held_out)))
            tint = np.clip(np.array(COLORS[item.color]) + random.normal(0, 0.025, 3), 0.02, 1)
            tint = np.clip(tint * random.uniform(0.85, 1.1), 0.02, 1)
            self.model.geom_rgba[item.main_geoms, :3] = tint

    def points(self, item: SceneObject) -> np.ndarray:
        """Corners (N,3), metres in the table frame, of the boxes around the item's drawn parts."""
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
        corners = []
        for geom in item.geoms:
            center, half = self.model.geom_aabb[geom, :3], self.model.geom_aabb[geom, 3:]
            rotation = self.data.geom_xmat[geom].reshape(3, 3)
            corners.append(self.data.geom_xpos[geom] + product(center + signs * half, rotation.T))
        return np.concatenate(corners)

    def _settle(self) -> None:
        """Let everything come to rest; what has left the table by then is no part of the scene."""
        steps = range(int(MOST_SECONDS / TIME_STEP))
        for step in steps:
            mujoco.mj_step(self.model, self.data)
            speeds = np.abs(self.data.qvel[: 6 * len(self.items)].reshape(-1, 6)[:, :3])
            if step * TIME_STEP >= SETTLE_SECONDS and speeds.max() < RESTING:
                break
        mujoco.mj_forward(self.model, self.data)
        fallen = [item for item in self.items if self.data.xipos[item.body, 2] < 0]
        for item in fallen:
            self.model.geom_rgba[item.geoms, 3] = 0
        self.items = [item for item in self.items if item not in fallen]

    def _support(self, item: SceneObject) -> int:
        """Id of the object that the item lies on or in; 0 if that is the table or several."""
        model, data = self.model, self.data
        lifts = dict.fromkeys((other.body for other in self.items), 0.0)
        force = np.zeros(6)
        for index in range(data.ncon):
            contact = data.contact[index]
            bodies = [int(model.geom_bodyid[geom]) for geom in contact.geom]
            if item.body not in bodies:
                continue
            mujoco.mj_contactForce(model, data, index, force)
            upward = (contact.frame.reshape(3, 3)[:, 2] * force[:3]).sum()  # on the second body
            other = bodies[1 - bodies.index(item.body)]
            if other in lifts:
                lifts[other] += upward if bodies[1] == item.body else -upward
        weight = -model.body_mass[item.body] * model.opt.gravity[2]
        for carrier in self.items:
            if lifts[carrier.body] > CARRIED * weight and self._is_over(item, carrier):
                return carrier.id
        return 0

    def _is_over(self, item: SceneObject, carrier: SceneObject) -> bool:
        """Whether one would say that it lies on the other, rather than leans on or covers it."""
        above, below = self.points(item)[:, :2], self.points(carrier)[:, :2]
        center = self.data.xipos[item.body, :2]
        inside = ((center > below.min(0)) & (center < below.max(0))).all()
        return bool(inside and np.ptp(below, 0).min() > BREADTH * np.ptp(above, 0).min())

    def _item(self, index: int, kind: str) -> SceneObject:
        body = self.model.body(f"object_{index}").id
        drawn = (self.model.geom_bodyid == body) & (self.model.geom_group == VISUAL_GROUP)
        geoms = np.flatnonzero(drawn).tolist()
        main = [geom for geom in geoms if self.model.geom(geom).name.startswith("main")]
        return SceneObject(index + 1, kind, "", KINDS[kind].materials[0], body, main, geoms)


# 1. which objects


def _choose_kinds(random: np.random.Generator, kinds: tuple[str, ...], count: int) -> list[str]:
    """Mostly different kinds, with a repeated one now and then: plural questions need it."""
    chosen: list[str] = []
    while len(chosen) < count:
        repeat = chosen and random.random() < 0.2
        chosen.append(str(random.choice(chosen if repeat else list(kinds))))
    return chosen


def _choose_pile(random: np.random.Generator, kinds: tuple[str, ...]) -> list[str]:
    """Something to lie on or in, and one or two things for it; empty if there are no such kinds."""
    carriers = [kind for kind in CARRIERS if kind in kinds]
    loads = [kind for kind in LOADS if kind in kinds]
    if not carriers or not loads:
        return []
    count = 1 if random.random() < 0.75 else 2
    return [str(random.choice(carriers)), *(str(kind) for kind in random.choice(loads, count))]


# 2. where the objects are dropped


def _drop_poses(
    random: np.random.Generator, shapes: list[Shape], pile: int, area: float
) -> list[DropPose]:
    """Where to drop the objects: next to each other, the first `pile` of them into the first one.

    Things may touch. Where there is no room beside them, an object is dropped from above.
    """
    poses: list[DropPose] = []
    around: list[tuple[np.ndarray, float]] = []  # discs on the table and the height of each object
    for index, shape in enumerate(shapes):
        turn, lift = _turn(random, shape, may_lie=index >= pile)
        discs, height = _footprint(shape, turn)
        if 0 < index < pile:
            spot = poses[0][0][:2] + random.normal(0, 0.006, 2)
            below = sum(tall for _, tall in around)
        else:
            spot, below = _spot(random, discs, around, area)
        discs[:, :2] += spot
        around.append((discs, height))
        poses.append((np.array([*spot, below + lift]), turn))
    return poses


def _spot(
    random: np.random.Generator, discs: np.ndarray, around: list[tuple[np.ndarray, float]],
    area: float,
) -> tuple[np.ndarray, float]:  # fmt: skip
    """A free place (x, y), or the freest of 24, and the height of what lies there already."""
    best, gaps = np.zeros(2), np.full(len(around), -np.inf)
    for _ in range(24):
        spot = random.uniform(-1, 1, 2) * area * AREA
        found = np.array([_gap(discs, spot, other) for other, _ in around])
        if found.min(initial=np.inf) > gaps.min(initial=-np.inf):
            best, gaps = spot, found
        if gaps.min(initial=np.inf) > 0.004:
            break
    below = [height for gap, (_, height) in zip(gaps, around, strict=True) if gap < 0]
    return best, max(below, default=0.0)


def _gap(discs: np.ndarray, spot: np.ndarray, others: np.ndarray) -> float:
    """Smallest distance of discs (N,3), x, y and radius, put at a spot, to others; metres."""
    apart = np.linalg.norm(discs[:, None, :2] + spot - others[None, :, :2], axis=2)
    return float((apart - discs[:, None, 2] - others[None, :, 2]).min())


def _footprint(shape: Shape, turn: np.ndarray) -> tuple[np.ndarray, float]:
    """Discs (N,3), x, y and radius, that cover the turned object, and its height; metres."""
    discs, low, high = [], [], []
    for collider in shape.colliders:
        center = np.zeros(3)
        mujoco.mju_rotVecQuat(center, np.array(collider.position, dtype=float), turn)
        axes = _axes(collider, turn)
        flat = np.linalg.norm(axes[:, :2], axis=1)
        longest, wide = np.argmax(flat), np.sort(flat)[1]
        reach = axes[longest, :2] * (1 - min(1, wide / flat[longest]))
        for step in np.linspace(-1, 1, max(1, round(flat[longest] / max(wide, 0.005)))):
            discs.append([*(center[:2] + step * reach), wide * 1.1])
        low.append(center[2] - np.abs(axes[:, 2]).sum())
        high.append(center[2] + np.abs(axes[:, 2]).sum())
    return np.array(discs), max(high) - min(low)


def _axes(collider: Part, turn: np.ndarray) -> np.ndarray:
    """The half axes (3,3), one a row, of the turned box around a collider; metres."""
    first, second, third = collider.size
    half = {"cylinder": (first, first, second), "sphere": (first,) * 3}.get(
        collider.shape, (first, second, third)
    )
    both, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_mulQuat(both, turn, _quaternion(collider.euler))
    mujoco.mju_quat2Mat(matrix, both)
    return matrix.reshape(3, 3).T * np.array(half)[:, None]


def _turn(random: np.random.Generator, shape: Shape, may_lie: bool) -> tuple[np.ndarray, float]:
    """An orientation (quaternion) and the height of the object's origin above what it stands on."""
    yaw = _quaternion((0, 0, random.uniform(-np.pi, np.pi)))
    if not may_lie or shape.lie is None or random.random() >= 0.25:
        return yaw, 0.004
    turned = np.zeros(4)
    mujoco.mju_mulQuat(turned, yaw, _quaternion(shape.lie))
    return turned, max(c.size[0] for c in shape.colliders) + 0.004


def _quaternion(euler: Vector) -> np.ndarray:
    """Of turns around x, the turned y and the turned z, radians."""
    result = np.zeros(4)
    mujoco.mju_euler2Quat(result, np.array(euler, dtype=float), "xyz")
    return result


# 3. the model


def _build(
    random: np.random.Generator,
    shapes: list[Shape],
    poses: list[DropPose],
    extend: Callable[[mujoco.MjSpec], None] | None,
) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.timestep = TIME_STEP
    spec.visual.quality.shadowsize = 1024
    spec.visual.quality.offsamples = 4
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 10
    _add_surroundings(spec, random)
    for index, (shape, pose) in enumerate(zip(shapes, poses, strict=True)):
        _add_object(spec, random, index, shape, pose, fine=extend is not None)
    if extend is not None:
        extend(spec)
    return spec.compile()


def _add_surroundings(spec: mujoco.MjSpec, random: np.random.Generator) -> None:
    texture = spec.add_texture(name="table", type=mujoco.mjtTexture.mjTEXTURE_2D)
    texture.nchannel, texture.width, texture.height = 3, 256, 256
    texture.data = table_texture(random).tobytes()
    material = spec.add_material(name="table", specular=0.1, shininess=0.2)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "table"
    material.texuniform = True
    material.texrepeat = [random.uniform(0.8, 3.0)] * 2
    world = spec.worldbody
    world.add_geom(
        name="table", type=mujoco.mjtGeom.mjGEOM_BOX, size=TABLE, pos=[0, 0, -TABLE[2]],
        material="table", friction=[1.0, 0.01, 0.002], condim=6,
    )  # fmt: skip
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 0.1], pos=[0, 0, -0.75],
        rgba=[*random.uniform(0.15, 0.75, 3), 1],
    )  # fmt: skip
    wall = random.uniform(0.2, 0.85) * random.uniform(0.85, 1.0, 3)
    spec.add_texture(
        name="room", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT, rgb1=wall, rgb2=0.7 * wall,
        width=64, height=64,
    )  # fmt: skip
    for name in ("key", "fill", "back"):  # the camera places them
        world.add_light(name=name, pos=[0, 0, 2], dir=[0, 0, -1])
    world.add_camera(name="camera")
    for shine in range(11):
        spec.add_material(name=f"shine_{shine}", specular=shine / 10, shininess=0.2 + 0.06 * shine)


def _add_object(
    spec: mujoco.MjSpec, random: np.random.Generator, index: int, shape: Shape, pose: DropPose,
    fine: bool,
) -> None:  # fmt: skip
    body = spec.worldbody.add_body(name=f"object_{index}", pos=pose[0], quat=pose[1])
    body.add_freejoint()
    for collider in (shape.fine_colliders if fine else None) or shape.colliders:
        body.add_geom(
            type=PRIMITIVES[collider.shape], size=collider.size, pos=collider.position,
            quat=_quaternion(collider.euler), group=COLLISION_GROUP, rgba=[0, 0, 0, 0], density=500,
            friction=[0.9, 0.01, 0.004], condim=6,
        )  # fmt: skip
    for number, part in enumerate(shape.parts):
        _add_part(spec, random, body, part, f"{index}_{number}", shape.shine)


def _add_part(
    spec: mujoco.MjSpec, random: np.random.Generator, body: mujoco.MjsBody, part: Part, name: str,
    shine: float,
) -> None:  # fmt: skip
    tint = TINTS.get(part.role, (0.5, 0.5, 0.5))
    look = {
        "name": f"{part.role}_{name}",
        "pos": part.position,
        "quat": _quaternion(part.euler),
        "rgba": [*np.clip(np.array(tint) + random.normal(0, 0.03, 3), 0, 1), 1],
        "material": f"shine_{round(10 * shine)}",
        "group": VISUAL_GROUP,
        "contype": 0,
        "conaffinity": 0,
        "mass": 0,
    }
    if isinstance(part.shape, Mesh):
        mesh = spec.add_mesh(name=name, inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL)
        mesh.uservert = part.shape.vertices.ravel()
        mesh.userface = part.shape.faces.ravel()
        body.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=name, **look)
    else:
        body.add_geom(type=PRIMITIVES[part.shape], size=part.size, **look)
