"""Several views of the simulated tabletop and of recordings, asked and fused into one object."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from geometry_scenes import CAMERA, Cuboid, Ground, looking, render, upright
from PIL import Image

from lisa_ros.cli import main
from lisa_ros.engine.answer import Answer, AnswerStatus, Instance
from lisa_ros.errors import DepthError, LisaError
from lisa_ros.geometry import Intrinsics, quaternion, rigid
from lisa_ros.geometry.depth import metres
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
            return Answer("", AnswerStatus.NOT_FOUND, [])
        one = Instance(mask, 0.9, 0.9, "the red box")
        return Answer("", AnswerStatus.OK, [one])


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


def test_the_command_overwrites_what_it_has_written_and_nothing_else(tmp_path, monkeypatch, capsys):
    test_the_command_writes_cloud_and_box(tmp_path, monkeypatch, capsys)
    again = ["views", str(tmp_path), "--query", "the red box", "--out", str(tmp_path / "out")]
    assert main(again) == 0, "a second time into its own folder"
    (tmp_path / "mine").mkdir()
    for name in ("view_01.png", "object.json"):
        (tmp_path / "mine" / name).write_bytes(b"[]")
        assert main([*again[:-1], str(tmp_path / "mine")]) == 2
        assert f"{name} is not of an earlier `lisa-ros views`" in capsys.readouterr().err
        assert (tmp_path / "mine" / name).read_bytes() == b"[]"
        (tmp_path / "mine" / name).unlink()


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
        (lambda view: view.update(pose=np.diag([1, -1, 1, 1]).tolist()), "view 1: .*left-handed"),
        (lambda view: view.update(pose=np.eye(3).tolist()), "`pose` must be 16 numbers"),
        (lambda view: view.update(d="bent"), "view 1: could not convert"),
        (lambda view: view.update(d=[0.1], distortion_model="fisheye"), "'fisheye' is not known"),
        (lambda view: view.update(k=[550, 0, 0, 0, 550, 0, 0, 0, 1]), "principal point"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path, change, words):
    write_folder(tmp_path, shots()[:1])
    content = yaml.safe_load((tmp_path / "views.yaml").read_text())
    change(content["views"][0])
    (tmp_path / "views.yaml").write_text(json.dumps(content))
    with pytest.raises(LisaError, match=words):
        read_folder(tmp_path)


@pytest.mark.parametrize("up", [[0, 0, 0], [0, 1], "up"])
def test_up_has_a_direction(tmp_path, up):
    write_folder(tmp_path, shots()[:1])
    content = yaml.safe_load((tmp_path / "views.yaml").read_text())
    (tmp_path / "views.yaml").write_text(json.dumps(content | {"up": up}))
    with pytest.raises(LisaError, match="`up`"):
        read_folder(tmp_path)


DEPTH = np.round(shots()[0].depth * 1000).astype(np.uint16)
DEPTHS = {
    "16-bit.png": DEPTH,
    "16-bit.tif": DEPTH,
    "32-bit.tif": DEPTH.astype(np.int32),
    "metres.tif": shots()[0].depth,
    "metres.npy": shots()[0].depth.astype(np.float64),
    "millimetres.npy": DEPTH.astype(np.int64),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_depth_images_of_any_kind_mean_the_same(tmp_path, name):
    write_folder(tmp_path, shots()[:1])
    if name.endswith("npy"):
        np.save(tmp_path / name, DEPTHS[name])
    else:
        Image.fromarray(DEPTHS[name]).save(tmp_path / name)
    content = yaml.safe_load((tmp_path / "views.yaml").read_text())
    content["views"][0]["depth"] = name
    (tmp_path / "views.yaml").write_text(json.dumps(content))
    [shot] = read_folder(tmp_path)[0]
    assert np.allclose(metres(shot.depth), DEPTH / 1000, atol=6e-4, equal_nan=True) or np.allclose(
        np.nan_to_num(metres(shot.depth)), DEPTH / 1000, atol=6e-4
    )


def test_an_image_that_was_taken_upright_lies_on_its_depth_image(tmp_path):
    """EXIF: the stored image is turned, the depth image is not."""
    write_folder(tmp_path, shots()[:1])
    tag = Image.Exif()
    tag[0x0112] = 6
    lying = np.ascontiguousarray(np.rot90(shots()[0].image))
    Image.fromarray(lying).save(tmp_path / shots()[0].name, exif=tag)
    [shot] = read_folder(tmp_path)[0]
    assert np.array_equal(shot.image, shots()[0].image)


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


def test_transforms_come_in_any_order_and_are_kept_as_tf2_keeps_them():
    tree = RecordedTransforms()
    for second in (12, 10, 13, 11):
        tree.add([link("map", "base", turned(0.1 * second, second), second)], static=False)
    tree.add([link("map", "base", turned(0.0, 99), 12)], static=False)  # repeated: tf2 ignores it
    for when in (10.25, 11.5, 12.0, 12.75, 13.2):
        wanted = turned(0.1 * min(when, 13), min(when, 13))
        assert np.allclose(tree.pose("base", "map", when), wanted, atol=1e-4), when
    with pytest.raises(LisaError, match=r"0\.6 s away"):
        tree.pose("base", "map", 9.4)
    static = RecordedTransforms()
    for x in (1, 2):
        static.add([link("map", "base", turned(0, x), 0)], static=True)
    assert static.pose("base", "map", 5.0)[0, 3] == 2, "of static ones the last counts"


def test_transforms_without_stamp_have_the_time_of_recording():
    tree = RecordedTransforms()
    for second in (10, 11):
        tree.add([link("map", "base", turned(0, second), 0)], static=False, recorded=second * 10**9)
    assert tree.pose("base", "map", 10.5)[0, 3] == pytest.approx(10.5)
    assert tree.without_stamp == 2
    tree.add([link("map", "camera", turned(0, 1), 0)], static=True)
    assert tree.without_stamp == 2, "static ones need none"


def test_a_thing_that_was_taken_from_one_place_to_another():
    """Its parent changes: what lies between is not made up."""
    tree = RecordedTransforms()
    tree.add([link("map", "shelf", turned(0, 5), 0)], static=True)
    tree.add([link("shelf", "cup", turned(0, 1), 10)], static=False)
    tree.add([link("map", "cup", turned(0, 20), 11)], static=False)
    assert tree.pose("cup", "map", 10.3)[0, 3] == 6
    assert tree.pose("cup", "map", 10.7)[0, 3] == 20


def test_transforms_that_are_none_are_passed_over():
    tree = RecordedTransforms()
    tree.add([link("map", "base", turned(0, 3), 10)], static=False)
    broken = link("map", "base", turned(0, 3), 10.1)
    broken.transform.translation.x = float("nan")
    empty = link("map", "base", turned(0, 3), 10.2)
    empty.transform.rotation = SimpleNamespace(x=0.0, y=0.0, z=0.0, w=0.0)
    tree.add([broken, empty], static=False)
    assert tree.pose("base", "map", 10.15)[0, 3] == 3


def test_between_two_transforms_the_short_way_round_is_taken():
    """A quaternion and its negative are one rotation."""
    tree = RecordedTransforms()
    first, second = link("map", "base", turned(0.2, 0), 10), link("map", "base", turned(0.4, 0), 11)
    turn = second.transform.rotation
    turn.x, turn.y, turn.z, turn.w = -turn.x, -turn.y, -turn.z, -turn.w
    tree.add([first, second], static=False)
    assert np.allclose(tree.pose("base", "map", 10.5), turned(0.3, 0), atol=1e-3)


NAMES = ("/image", "/depth", "/info")


def keep(name: str, message: Any, second: int) -> list[tuple[int, Any]]:
    """Recorded as it was taken; other functions like this one spoil a recording."""
    return [(second * 10**9, message)]


def write_recording(path: Path, views: list[Shot], spoil: Callable = keep) -> Path:
    """`spoil`: times of recording and messages for a message on a topic at a second."""
    pytest.importorskip("sensor_msgs.msg", reason="ROS messages are not installed")
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)
    kinds = {"/image": "sensor_msgs/msg/Image", "/depth": "sensor_msgs/msg/Image"}
    kinds |= {"/info": "sensor_msgs/msg/CameraInfo", "/tf": "tf2_msgs/msg/TFMessage"}
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            name: writer.add_connection(name, kind, typestore=store) for name, kind in kinds.items()
        }
        for second, shot in enumerate(views, start=1):
            for name, message in recorded(store, shot, second):
                for time, one in spoil(name, message, second):
                    data = store.serialize_cdr(one, kinds[name])
                    writer.write(topics[name], time, data)
    return path


def are_the_same(found: list[Shot], wanted: list[Shot]) -> bool:
    return len(found) == len(wanted) and all(
        np.allclose(one.pose, other.pose, atol=1e-9)
        and np.array_equal(one.image, other.image)
        and np.array_equal(one.depth, other.depth)
        for one, other in zip(wanted, found, strict=True)
    )


def test_views_of_a_recording(tmp_path):
    """Images, depth images a little later, one camera_info, and tf of a camera that is carried."""
    views = shots()
    bag = write_recording(tmp_path / "bag", views)
    found, notes = read_bag(bag, *NAMES, "map", every=0.5)
    assert len(found) == 4 and notes == []
    assert are_the_same(found, views) and all(one.camera == CAMERA for one in found)
    assert are_the_same(read_bag(bag, "", *NAMES[1:], "map", every=0.5)[0], views)
    assert len(read_bag(bag, *NAMES, "map", every=2.0)[0]) == 2
    with pytest.raises(LisaError, match="has no /nowhere; it has /depth, /image, /info, /tf"):
        read_bag(bag, "/image", "/nowhere", "/info", "map", 1.0)
    with pytest.raises(LisaError, match="no transform leads from camera to odom"):
        read_bag(bag, *NAMES, "odom", 1.0)


def restamp(message: Any, sec: int, nanosec: int = 0) -> Any:
    for part in getattr(message, "transforms", [message]):
        part.header.stamp.sec, part.header.stamp.nanosec = sec, nanosec
    return message


@pytest.mark.parametrize("every", [0.0, 0.5])
@pytest.mark.parametrize("stamp", [0, 77])
def test_images_without_stamps_of_use_are_views_all_the_same(tmp_path, stamp, every):
    """A camera whose clock stands still: the time of recording says which tf and depth is meant."""

    def spoil(name, message, second):
        usable = message if name == "/tf" else restamp(message, stamp)
        return [(second * 10**9 + (name == "/depth") * 40_000_000, usable)]

    bag = write_recording(tmp_path / "bag", shots(), spoil)
    found, notes = read_bag(bag, *NAMES, "map", every)
    assert are_the_same(found, shots())
    assert any("/image has no stamps of use" in note for note in notes)


def test_equal_stamps_of_different_images_lose_none(tmp_path):
    """Stamps in whole seconds: two images share one, and each keeps its own depth image."""

    def spoil(name, message, second):
        if name != "/tf":
            restamp(message, (second + 1) // 2)
        return [(second * 10**9, message)]

    found, _ = read_bag(write_recording(tmp_path / "bag", shots(), spoil), *NAMES, "map", 0.0)
    assert len(found) == 4
    for one, other in zip(shots(), found, strict=True):
        assert np.array_equal(one.image, other.image) and np.array_equal(one.depth, other.depth)


def test_the_order_of_recording_does_not_matter(tmp_path):
    """tf comes late and backwards, and images in a burst at the end."""

    def spoil(name, message, second):
        return [(20 * 10**9 - second * 10**6 if name == "/tf" else 10 * 10**9 - second, message)]

    bag = write_recording(tmp_path / "bag", shots(), spoil)
    assert are_the_same(read_bag(bag, *NAMES, "map", 0.5)[0], shots())


def test_depth_of_another_time_is_not_taken(tmp_path):
    def late(name, message, second):
        if name == "/depth":
            restamp(message, second, 150_000_000)
        return keep(name, message, second)

    bag = write_recording(tmp_path / "bag", shots(), late)
    with pytest.raises(LisaError, match="has a depth image within 0"):
        read_bag(bag, *NAMES, "map", 0.0)

    def some(name, message, second):
        return late(name, message, second) if second == 2 else keep(name, message, second)

    bag = write_recording(tmp_path / "other", shots(), some)
    assert are_the_same(read_bag(bag, *NAMES, "map", 0.0)[0], [*shots()[:1], *shots()[2:]])


def test_depth_of_another_lens_is_refused(tmp_path):
    """As the node and `lisa-ros bag` do: a view of two lenses would be fused in the wrong place."""

    def spoil(name, message, second):
        if name == "/depth":
            message.header.frame_id = "depth_optical"
        return keep(name, message, second)

    with pytest.raises(LisaError, match="'depth_optical': use the depth image that is registered"):
        read_bag(write_recording(tmp_path / "bag", shots(), spoil), *NAMES, "map", 0.0)


def test_a_view_that_cannot_be_used_costs_itself(tmp_path):
    def spoil(name, message, second):
        if second == 2 and name == "/image":
            message.data = message.data[:100]
        if second == 3 and name == "/depth":
            message.data[:] = 0
        return keep(name, message, second)

    bag = write_recording(tmp_path / "bag", shots(), spoil)
    found, notes = read_bag(bag, *NAMES, "map", 0.0)
    assert are_the_same(found, [shots()[0], shots()[3]])
    assert [note[:20] for note in notes] == ["no view at 2.000 s: ", "no view at 3.000 s: "]
    assert "ends early" in notes[0] and "no measurement" in notes[1]


def test_every_view_has_the_camera_info_of_its_time(tmp_path):
    """A camera that zooms."""

    def spoil(name, message, second):
        if name == "/info":
            message.k[0] = message.k[4] = 500 + 10 * second
        return keep(name, message, second)

    found, _ = read_bag(write_recording(tmp_path / "bag", shots(), spoil), *NAMES, "map", 0.0)
    assert [one.camera.fx for one in found] == [510, 520, 530, 540]


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


@pytest.mark.parametrize("size", [(800, 600), (200, 150)])
def test_colour_and_depth_of_different_sizes(size):
    """The mask and the colours are of the large image, the points of the depth image."""
    views = []
    for shot in shots():
        camera = CAMERA.resized(*size)
        _, seen = render([THING, TABLE], camera, pose=shot.pose)
        rows = np.arange(size[1])[:, None] * 200 // size[1]
        image = np.where((seen == 0)[..., None], np.uint8(RED), np.uint8([90, 90, 90]))
        image[..., 2] = np.where(seen == 0, image[..., 2], rows)  # grows from top to bottom
        views.append(Shot("", image, shot.depth, shot.camera, shot.pose))
    seen = ask_views(Oracle(), views, "the red box", up=UP)
    assert np.allclose(seen.obj.box.center, THING.center, atol=0.004)
    assert np.allclose(seen.obj.box.size, THING.size, atol=0.008)
    assert np.abs(seen.colors.astype(int) - RED).max(axis=1).mean() < 12


SQUARE = np.zeros((300, 300, 3), np.uint8)
SKEW = np.eye(4) + 0.2 * np.eye(4, k=1) * [[1], [1], [0], [0]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": SQUARE}, "300x300 pixels and the depth image 400x300"),
        ({"depth": np.zeros((300, 400), np.float32)}, "no measurement"),
        ({"depth": np.full((300, 400), 700, np.float32)}, "millimetres declared as metres"),
        ({"camera": Intrinsics(640, 640, 500, 500, 320, 320)}, "640x640"),
        ({"pose": np.diag([1.0, -1, 1, 1])}, "left-handed"),
        ({"pose": np.diag([2.0, 2, 2, 1])}, "no rotation"),
        ({"pose": SKEW}, "no rotation"),
    ],
)
def test_a_view_that_shows_no_one_thing_is_refused_before_anything_is_asked(change, words):
    with pytest.raises(DepthError, match=words):
        replace(shots()[0], **change)


def test_a_point_is_coloured_by_the_views_that_see_it():
    """Red from one side, blue from the other; what no view sees is grey."""
    views = [shots()[0], shots()[2]]
    blue = np.where((views[1].image == RED).all(axis=2)[..., None], np.uint8([0, 0, 255]), 0)
    views[1] = replace(views[1], image=blue.astype(np.uint8))

    class Both(Oracle):
        def segment(self, image, instruction, *, mode):
            image = np.where((image == [0, 0, 255]).all(axis=2)[..., None], np.uint8(RED), image)
            return super().segment(image, instruction, mode=mode)

    seen = ask_views(Both(), views, "the red box", up=UP)
    local = (seen.obj.points - THING.center) @ THING.rotation
    by_side = {}
    for name, column, sign in (("+x", 0, 1), ("-y", 1, -1), ("+z", 2, 1)):
        middle = np.abs(np.delete(local, column, axis=1)) < THING.size.min() / 3
        on_side = (sign * local[:, column] > 0.47 * THING.size[column]) & middle.all(axis=1)
        by_side[name] = seen.colors[on_side].astype(int).mean(axis=0)
    assert by_side["+z"][0] > 60 and by_side["+z"][2] > 60, "both see the top"
    assert abs(by_side["+x"] - by_side["-y"]).max() > 60, "one of them sees it alone"


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
        one = Instance(mask, 1.0, 1.0, "it")
        return Answer("", AnswerStatus.OK, [one])

    seen = ask_views(SimpleNamespace(segment=segment), views, "it", up=UP)
    obj, truth = seen.obj, whole[number]
    low, high = obj.points.min(axis=0), obj.points.max(axis=0)
    assert obj.agreement > 0.9 and obj.views == 3
    assert np.allclose((low + high)[:2] / 2, truth["position"][:2], atol=0.008)
    assert np.allclose((high - low)[:2], truth["size"][:2], atol=0.012)
