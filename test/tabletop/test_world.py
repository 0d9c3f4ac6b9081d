"""The simulated tabletop: what it draws is what it says."""

import colorsys
import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

import mujoco

from lisa_ros.errors import LisaError
from lisa_tabletop.world.camera import SceneView, TabletopCamera, aim
from lisa_tabletop.world.kinds import KINDS
from lisa_tabletop.world.parts import COLORS
from lisa_tabletop.world.tabletop import AREA, TABLE, VISUAL_GROUP, Tabletop


def look(scene: Tabletop, seed: int = 0) -> SceneView:
    try:
        camera = TabletopCamera(scene, 320, 240)
    except LisaError as error:
        pytest.skip(str(error))
    camera.move(np.random.default_rng(seed))
    view = camera.look()
    camera.close()
    return view


def touches_the_border(view: SceneView) -> bool:
    edges = (view.instances[0], view.instances[-1], view.instances[:, 0], view.instances[:, -1])
    return not view.instances.any() or any(edge.any() for edge in edges)


def test_a_seed_gives_the_same_image_again_and_another_seed_another():
    first, again, other = (look(Tabletop(seed)) for seed in (11, 11, 12))
    assert np.array_equal(first.rgb, again.rgb)
    assert np.array_equal(first.instances, again.instances)
    assert first.record == again.record
    assert not np.array_equal(first.rgb, other.rgb)


@pytest.mark.parametrize("seed", range(6))
def test_objects_have_come_to_rest_on_the_table(seed):
    scene = Tabletop(seed)
    before = scene.data.qpos.copy()
    import mujoco

    for _ in range(50):
        mujoco.mj_step(scene.model, scene.data)
    heights = before.reshape(-1, 7)[:, 2]
    assert (heights > -0.01).all(), "an object fell through or off the table"
    moved = np.abs(scene.data.qpos - before).reshape(-1, 7)[:, :3].max(axis=1)
    assert np.median(moved) < 0.003
    assert (np.abs(before.reshape(-1, 7)[:, :2]) < np.array(AREA) + 0.25).all()


def test_the_record_says_what_the_instance_mask_shows():
    view = look(Tabletop(3))
    assert set(np.unique(view.instances)) - {0} == {o["id"] for o in view.record["objects"]}
    for thing in view.record["objects"]:
        rows, columns = np.nonzero(view.instances == thing["id"])
        x, y, width, height = thing["box"]
        assert thing["area"] == len(rows)
        assert (columns.min(), rows.min()) == (x, y)
        assert (columns.max() + 1, rows.max() + 1) == (x + width, y + height)
        assert thing["center"] == pytest.approx([columns.mean(), rows.mean()], abs=0.06)


