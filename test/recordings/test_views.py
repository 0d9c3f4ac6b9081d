"""Several views of the simulated tabletop and of recordings, asked and fused into one object."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from geometry_scenes import CAMERA, Cuboid, Ground, looking, render, upright
from PIL import Image

from lisa_ros.cli import main
from lisa_ros.engine.answer import Answer, Instance, Status
from lisa_ros.errors import LisaError
from lisa_ros.geometry import Intrinsics, quaternion, rigid
from lisa_ros.recordings import Shot, ask_views
from lisa_ros.recordings.bag_views import RecordedTransforms, read_bag
from lisa_ros.recordings.views import read_folder

UP = np.array([0.0, 0.0, 1.0])
THING = Cuboid(
    np.array([0.1, 0.05, 0.04]), upright(np.array([1e-9, 0, 1.0]), 0.5), np.array([0.1, 0.06, 0.08])
)
TABLE = Ground(UP, 0.0)
EYES = ([0.5, 0.0, 0.5], [-0.3, 0.4, 0.5], [0.1, -0.5, 0.4], [0.3, 0.5, 0.6])
RED = (200, 40, 30)


class Oracle:
    """An engine that knows what is red; in the views of `blind` it finds nothing."""

    def __init__(self, blind: tuple[int, ...] = (), wrong: tuple[int, ...] = ()) -> None:
        self.blind, self.wrong, self.asked = blind, wrong, 0

    def segment(self, image: np.ndarray, instruction: str, *, mode: str) -> Answer:
        assert (instruction, mode) == ("the red box", "mask")
        self.asked += 1
        mask = (image == RED).all(axis=2)
        if self.asked in self.wrong:
            mask = np.roll(mask, 100, axis=1)
        if self.asked in self.blind:
            return Answer("", Status.NOT_FOUND, [])
        one = Instance(mask, 0.9, 0.9, "the red box", (0, 0, 1, 1), int(mask.sum()))
        return Answer("", Status.OK, [one])


def shots() -> list[Shot]:
    found = []
    for number, eye in enumerate(EYES, start=1):
        pose = looking(np.array(eye), THING.center)
        depth, seen = render([THING, TABLE], pose=pose)
        image = np.where((seen == 0)[..., None], np.uint8(RED), np.uint8([90, 90, 90]))
        found.append(Shot(f"{number}.png", image, depth, CAMERA, pose))
    return found


def write_folder(folder, views: list[Shot]) -> None:
    content = {"up": [0, 0, 1], "views": []}
    for shot in views:
        name = f"depth_{shot.name}"
        Image.fromarray(shot.image).save(folder / shot.name)
        Image.fromarray(np.round(shot.depth * 1000).astype(np.uint16)).save(folder / name)
        camera = shot.camera
        content["views"].append(
            {
                "image": shot.name,
                "depth": name,
                "k": [camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1],
                "position": shot.pose[:3, 3].tolist(),
                "quaternion": quaternion(shot.pose[:3, :3]).tolist(),
            }
        )
    (folder / "views.yaml").write_text(yaml.safe_dump(content))


def test_views_that_agree():
    seen = ask_views(Oracle(), shots(), "the red box", up=UP)
    assert np.allclose(seen.obj.box.center, THING.center, atol=0.003)
    assert np.allclose(seen.obj.box.size, THING.size, atol=0.004)
    assert seen.obj.views == 4 and seen.obj.agreement > 0.98
    assert np.abs(seen.colors.astype(int) - RED).max(axis=1).mean() < 5


@pytest.mark.parametrize("fault", ["blind", "wrong"])
def test_one_view_that_means_something_else_lowers_the_agreement(fault):
    seen = ask_views(Oracle(**{fault: (2,)}), shots(), "the red box", up=UP)
    assert 0.5 < seen.obj.agreement < 0.9


def test_a_folder_comes_back_as_it_was_written(tmp_path):
    write_folder(tmp_path, shots())
    read, up = read_folder(tmp_path)
    assert np.array_equal(up, UP) and len(read) == 4
    for one, other in zip(shots(), read, strict=True):
        assert np.allclose(one.pose, other.pose, atol=1e-9) and one.camera == other.camera
        assert np.array_equal(one.image, other.image)
        assert np.allclose(one.depth, other.depth / 1000, atol=6e-4)


def test_the_command_writes_cloud_and_box(tmp_path, monkeypatch, capsys):
    write_folder(tmp_path, shots())
    oracle = Oracle()
    monkeypatch.setattr("lisa_ros.engine.load.load_engine", lambda **options: oracle)
    out = tmp_path / "out"
    assert main(["views", str(tmp_path), "--query", "the red box", "--out", str(out)]) == 0
    result = json.loads((out / "object.json").read_text())
    assert np.allclose(result["center"], THING.center, atol=0.004)
    assert np.allclose(result["size"], THING.size, atol=0.005)
    assert result["views"] == 4 and result["agreement"] > 0.95
    header, _, body = (out / "object.ply").read_bytes().partition(b"end_header\n")
    assert f"element vertex {result['points']}\n".encode() in header
    assert len(body) == 15 * result["points"]
    assert len(list(out.glob("view_*.png"))) == 4
    printed = capsys.readouterr().out
    assert "view 1.png    the red box" in printed and "of 4 views" in printed


def test_the_command_says_when_nothing_is_there(tmp_path, monkeypatch, capsys):
    write_folder(tmp_path, shots())
    blind = Oracle(blind=(1, 2, 3, 4))
    monkeypatch.setattr("lisa_ros.engine.load.load_engine", lambda **options: blind)
    command = ["views", str(tmp_path), "--query", "the red box", "--out", str(tmp_path / "out")]
    assert main(command) == 1
    assert "no object: no view shows the object" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda view: view.pop("depth"), "view 1: `depth` is missing"),
        (lambda view: view.pop("position"), "`position` is missing"),
        (lambda view: view.update(quaternion=[0, 0, 0, 0]), "quaternion is zero"),
        (lambda view: view.update(k=[1, 2]), "`k` must be 9 numbers"),
        (lambda view: view.update(k=[0] * 9), "no intrinsics"),
        (lambda view: view.update(image="no.png"), "no.png"),
        (lambda view: view.update(depth="1.png"), "grey PNG of 16 bits"),
        (lambda view: view.update(position="here"), "`position` must be 3 numbers"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, change, words):
    write_folder(tmp_path, shots()[:1])
    content = yaml.safe_load((tmp_path / "views.yaml").read_text())
    change(content["views"][0])
    (tmp_path / "views.yaml").write_text(json.dumps(content))
    with pytest.raises(LisaError, match=words):
        read_folder(tmp_path)


def test_no_folder_at_all(tmp_path, capsys):
    assert main(["views", str(tmp_path), "--query", "x", "--out", str(tmp_path / "o")]) == 2
    assert "there is none of views.yaml" in capsys.readouterr().err
    command = ["views", str(tmp_path), "--query", "x", "--out", "o", "--image", "/cam"]
    assert main(command) == 2
    assert "also needs --camera-info, --depth, --frame" in capsys.readouterr().err


def link(parent: str, child: str, pose: np.ndarray, second: float) -> SimpleNamespace:
    x, y, z, w = quaternion(pose[:3, :3])
    stamp = SimpleNamespace(sec=int(second), nanosec=int(second % 1 * 1e9))
    return SimpleNamespace(
        header=SimpleNamespace(frame_id=parent, stamp=stamp),
        child_frame_id=child,
        transform=SimpleNamespace(
            translation=SimpleNamespace(**dict(zip("xyz", pose[:3, 3], strict=True))),
            rotation=SimpleNamespace(x=x, y=y, z=z, w=w),
        ),
    )


def turned(angle: float, x: float) -> np.ndarray:
    return rigid([x, 0, 0], [0, 0, np.sin(angle / 2), np.cos(angle / 2)])


def test_transforms_of_a_recording():
    tree = RecordedTransforms()
    mount = rigid([0.1, 0, 0.3], [1, 0, 0, 0])
    tree.add([link("/base", "camera", mount, 0)], static=True)
    for second, angle in ((10, 0.0), (11, 0.2)):
        tree.add([link("map", "base", turned(angle, second), second)], static=False)
    assert np.allclose(tree.pose("camera", "map", 10.0), turned(0, 10) @ mount)
    assert np.allclose(tree.pose("camera", "map", 10.5), turned(0.1, 10.5) @ mount, atol=1e-4)
    assert np.allclose(tree.pose("camera", "/base", 99.0), mount)
    assert np.allclose(tree.pose("map", "base", 11.0), np.linalg.inv(turned(0.2, 11)))
    with pytest.raises(LisaError, match=r"base is 2\.0 s away"):
        tree.pose("camera", "map", 13.0)
    with pytest.raises(LisaError, match="from camera to moon; known frames: base, camera, map"):
        tree.pose("camera", "moon", 10.0)
    tree.add([link("camera", "map", mount, 0)], static=True)
    with pytest.raises(LisaError, match="circle"):
        tree.pose("camera", "map", 10.0)


def test_views_of_a_recording(tmp_path):
    """Images, depth images a little later, one camera_info, and tf of a camera that is carried."""
    pytest.importorskip("sensor_msgs.msg", reason="ROS messages are not installed")
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)
    kinds = {"/image": "sensor_msgs/msg/Image", "/depth": "sensor_msgs/msg/Image"}
    kinds |= {"/info": "sensor_msgs/msg/CameraInfo", "/tf": "tf2_msgs/msg/TFMessage"}
    views = shots()
    with Writer(tmp_path / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            name: writer.add_connection(name, kind, typestore=store) for name, kind in kinds.items()
        }
        for second, shot in enumerate(views, start=1):
            for name, message in recorded(store, shot, second):
                data = store.serialize_cdr(message, kinds[name])
                writer.write(topics[name], second * 10**9, data)
    names = ("/image", "/depth", "/info")
    found, notes = read_bag(tmp_path / "bag", *names, "map", every=0.5)
    assert len(found) == 4 and notes == []
    for one, other in zip(views, found, strict=True):
        assert np.allclose(one.pose, other.pose, atol=1e-9) and one.camera == other.camera
        assert np.array_equal(one.image, other.image) and np.array_equal(one.depth, other.depth)
    assert len(read_bag(tmp_path / "bag", *names, "map", every=2.0)[0]) == 2
    with pytest.raises(LisaError, match="has no /nowhere; it has /depth, /image, /info, /tf"):
        read_bag(tmp_path / "bag", "/image", "/nowhere", "/info", "map", 1.0)
    with pytest.raises(LisaError, match="no transform leads from camera to odom"):
        read_bag(tmp_path / "bag", *names, "odom", 1.0)


def recorded(store, shot: Shot, second: int):
    """The messages of one moment."""
    kinds = store.types
    time = kinds["builtin_interfaces/msg/Time"]
    header = kinds["std_msgs/msg/Header"]
    at, later = (header(time(second, nanosec), "camera") for nanosec in (0, 40_000_000))
    image = kinds["sensor_msgs/msg/Image"]
    height, width = shot.depth.shape
    pixels, depth = shot.image.ravel(), shot.depth.astype("<f4").view(np.uint8).ravel()
    camera = shot.camera
    k = np.array([camera.fx, 0, camera.cx, 0, camera.fy, camera.cy, 0, 0, 1])
    roi = kinds["sensor_msgs/msg/RegionOfInterest"](0, 0, 0, 0, False)
    info = kinds["sensor_msgs/msg/CameraInfo"]
    zeros = np.zeros(0), k, np.eye(3).ravel(), np.zeros(12)
    vector, turn = kinds["geometry_msgs/msg/Vector3"], kinds["geometry_msgs/msg/Quaternion"]
    place = vector(*shot.pose[:3, 3]), turn(*quaternion(shot.pose[:3, :3]))
    stamped = kinds["geometry_msgs/msg/TransformStamped"](
        header(time(second, 0), "map"), "camera", kinds["geometry_msgs/msg/Transform"](*place)
    )
    yield "/tf", kinds["tf2_msgs/msg/TFMessage"]([stamped])
    yield "/image", image(at, height, width, "rgb8", 0, 3 * width, pixels)
    yield "/depth", image(later, height, width, "32FC1", 0, 4 * width, depth)
    yield "/info", info(at, height, width, "", *zeros, 0, 0, roi)


def test_the_simulated_table():
    """Real renderings: one object from four sides, with the simulator's own masks."""
    if find_spec("mujoco") is None:
        pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]")
    import lisa_tabletop  # noqa: F401  (chooses how MuJoCo draws, before it is imported)
    from lisa_tabletop.world.camera import TabletopCamera
    from lisa_tabletop.world.tabletop import Tabletop

    scene = Tabletop(9_100_003)
    try:
        camera = TabletopCamera(scene, 640, 480)
    except LisaError as error:
        pytest.skip(str(error))
    random, views, masks = np.random.default_rng(5), [], []
    for _ in range(3):
        camera.move(random)
        view = camera.look()
        k = Intrinsics.from_matrix(view.intrinsics, 640, 480)
        views.append(Shot("", view.rgb, view.depth, k, view.camera_pose))
        masks.append(view.instances)
    camera.close()
    whole = {one["id"]: one for one in view.record["objects"] if one["visible"] > 0.95}
    number = max(whole, key=lambda name: min((mask == name).sum() for mask in masks))
    answers = iter(masks)

    def segment(image, instruction, *, mode):
        mask = next(answers) == number
        one = Instance(mask, 1.0, 1.0, "it", (0, 0, 1, 1), int(mask.sum()))
        return Answer("", Status.OK, [one])

    seen = ask_views(SimpleNamespace(segment=segment), views, "it", up=UP)
    obj, truth = seen.obj, whole[number]
    low, high = obj.points.min(axis=0), obj.points.max(axis=0)
    assert obj.agreement > 0.9 and obj.views == 3
    assert np.allclose((low + high)[:2] / 2, truth["position"][:2], atol=0.008)
    assert np.allclose((high - low)[:2], truth["size"][:2], atol=0.012)
