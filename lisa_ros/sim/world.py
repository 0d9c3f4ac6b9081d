"""A settled random tabletop: objects of known kinds, dropped, at rest, ready to be looked at.

Everything follows from the seed. `Tabletop` holds the physics; camera.py takes pictures of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import numpy as np

from lisa_ros.sim.kinds import COLORS, KINDS, TINTS, Part, Shape
from lisa_ros.sim.meshes import Mesh
from lisa_ros.sim.textures import table_texture

TABLE = (0.62, 0.47, 0.02)  # half sizes of the table top in metres; its upper face is z = 0
AREA = (0.25, 0.20)  # half sizes of the region in which objects are dropped
PRIMITIVES = {
    "box": mujoco.mjtGeom.mjGEOM_BOX,
    "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
    "ellipsoid": mujoco.mjtGeom.mjGEOM_ELLIPSOID,
    "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
    "sphere": mujoco.mjtGeom.mjGEOM_SPHERE,
}
VISUAL_GROUP, COLLISION_GROUP = 1, 3
SETTLE_SECONDS, TIME_STEP = 0.6, 0.004


@dataclass
class Item:
    """One object: `id` is its value in the instance mask, `body` its body in the model."""

    id: int
    kind: str
    color: str
    material: str
    body: int
    main_geoms: list[int]
    geoms: list[int]


class Tabletop:
    """A random scene that has come to rest.

    Args:
        seed: decides kinds, shapes, poses, colours and the table.
        kinds: draw from these kinds only (all by default).
        count: (fewest, most) objects.
        extend: adds something to the scene before it is compiled, such as a gripper. The objects
            then have their finer colliders; what is drawn and where it is dropped stays the same.
    """

    def __init__(
        self,
        seed: int,
        kinds: tuple[str, ...] = tuple(KINDS),
        count: tuple[int, int] = (3, 8),
        extend: Callable[[mujoco.MjSpec], None] | None = None,
    ) -> None:
        self.seed = seed
        random = np.random.default_rng(seed)
        chosen = _choose_kinds(random, kinds, int(random.integers(count[0], count[1] + 1)))
        shapes = [KINDS[kind].build(random) for kind in chosen]
        self.model = _build(random, shapes, extend)
        self.data = mujoco.MjData(self.model)
        self.items = [self._item(index, kind) for index, kind in enumerate(chosen)]
        self.recolor(random)
        for _ in range(int(SETTLE_SECONDS / self.model.opt.timestep)):
            mujoco.mj_step(self.model, self.data)
        mujoco.mj_forward(self.model, self.data)

    def recolor(self, random: np.random.Generator) -> None:
        """Give every object another of its kind's colours."""
        for item in self.items:
            item.color = str(random.choice(KINDS[item.kind].colors))
            tint = np.clip(np.array(COLORS[item.color]) + random.normal(0, 0.025, 3), 0.02, 1)
            tint = np.clip(tint * random.uniform(0.85, 1.1), 0.02, 1)
            self.model.geom_rgba[item.main_geoms, :3] = tint

    def points(self, item: Item) -> np.ndarray:
        """Corners (N,3), metres in the table frame, of the boxes around the item's drawn parts."""
        signs = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, 8).T
        corners = []
        for geom in item.geoms:
            center, half = self.model.geom_aabb[geom, :3], self.model.geom_aabb[geom, 3:]
            rotation = self.data.geom_xmat[geom].reshape(3, 3)
            corners.append(self.data.geom_xpos[geom] + (center + signs * half) @ rotation.T)
        return np.concatenate(corners)

    def _item(self, index: int, kind: str) -> Item:
        body = self.model.body(f"object_{index}").id
        geoms = [
            geom
            for geom in range(self.model.ngeom)
            if self.model.geom_bodyid[geom] == body and self.model.geom_group[geom] == VISUAL_GROUP
        ]
        main = [geom for geom in geoms if self.model.geom(geom).name.startswith("main")]
        return Item(index + 1, kind, "", KINDS[kind].material, body, main, geoms)


def _choose_kinds(random: np.random.Generator, kinds: tuple[str, ...], count: int) -> list[str]:
    """Mostly different kinds, with a repeated one now and then: plural questions need it."""
    chosen: list[str] = []
    while len(chosen) < count:
        repeat = chosen and random.random() < 0.2
        chosen.append(str(random.choice(chosen if repeat else list(kinds))))
    return chosen


def _build(
    random: np.random.Generator,
    shapes: list[Shape],
    extend: Callable[[mujoco.MjSpec], None] | None,
) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.timestep = TIME_STEP
    spec.visual.quality.shadowsize = 1024
    spec.visual.quality.offsamples = 4
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 10
    _add_surroundings(spec, random)
    for index, (shape, place) in enumerate(zip(shapes, _places(random, shapes), strict=True)):
        _add_object(spec, random, index, shape, place, fine=extend is not None)
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
    for name, shadow in (("key", True), ("fill", False)):
        world.add_light(name=name, pos=[0, 0, 2], dir=[0, 0, -1], castshadow=shadow)
    world.add_camera(name="camera")
    for shine in range(11):
        spec.add_material(name=f"shine_{shine}", specular=shine / 10, shininess=0.2 + 0.06 * shine)


def _places(random: np.random.Generator, shapes: list[Shape]) -> list[np.ndarray]:
    """Spots (x, y) on the table whose objects do not overlap; crowded scenes may touch."""
    places: list[np.ndarray] = []
    radii = [
        max(np.linalg.norm(c.position[:2]) + max(c.size[:2]) for c in s.colliders) for s in shapes
    ]
    for radius in radii:
        best, room = np.zeros(2), -np.inf
        for _ in range(24):
            spot = random.uniform(-1, 1, 2) * AREA
            gaps = [np.linalg.norm(spot - p) - r for p, r in zip(places, radii, strict=False)]
            free = min(gaps, default=1.0) - radius
            if free > room:
                best, room = spot, free
            if free > 0.005:
                break
        places.append(best)
    return places


def _quaternion(euler: tuple[float, float, float]) -> np.ndarray:
    result = np.zeros(4)
    mujoco.mju_euler2Quat(result, np.array(euler, dtype=float), "xyz")
    return result


def _add_object(
    spec: mujoco.MjSpec, random: np.random.Generator, index: int, shape: Shape, place: np.ndarray,
    fine: bool,
) -> None:  # fmt: skip
    yaw = _quaternion((0, 0, random.uniform(-np.pi, np.pi)))
    height = 0.004
    if shape.lie is not None and random.random() < 0.25:
        turned = np.zeros(4)
        mujoco.mju_mulQuat(turned, yaw, _quaternion(shape.lie))
        yaw, height = turned, max(c.size[0] for c in shape.colliders) + 0.004
    body = spec.worldbody.add_body(name=f"object_{index}", pos=[*place, height], quat=yaw)
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
