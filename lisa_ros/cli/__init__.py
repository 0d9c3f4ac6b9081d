"""The `lisa-ros` command: one sub-command a module, imported only when it is asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

from lisa_ros.errors import LisaError

COMMANDS: dict[str, str] = {
    "segment": "answer an instruction about one picture",
    "demo": "play a recorded camera to the perception node and ask it about its pictures",
    "node": "run the perception node without a launch system",
    "bag": "ask about the images of a recording",
    "views": "ask from several poses of the camera and fuse the answers into one object",
    "sim": "publish the live tabletop camera",
    "sim-pick": "let a simulated gripper lift what instructions mean, and count",
    "sim-benchmark": "write the fixed test set of the simulator, for any system to be scored on",
    "eval": "measure a model on the fixed test set, or on ReasonSeg",
    "calibrate": "fit the scores of a model's masks, so that a robot can act on a threshold",
    "finetune": "teach a model the questions of a folder, or of the simulator",
    "train-nano": "train the small model that ships with the package",
    "convert": "rewrite an official checkpoint as a native one",
    "info": "say what a model folder is",
    "bench": "measure the engine beside the reference schedule",
}

TABLETOP = {"sim", "sim-pick", "sim-benchmark", "train-nano"}
"""Sub-commands of `lisa_tabletop`, which join by the entry points `lisa_ros.commands`."""

EXTRAS = {"mujoco": "sim", "matplotlib": "train", "peft": "train", "tensorboard": "train"}
"""Packages that only some commands need, and the extra that brings each."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; return its exit code (2 for a fault that the user can mend)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog="lisa-ros", description="Ask a robot's camera which thing is meant."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = arguments[0] if arguments else ""
    try:
        for name, text in COMMANDS.items():
            about = text[0].upper() + text[1:] + "."
            command = commands.add_parser(name, help=text, description=about)
            if name == chosen:
                module = _module(name)
                module.add_arguments(command)
                command.set_defaults(run=module.run)
        args = parser.parse_args(arguments)
        return args.run(args)
    except LisaError as error:
        print(f"lisa-ros {chosen}: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        extra = f"pip install 'lisa_ros[{EXTRAS[package]}]'"
        print(f"lisa-ros {chosen}: needs the package {package}: {extra}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _module(name: str) -> ModuleType:
    """The module of a sub-command."""
    if name == "bench":
        checkout = Path(__file__).resolve().parents[2]
        if not (checkout / "benchmarks" / "bench.py").is_file():
            raise LisaError(
                "the benchmarks are run from a checkout: clone the repository and run `make bench`"
            )
        sys.path.insert(0, str(checkout))
        return import_module("benchmarks.bench")
    if name not in TABLETOP:
        return import_module(f"lisa_ros.cli.{name.replace('-', '_')}")
    for entry in entry_points(group="lisa_ros.commands", name=name):
        return entry.load()
    raise LisaError(
        "the simulated tabletop is not installed here (colcon installs the robot's package alone): "
        "pip install 'lisa_ros[sim]'"
    )