def test_depth_and_intrinsics_put_the_pixels_of_an_object_where_it_stands():
    view = look(Tabletop(3))
    for thing in view.record["objects"]:
        if thing["visible"] < 0.95:
            continue
        rows, columns = np.nonzero(view.instances == thing["id"])
        depth = view.depth[rows, columns]
        pixels = np.stack([columns, rows, np.ones_like(rows)]) * depth
        points = view.camera_pose[:3, :3] @ np.linalg.inv(view.intrinsics) @ pixels
        points = points.T + view.camera_pose[:3, 3]
        low = np.array(thing["position"]) - np.array(thing["size"]) / 2 - 0.004
        high = np.array(thing["position"]) + np.array(thing["size"]) / 2 + 0.004
        inside = ((points >= low) & (points <= high)).all(axis=1)
        assert inside.mean() > 0.97, thing["kind"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn_in_the_colour_it_is_called_by(kind):
    scene = Tabletop(5, kinds=(kind,), count=(1, 1))
    views = (look(scene, seed) for seed in range(30))
    view = next(view for view in views if not touches_the_border(view))
    (thing,) = view.record["objects"]
    assert thing["kind"] == kind
    assert thing["visible"] > 0.9
    assert thing["area"] > 100
    pixels = view.rgb[view.instances == thing["id"]] / 255
    wanted = colorsys.rgb_to_hsv(*COLORS[thing["color"]])
    if wanted[1] < 0.3:
        return  # white, black and grey have no hue to look for
    hues = np.array([colorsys.rgb_to_hsv(*pixel) for pixel in pixels[::5]])
    distance = np.abs((hues[:, 0] - wanted[0] + 0.5) % 1 - 0.5)
    alike = (distance < 0.09) & (hues[:, 1] > 0.3)
    assert alike.mean() > 0.15, f"{kind} called {thing['color']}"


def test_an_object_behind_another_is_less_visible():
    for seed in range(40):
        view = look(Tabletop(seed, count=(7, 8)), seed)
        hidden = [o for o in view.record["objects"] if o["visible"] < 0.7]
        for thing in hidden:
            x, y, width, height = thing["box"]
            cut = x == 0 or y == 0 or x + width == 320 or y + height == 240
            around = view.instances[max(0, y - 2) : y + height + 2, max(0, x - 2) : x + width + 2]
            others = set(np.unique(around)) - {0, thing["id"]}
            assert cut or others, "nothing hides it, yet it is called hidden"
        if hidden:
            return
    pytest.fail("no scene had a hidden object")


def test_things_lie_in_and_on_others_and_are_seen_there():
    inside = seen = 0
    for seed in range(60):
        scene = Tabletop(seed)
        things = {item.id: item for item in scene.items}
        for item in scene.items:
            if item.on == 0:
                continue
            carrier = things[item.on]
            low, top = scene.points(item)[:, 2].min(), scene.points(carrier)[:, 2].max()
            assert item.on != item.id
            assert scene.data.xipos[item.body, 2] > scene.points(carrier)[:, 2].min()
            inside += carrier.kind in ("bowl", "box", "pot", "tray", "plate") and low < top - 0.005
        if seen < 3 and any(item.on for item in scene.items):
            record = look(scene).record["objects"]
            seen += any(thing["on"] and thing["visible"] > 0.3 for thing in record)
    assert inside >= 8
    assert seen >= 3


def test_a_ball_lies_in_what_is_hollow_and_not_on_top_of_it():
    found = set()
    for seed in range(80):
        scene = Tabletop(seed, kinds=("ball", "bowl", "box", "pot"))
        things = {item.id: item for item in scene.items}
        for ball in scene.items:
            if ball.kind == "ball" and ball.on:
                holder = things[ball.on]
                radius = scene.model.geom_size[ball.geoms[0], 0]
                above = scene.data.xipos[ball.body, 2] - radius - scene.points(holder)[:, 2].min()
                if above < 0.015:
                    found.add(holder.kind)
    assert {"bowl", "box", "pot"} <= found


def test_crowds_stay_on_the_table_and_keep_still():
    counts = []
    for seed in range(40):
        scene = Tabletop(seed)
        counts.append(len(scene.items))
        centers = np.array([scene.data.xipos[item.body] for item in scene.items])
        assert (np.abs(centers[:, :2]) < TABLE[:2]).all()
        assert (centers[:, 2] > 0).all()
    assert min(counts) >= 3
    assert max(counts) == 10


def test_what_has_fallen_off_the_table_is_no_part_of_the_scene():
    def tilt(spec):
        spec.option.gravity = [9, 0, -6]

    scene = Tabletop(2, kinds=("ball",), count=(2, 2), extend=tilt)
    assert scene.items == []
    assert (scene.model.geom_rgba[scene.model.geom_group == VISUAL_GROUP, 3] == 0).all()
    view = look(scene)
    assert not view.instances.any()
    assert view.record["objects"] == []


def test_held_out_scenes_have_shapes_and_colours_that_the_others_never_have():
    def balls(held_out):
        scenes = [Tabletop(s, ("ball",), (3, 3), held_out=held_out) for s in range(15)]
        colors = {item.color for scene in scenes for item in scene.items}
        return colors, np.array([s.model.geom_size[i.geoms[0], 0] for s in scenes for i in s.items])

    (usual_colors, usual), (colors, radii) = balls(False), balls(True)
    assert not colors & usual_colors
    assert ((radii < usual.min()) | (radii > usual.max())).all()
    scene = Tabletop(7, held_out=True)
    for _ in range(5):
        scene.recolor(np.random.default_rng(1))
        for item in scene.items:
            if KINDS[item.kind].also:
                assert item.color not in KINDS[item.kind].colors


DIGEST = """
import hashlib, numpy as np
from lisa_tabletop.world.camera import TabletopCamera
from lisa_tabletop.world.camera_model import simulate
from lisa_tabletop.world.tabletop import Tabletop
from lisa_tabletop.world.textures import table_texture
found = hashlib.sha256()
image = np.arange(96 * 128 * 3, dtype=np.uint8).reshape(96, 128, 3)
for seed in (1, 4, 12, 8_000_002, 8_000_005):
    scene, random = Tabletop(seed), np.random.default_rng((seed, 1))
    camera = TabletopCamera(scene, 160, 120)
    camera.move(random)
    view = camera.look()
    camera.close()
    found.update(str(view.record).encode())
    drawn = [table_texture(random), simulate(image, random), view.instances]
    for array in (scene.data.qpos, scene.model.light_dir, view.camera_pose, *drawn):
        found.update(np.ascontiguousarray(array).tobytes())
print(found.hexdigest())
"""


def test_a_table_is_the_same_on_every_processor():
    """A falling thing makes centimetres of a last digit: neither NumPy's vectors nor BLAS count."""
    look(Tabletop(1, count=(1, 1)))  # skips where nothing can be drawn
    dispatched = np._core._multiarray_umath.__cpu_dispatch__
    enabled = np._core._multiarray_umath.__cpu_features__
    plain = {
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in dispatched if enabled.get(name)),
        "OPENBLAS_CORETYPE": "Nehalem",
    }
    found = {
        subprocess.run(
            [sys.executable, "-c", DIGEST], env=os.environ | more, capture_output=True, text=True
        ).stdout
        for more in ({}, plain)
    }
    assert len(found) == 1 and len(found.pop()) == 65


