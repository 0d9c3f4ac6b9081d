"""`make setup` and `pip install` tell in one sentence what is missing."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("sh", "bash", "cat", "cksum", "date", "dirname", "grep", "mkdir", "sed", "tail", "uname")


def folder_of_tools(folder: Path, *tools: str) -> Path:
    """A folder for PATH in which there is nothing but these programs."""
    folder.mkdir()
    for tool in tools:
        (folder / tool).symlink_to(shutil.which(tool))
    return folder


def run_setup(folder: Path, path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run what `make setup` runs, for an environment in `folder`, with this PATH."""
    command = [shutil.which("sh"), str(ROOT / ".ci" / "setup"), str(folder / "environment")]
    environment = {"PATH": str(path), "HOME": str(folder), **variables}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)


def python_that_says(folder: Path, text: str) -> Path:
    """A program that fails at everything and says `text`."""
    program = folder / "python3"
    program.write_text(f"#!/bin/sh\necho '{text}'\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_old_python_is_named(tmp_path: Path) -> None:
    old = python_that_says(tmp_path, "Python 3.8.18")
    result = run_setup(tmp_path, folder_of_tools(tmp_path / "bin", *TOOLS), PYTHON=str(old))
    assert result.returncode == 1
    assert "Python 3.10 or newer is needed; found Python 3.8.18" in result.stderr
    assert not (tmp_path / "environment").exists()


@pytest.mark.parametrize(("missing", "advice"), [("cmake", "cmake"), ("c++", "g++")])
def test_missing_tool_is_named(tmp_path: Path, missing: str, advice: str) -> None:
    tools = [tool for tool in ("cmake", "c++") if tool != missing]
    path = folder_of_tools(tmp_path / "bin", *TOOLS, *tools)
    result = run_setup(tmp_path, path, PYTHON=sys.executable)
    assert result.returncode == 1
    assert f"apt install {advice}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "environment").exists()


def test_build_without_ros_says_what_to_do(tmp_path: Path) -> None:
    generator = "share/rosidl_default_generators/cmake"
    if (Path(sys.prefix) / generator).is_dir() or os.environ.get("AMENT_PREFIX_PATH"):
        pytest.skip("the build tools for ROS messages are in this environment")
    pytest.importorskip("setuptools", reason="setuptools is not installed")
    command = [sys.executable, "setup.py", "-q", "build", "--build-base", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert result.returncode != 0
    assert "Leave --no-build-isolation out" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_checkout_under_letters_beyond_ascii_is_built_by_paths_without_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rosidl's CMake drops other letters from the paths that it reads."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools is not installed")
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    spec = importlib.util.spec_from_file_location("its_setup", ROOT / "setup.py")
    its_setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(its_setup)
    assert its_setup.ascii_folder(tmp_path) == tmp_path
    checkout = tmp_path / "bücher"
    checkout.mkdir()
    commands: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        commands.append(command)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(its_setup, "SOURCES", checkout)
    monkeypatch.setattr(its_setup, "ros_prefixes", lambda: [tmp_path])
    monkeypatch.setattr(its_setup.subprocess, "run", run)
    folder = its_setup.ascii_folder(checkout / "build")
    its_setup.run_cmake(folder / "cmake", folder / "stage")
    configure = commands[0]
    assert " ".join(configure).isascii()
    assert Path(configure[configure.index("-S") + 1]).resolve() == checkout


def test_kilted_changes_every_pin_that_has_another_version_there() -> None:
    """Mixed, the wheels of two distributions load each other's libraries and crash."""
    pins = set(re.findall(r'"(ros-[\w-]+)==', (ROOT / "pyproject.toml").read_text()))
    script = (ROOT / ".ci" / "kilted").read_text()
    changed = set(re.findall(r"^(ros-[\w-]+) [\d.]+$", script, flags=re.MULTILINE))
    same = {"ros-domain-coordinator", "ros-fastrtps-cmake-module", "ros-python-cmake-module"}
    assert changed == pins - same


def test_what_pip_must_bring_into_a_ros_workspace(tmp_path: Path) -> None:
    """`.ci/colcon` takes the packages of pyproject.toml, without what ROS has of its own."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("colcon", "python3"):
        (tools / name).write_text('#!/bin/sh\nmkdir -p "$4/bin" 2> /dev/null\nexit 0\n')
        (tools / name).chmod(0o755)
    python = tmp_path / "ws" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\ncase "$*" in *numpy*) echo 1;; *) echo "$@" >> "$CALLS";; esac\n')
    python.chmod(0o755)
    (python.parent / "activate").write_text("")
    variables = {"CALLS": str(tmp_path / "calls"), "AMENT_PREFIX_PATH": "/opt/ros"}
    path = f"{tools}:{os.environ['PATH']}"
    command = [str(ROOT / ".ci" / "colcon"), str(tmp_path / "ws")]
    subprocess.run(command, env={"PATH": path, **variables}, check=True, timeout=400)
    wanted = (tmp_path / "ws" / "requirements.txt").read_text().splitlines()
    assert "numpy>=1.26,<2" in wanted and "safetensors>=0.4" in wanted
    assert not [line for line in wanted if line.startswith(("ros-", "torch", "opencv"))]
    assert "torch==" in (tmp_path / "calls").read_text()


def test_the_workflow_calls_targets_that_exist() -> None:
    workflow = (ROOT / ".github" / "workflows" / "tests.yaml").read_text()
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    called = set(re.findall(r"\bmake ([\w-]+)$", workflow, flags=re.MULTILINE))
    assert called and called <= targets
