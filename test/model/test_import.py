"""What importing costs, and that it is silent."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize(
    "module", ["lisa_ros.engine.engine", "benchmarks.measure", "lisa_ros.training.recipe"]
)
def test_importing_prints_nothing(module: str) -> None:
    """transformers and accelerate import torchao where it is installed, which complains about other
    hardware."""
    done = python(f"import {module}")
    assert done.stdout + done.stderr == ""


def test_help_of_every_command_does_without_torch() -> None:
    code = """
import sys
from lisa_ros.cli import COMMANDS, main
for command in ([], *([name] for name in COMMANDS)):
    try:
        main([*command, "--help"])
    except SystemExit as end:
        assert end.code == 0
print("loaded:", sorted({"torch", "transformers", "rclpy", "mujoco"} & set(sys.modules)))
"""
    assert python(code).stdout.splitlines()[-1] == "loaded: []"


def test_the_package_costs_nothing_until_a_name_is_used() -> None:
    """`import lisa_ros`, the engine's package and its loader do without torch."""
    code = """
import sys
import lisa_ros, lisa_ros.engine, lisa_ros.engine.load, lisa_ros.engine.answer
from lisa_ros import load_engine
print("loaded:", sorted({"torch", "transformers"} & set(sys.modules)))
from lisa_ros.engine import Engine, EngineConfig, Question
print(Engine.__module__, load_engine.__module__)
"""
    assert python(code).stdout.splitlines() == [
        "loaded: []",
        "lisa_ros.engine.engine lisa_ros.engine.load",
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ({"GOMP_SPINCOUNT": "1000"}, "None"),
    ],
)
def test_idle_threads_do_not_spin_unless_the_user_says_so(given: dict, expected: str) -> None:
    code = "import os, lisa_ros; print(os.environ.get('OMP_WAIT_POLICY'))"
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
    clean = {name: value for name, value in os.environ.items() if name not in names}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | given, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


def test_every_entrance_passes_the_package_before_torch() -> None:
    """torch reads the wait policy when it is imported: nothing of ours may import it before."""
    code = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch after lisa_ros:", "lisa_ros" in sys.modules)
sys.meta_path.insert(0, Watch())
import {module}
"""
    for module in ("benchmarks.measure", "lisa_tabletop.training.nano"):
        printed = python(code.replace("{module}", module)).stdout.splitlines()
        assert set(printed) <= {"torch after lisa_ros: True"}, module