def test_the_principal_point_is_where_the_camera_looks():
    """Half a pixel is a millimetre on the table: no tolerance of the tests above would see it."""
    scene = Tabletop(4, kinds=("ball",), count=(1, 1))
    try:
        camera = TabletopCamera(scene, 320, 240)
    except LisaError as error:
        pytest.skip(str(error))
    ball = scene.data.xipos[scene.items[0].body]
    aim(scene.model, "camera", ball + np.array([0.1, 0.2, 0.5]), ball)
    mujoco.mj_forward(scene.model, scene.data)
    view = camera.look()
    camera.close()
    seen = view.intrinsics @ (view.camera_pose[:3, :3].T @ (ball - view.camera_pose[:3, 3]))
    rows, columns = np.nonzero(view.instances)
    assert (columns.mean(), rows.mean()) == pytest.approx(seen[:2] / seen[2], abs=0.15)


def test_what_the_edge_of_the_image_cuts_off_is_less_visible():
    scene = Tabletop(4, kinds=("book",), count=(1, 1))
    try:
        camera = TabletopCamera(scene, 320, 240)
    except LisaError as error:
        pytest.skip(str(error))
    book = scene.data.xipos[scene.items[0].body]
    visible = []
    for aside in (0.0, 0.27):  # in the middle, and with about half of it outside
        shift = np.array([aside, 0.0, 0.0])
        aim(scene.model, "camera", book + shift + np.array([0, 0.01, 0.6]), book + shift)
        mujoco.mj_forward(scene.model, scene.data)
        visible.append(camera.look().record["objects"][0]["visible"])
    camera.close()
    assert visible[0] == 1.0
    assert 0.1 < visible[1] < 0.9


def test_what_leans_on_another_does_not_lie_on_it():
    """Wider than what is below it, or beside it, nothing is said to lie on another."""
    scene = Tabletop(12, kinds=("pencil", "tray"), count=(2, 2))
    tray = next((item for item in scene.items if item.kind == "tray"), None)
    pencil = next((item for item in scene.items if item.kind == "pencil"), None)
    assert tray and pencil
    data, number = scene.data, pencil.id - 1
    middle = data.xipos[tray.body].copy()
    for offset, on in ((0.0, True), (0.4, False)):
        data.qpos[7 * number : 7 * number + 3] = middle + np.array([offset, 0, 0.02])
        mujoco.mj_forward(scene.model, data)
        assert scene._is_over(pencil, tray) is on
    assert not scene._is_over(tray, pencil), "a tray does not lie on a pencil"
