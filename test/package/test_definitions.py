"""The files that define the package agree with each other and with what is installed."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from lisa_ros.cli import COMMANDS, main

if sys.version_info >= (3, 11):
    import tomllib
else:
    from pip._vendor import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INTERFACES = sorted([*ROOT.glob("msg/*.msg"), *ROOT.glob("action/*.action")])
CMAKE = (ROOT / "CMakeLists.txt").read_text()


def run(*command: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=400, env=env)


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_field_is_explained(path: Path) -> None:
    """A comment beside each field, or above the first of a group."""
    explained = False
    for line in path.read_text().splitlines():
        text = line.strip()
        if not text or text == "---":
            explained = False
        elif text.startswith("#"):
            explained = True
        else:
            assert explained or "#" in text, f"{path.name}: no word about `{text}`"


def test_cmake_generates_every_interface() -> None:
    listed = re.findall(r"^  ((?:msg|action)/\S+)$", CMAKE, flags=re.MULTILINE)
    assert sorted(listed) == [str(path.relative_to(ROOT)) for path in INTERFACES]


def test_package_xml_is_valid_and_agrees() -> None:
    package = import_module("catkin_pkg.package").parse_package(str(ROOT / "package.xml"))
    assert package.name == PROJECT["project"]["name"] == "lisa_ros"
    assert package.version == PROJECT["project"]["version"]
    entries = package.buildtool_depends + package.build_depends + package.test_depends
    declared = {entry.name for entry in entries}
    found = re.findall(r"find_package\((\w+)", CMAKE)
    assert set(found) <= declared
    assert f"## {package.version}" in (ROOT / "CHANGELOG.md").read_text()


def test_one_version_of_every_ros_wheel() -> None:
    """Another version of the same name belongs to another ROS distribution."""
    lines = PROJECT["build-system"]["requires"] + PROJECT["project"]["dependencies"]
    pins: dict[str, str] = {}
    for line in lines:
        if line.startswith("ros-"):
            name, version = line.split("==")
            assert pins.setdefault(name, version) == version, name


def test_data_files_are_packed() -> None:
    """Every file beside the code is among those that pip installs."""
    listing = run("git", "-C", str(ROOT), "ls-files", "lisa_ros")
    if listing.returncode:
        pytest.skip("this is not a git checkout")
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["*"]
    for name in listing.stdout.split():
        packed = any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in ("*.py", *patterns))
        assert packed, f"{name} matches no pattern of package-data in pyproject.toml"


def test_generated_and_own_modules_lie_in_one_package() -> None:
    errors = import_module("lisa_ros.errors")
    pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")
    actions = import_module("lisa_ros.action")
    assert issubclass(errors.CheckpointError, errors.LisaError)
    assert actions.Segment.Result().segmentation.status == 0
    for name in ("msg", "srv", "action"):
        assert not (ROOT / "lisa_ros" / name).exists(), f"{name} is the generated package's"


def test_messages_survive_the_wire() -> None:
    """Every field, of messages in messages too: modules and shared libraries are of one build."""
    messages = pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")
    serialization = import_module("rclpy.serialization")
    message = filled(messages.Segmentation(), messages)
    data = serialization.serialize_message(message)
    assert serialization.deserialize_message(data, messages.Segmentation) == message


def filled(message: Any, messages: ModuleType) -> Any:
    """The message with a value other than the default in every field that has a simple type."""
    values = {"string": "ä", "boolean": True, "float": 0.5, "double": 0.25}
    for name, kind in message.get_fields_and_field_types().items():
        if kind == "sequence<lisa_ros/Instance>":
            setattr(message, name, [filled(messages.Instance(), messages) for _ in range(2)])
        elif "int" in kind and "/" not in kind:
            setattr(message, name, 3)
        elif kind in values:
            setattr(message, name, values[kind])
    return message


def test_importing_the_package_loads_nothing_large() -> None:
    code = "import sys, lisa_ros, lisa_ros.cli, lisa_ros.errors; print(*sys.modules)"
    loaded = set(run(sys.executable, "-c", code).stdout.split())
    assert "lisa_ros.cli" in loaded
    assert not loaded & {"torch", "transformers", "numpy", "rclpy", "mujoco"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: lisa-ros {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "extra", "command"),
    [
        ("mujoco", "sim", ["sim-benchmark", "somewhere"]),
        ("matplotlib", "train", ["eval", "--dataset", "set"]),
        ("peft", "train", ["finetune", "--dataset", "set", "--output", "new"]),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    package: str, extra: str, command: list[str], tmp_path: Path
) -> None:
    (tmp_path / "set").mkdir()  # a question, since a data set is looked at first
    Image.new("RGB", (32, 32)).save(tmp_path / "set" / "a.png")
    shape = {"label": "target", "points": [[2, 2], [20, 2], [20, 20]]}
    question = {"text": ["the mug"], "is_sentence": False, "shapes": [shape]}
    (tmp_path / "set" / "a.json").write_text(json.dumps(question))
    block = f"import sys; sys.modules[{package!r}] = None; sys.path.insert(0, {str(ROOT)!r})"
    start = f"{block}; from lisa_ros.cli import main; sys.exit(main({command!r}))"
    done = subprocess.run(
        [sys.executable, "-c", start], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2, done.stderr
    assert f"needs the package {package}: pip install 'lisa_ros[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_installed_commands_start() -> None:
    """`lisa-ros` on the PATH, and the executable that `ros2 run lisa_ros lisa-ros` starts."""
    prefix = Path(sys.executable).parent.parent
    commands = [prefix / "bin" / "lisa-ros", prefix / "lib" / "lisa_ros" / "lisa-ros"]
    missing = [str(path) for path in commands if not path.is_file()]
    if missing:
        pytest.skip(f"lisa_ros is not installed by pip in this environment: no {missing[0]}")
    # the executables name no interpreter of their own, as in an environment that is activated
    activated = {**os.environ, "PATH": f"{prefix / 'bin'}:{os.environ['PATH']}"}
    for path in commands:
        result = run(str(path), "--help", env=activated)
        assert result.returncode == 0, result.stderr
        assert "usage: lisa-ros" in result.stdout
