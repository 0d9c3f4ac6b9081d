"""What importing costs, and that it is silent."""

from __future__ import annotations

import subprocess
import sys

import pytest


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)


@pytest.mark.parametrize("module", ["engine", "bench.measure"])
def test_importing_prints_nothing(module: str) -> None:
    """transformers imports torchao where it is installed, which complains about other hardware."""
    done = python(f"import lisa_ros.{module}")
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
