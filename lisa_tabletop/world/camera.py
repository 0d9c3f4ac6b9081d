"""The simulated camera: colour, depth, intrinsics, exact instance masks and the scene's record."""

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np

from lisa_ros.errors import LisaError
from lisa_tabletop.world.exact import cos, norm, product, sin
from lisa_tabletop.world.tabletop import VISUAL_GROUP, SceneObject, Tabletop


@dataclass(frozen=True)
class SceneView:
    """One look at a scene.

    Attributes:
        rgb: uint8 (H,W,3).
        depth: float32 (H,W), metres along the optical axis.
        instances: uint8 (H,W), 0 = no object, else the object's id.
        intrinsics: float64 (3,3), pinhole without distortion, pixels.
        camera_pose: float64 (4,4), optical frame (z forward, y down) to table frame, metres.
        record: what the scene holds, as the instruction generator reads it.
    """

    rgb: np.ndarray
    depth: np.ndarray
    instances: np.ndarray
    intrinsics: np.ndarray
    camera_pose: np.ndarray
    record: dict


class TabletopCamera:
    """Renders one `Tabletop`; `move` draws a new pose and new light, `look` takes the image."""

    def __init__(self, scene: Tabletop, width: int = 640, height: int = 480) -> None:
        self.scene, self.width, self.height = scene, width, height
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = 0
        self._option.geomgroup[0] = self._option.geomgroup[VISUAL_GROUP] = 1
        try:
            self._renderer = mujoco.Renderer(scene.model, height, width)
        except (mujoco.FatalError, RuntimeError, ImportError, AttributeError) as error:
            raise LisaError(
                "the simulator cannot draw without a display: MuJoCo found no EGL "
                f"({error}). On Debian or Ubuntu install libegl1 and libgl1-mesa-dri."
            ) from error

    def close(self) -> None:
        self._renderer.close()

    def move(self, random: np.random.Generator) -> None:
        """A new camera pose from shallow to near the top, new lights and tints of the room."""
        model = self.scene.model
        azimuth, elevation = random.uniform(-np.pi, np.pi), np.deg2rad(random.uniform(25, 80))
        distance = random.uniform(0.48, 0.78)
        target = np.array([*random.uniform(-0.05, 0.05, 2), 0.03])
        flat = cos(elevation)
        ray = np.array([flat * cos(azimuth), flat * sin(azimuth), sin(elevation)])
        aim(model, "camera", target + distance * ray, target, roll=random.normal(0, 0.04))
        model.cam_fovy[:] = random.uniform(40, 50)
        self._light(random)
        model.mat_texrepeat[model.material("table").id] = random.uniform(0.8, 3.5)
        model.geom("table").rgba[:3] = random.uniform(0.6, 1.0) * random.uniform(0.85, 1.0, 3)
        model.geom("floor").rgba[:3] = random.uniform(0.1, 0.8) * random.uniform(0.7, 1.0, 3)
        mujoco.mj_forward(model, self.scene.data)

    def _light(self, random: np.random.Generator) -> None:
        """New lights: the first is the strongest and throws a shadow, another may throw one."""
        model = self.scene.model
        model.light_castshadow[:] = False
        model.light_castshadow[0] = True
        if random.random() < 0.4:  # a second shadow costs a fifth of the time of a view
            model.light_castshadow[1] = True
        shares = np.array([1.0, *random.uniform(0, 0.7, model.nlight - 1)])
        for index, strength in enumerate(random.uniform(0.9, 1.5) * shares / shares.sum()):
            position = np.array([*random.uniform(-1.4, 1.4, 2), random.uniform(0.7, 2.0)])
            toward = np.array([*random.uniform(-0.25, 0.25, 2), 0]) - position
            model.light_pos[index] = position
            model.light_dir[index] = toward / norm(toward)
            model.light_exponent[index] = random.uniform(0, 12)  # an even flood or a spot's pool
            warmth = 1 + random.normal(0, 0.06, 3)
            model.light_diffuse[index] = np.clip(strength * warmth, 0, 1)
            model.light_specular[index] = 0.4 * strength
        model.vis.headlight.ambient[:] = random.uniform(0.2, 0.4)
        model.vis.headlight.diffuse[:] = random.uniform(0.0, 0.25)

    def look(self) -> SceneView:
        """Render the scene as it stands."""
        renderer, data = self._renderer, self.scene.data
        renderer.update_scene(data, camera="camera", scene_option=self._option)
        rgb = renderer.render().copy()
        renderer.enable_depth_rendering()
        depth = renderer.render().copy()
        renderer.disable_depth_rendering()
        instances = self._instances()
        shown = [item for item in self.scene.items if (instances == item.id).any()]
        record = {
            "seed": self.scene.seed,
            "width": self.width,
            "height": self.height,
            "objects": [self._describe(item, instances) for item in shown],
        }
        return SceneView(rgb, depth, instances, self.intrinsics(), self.pose(), record)

    def image(self, camera: str) -> np.ndarray:
        """What another camera of the scene sees: uint8 (H,W,3) RGB."""
        self._renderer.update_scene(self.scene.data, camera=camera, scene_option=self._option)
        return self._renderer.render().copy()

    def intrinsics(self) -> np.ndarray:
        """Pinhole matrix (3,3) in pixels."""
        focal = self.height / 2 / math.tan(np.deg2rad(self.scene.model.cam_fovy[0]) / 2)
        return np.array(
            [[focal, 0, (self.width - 1) / 2], [0, focal, (self.height - 1) / 2], [0, 0, 1]]
        )

    def pose(self) -> np.ndarray:
        """Optical frame to table frame (4,4); MuJoCo's camera looks along its own -z, y up."""
        pose = np.eye(4)
        pose[:3, :3] = self.scene.data.cam_xmat[0].reshape(3, 3) * [1.0, -1.0, -1.0]
        pose[:3, 3] = self.scene.data.cam_xpos[0]
        return pose

    def geoms(self) -> np.ndarray:
        """The geom (H,W) that every pixel shows, -1 for none."""
        self._renderer.update_scene(self.scene.data, camera="camera", scene_option=self._option)
        return self._geoms()

    def _geoms(self) -> np.ndarray:
        self._renderer.enable_segmentation_rendering()
        geoms = self._renderer.render()[..., 0].copy()
        self._renderer.disable_segmentation_rendering()
        return geoms

    def _instances(self) -> np.ndarray:
        """Ids (H,W) uint8 of the objects that the renderer's current scene shows."""
        table = np.zeros(self.scene.model.ngeom + 1, dtype=np.uint8)
        for item in self.scene.items:
            table[item.geoms] = item.id
        return table[self._geoms()]  # -1, the background, picks the last entry, which is 0

    def _alone_area(self, item: SceneObject) -> int:
        """Pixels that the item would cover if nothing stood before it."""
        rgba = self.scene.model.geom_rgba
        saved = rgba[:, 3].copy()
        rgba[:, 3] = 0
        rgba[item.geoms, 3] = 1
        self._renderer.update_scene(self.scene.data, camera="camera", scene_option=self._option)
        rgba[:, 3] = saved
        return int((self._instances() == item.id).sum())

    def _describe(self, item: SceneObject, instances: np.ndarray) -> dict:
        """The entry of the record for an object of which something is seen."""
        points, mask = self.scene.points(item), instances == item.id
        rows, columns = np.nonzero(mask)
        area = len(rows)
        cut_off = mask[[0, -1]].any() or mask[:, [0, -1]].any()
        inside = 1.0  # share of the object within the image
        if cut_off:
            pixels = self._project(points)
            inside = ((pixels >= 0) & (pixels < [self.width, self.height])).all(axis=1).mean()
        seen = 1.0
        if self._may_be_hidden(item, points, instances):
            seen = min(1.0, area / max(1, self._alone_area(item)))
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        return {
            "id": item.id,
            "kind": item.kind,
            "color": item.color,
            "material": item.material,
            "on": item.on,
            "size": np.round(np.ptp(points, axis=0), 4).tolist(),
            "position": np.round((points.min(0) + points.max(0)) / 2, 4).tolist(),
            "center": [round(float(columns.mean()), 1), round(float(rows.mean()), 1)],
            "box": [int(value) for value in box],
            "area": area,
            "visible": round(float(seen * inside), 3),
        }

    def _may_be_hidden(self, item: SceneObject, points: np.ndarray, instances: np.ndarray) -> bool:
        """Whether anything but the table is drawn where the item could be.

        Most things stand free, and drawing each alone is what takes the longest.
        """
        pixels = self._project(points)
        low, high = np.floor(pixels.min(0)), np.ceil(pixels.max(0))
        left, top = np.maximum(low, 0).astype(int)
        right, bottom = np.maximum(high, 0).astype(int) + 1
        around = instances[top:bottom, left:right]
        return bool(((around != 0) & (around != item.id)).any())

    def _project(self, points: np.ndarray) -> np.ndarray:
        """Where points (N,3) of the table frame are in the image: (N,2) pixels."""
        pose = self.pose()
        seen = product(points - pose[:3, 3], pose[:3, :3])  # (N, 3), optical frame
        pixel = product(seen, self.intrinsics().T)
        return pixel[:, :2] / np.maximum(pixel[:, 2:], 1e-6)


def aim(
    model: mujoco.MjModel, name: str, eye: np.ndarray, target: np.ndarray, roll: float = 0.0
) -> None:
    """Point a camera (MuJoCo convention: looks along -z, y up) from `eye` at `target`."""
    back = (eye - target) / norm(eye - target)
    right = np.cross([0.0, 0.0, 1.0], back)
    right /= norm(right)
    up = np.cross(back, right)
    turned = cos(roll) * right + sin(roll) * up
    rotation = np.stack([turned, np.cross(back, turned), back], axis=1)
    index = model.camera(name).id
    model.cam_pos[index] = eye
    mujoco.mju_mat2Quat(model.cam_quat[index], rotation.ravel())
