"""The `lisa-ros` command: its sub-commands, each imported only when it is asked for.

A module here has for each of its commands `add_NAME_arguments` and `run_NAME`; those of the
tabletop and the benchmarks have one command each, `add_arguments` and `run`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

from lisa_ros.errors import LisaError, RemoteFailure, not_installed
from lisa_ros.resources import shared_file

COMMANDS: dict[str, str] = {
    "segment": "answer an instruction about one image",
    "demo": "play a recorded camera to the perception node and ask it about its images",
    "node": "run the perception node without a launch system",
    "serve": "answer the questions of many robots with one engine",
    "web": "offer a page for browsers: the live camera, a line to ask, masks and words",
    "bag": "ask about the images of a recording",
    "video": "find what an instruction means in a clip and carry it through all of it",
    "views": "ask from several poses of the camera and fuse the answers into one object",
    "listen": "hear instructions: a microphone, a WAV file or an audio topic",
    "speak": "say the answers aloud",
    "mcp": "serve eyes to agents by the Model Context Protocol: look, find, describe, follow",
    "sim": "publish the live tabletop camera",
    "sim-pick": "let a simulated gripper lift what instructions mean, and count",
    "sim-benchmark": "write the fixed test set of the simulator, for any system to be scored on",
    "sim-clips": "write clips of the simulator in DAVIS's folders, for any tracker to be scored on",
    "eval": "measure a model on the fixed test set, on ReasonSeg, or a tracker on video",
    "data": "check the published data sets that LISA learns from",
    "calibrate": "fit the scores of a model's masks, so that a robot can act on a threshold",
    "finetune": "teach a model the questions of a folder, or of the simulator",
    "train-nano": "train the small model that ships with the package",
    "convert": "rewrite an official checkpoint as a native one",
    "fetch": "download a model of the Hugging Face hub and the CLIP tower that it names",
    "info": "say what a model folder is",
    "bench": "measure the engine beside the reference schedule",
}

MODULES = {
    **dict.fromkeys(("segment", "bag", "video", "views"), "ask"),
    **dict.fromkeys(("node", "demo", "serve"), "node"),
    **dict.fromkeys(("web", "mcp", "listen", "speak"), "clients"),
    **dict.fromkeys(("eval", "data"), "eval"),
    **dict.fromkeys(("info", "convert", "calibrate", "finetune"), "models"),
    "fetch": "fetch",
}
"""Where each sub-command is found here. All others but `bench` are those of `lisa_tabletop`, which
join by the entry points `lisa_ros.commands`."""

EXTRAS = {
    "mujoco": "sim",
    **dict.fromkeys(("accelerate", "matplotlib", "peft", "tensorboard"), "train"),
    **dict.fromkeys(("av", "pycocotools"), "video"),
    "torchao": "quantize",
    "ray": "serve",
    **dict.fromkeys(("cryptography", "segno", "starlette", "uvicorn", "websockets"), "web"),
    **dict.fromkeys(("pocketsphinx", "silero_vad", "sounddevice"), "speech"),
    **dict.fromkeys(("mcp", "py_trees"), "agents"),
}
"""Packages that only some commands need, and the extra that brings each."""

LAST_SEED = 2**63 - 1  # that NumPy and torch both take
FAULT, INTERRUPTED, BROKEN_PIPE = 2, 130, 141  # exit codes; the last two as a shell gives them


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command; return its exit code (2 for a fault that the user can mend)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog="lisa-ros", description="Ask a robot's camera which thing is meant."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which version this is")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = arguments[0] if arguments else ""
    for stream in (sys.stdout, sys.stderr):
        # A label in Chinese on a Latin-1 terminal is no reason to lose an answer.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        for name, text in COMMANDS.items():
            about = text[0].upper() + text[1:] + "."
            command = commands.add_parser(name, help=text, description=about, formatter_class=_Help)
            if name == chosen:
                add_arguments, run = _command(name)
                add_arguments(command)
                command.set_defaults(run=run)
        args = parser.parse_args(arguments)
        code = args.run(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Who read our output has seen enough. Python's own flush at exit must not complain again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (LisaError, RemoteFailure, FloatingPointError) as error:
        # the last: the engine's, of a model whose weights are no numbers
        sentence = str(error)
    except OSError as error:
        sentence = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    except ModuleNotFoundError as error:
        sentence = _how_to_install(error.name or "")
        if not sentence:
            raise
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        # names and `--ros-args` are first judged by ROS itself, which has several classes for it
        kind, lines = type(error), str(error).split(", at ")[0].split("\n")
        if not kind.__module__.startswith("rclpy"):
            raise
        if kind.__name__ == "ExternalShutdownException" or "context is" in lines[0]:
            return INTERRUPTED  # a signal has shut ROS down while somebody waited or published
        sentence = f"ROS cannot use these names or arguments: {' '.join(lines[:2])}"
    print(f"lisa-ros {chosen}: {sentence}", file=sys.stderr)
    return FAULT


class _Help(argparse.HelpFormatter):
    """What an option takes is called by its kind, rather than by the option once more."""

    def _get_default_metavar_for_optional(self, action: argparse.Action) -> str:
        return {int: "N", float: "X", Path: "PATH"}.get(action.type, action.dest.upper())


class _Version(argparse.Action):
    """`--version`: that of package.xml, which is read only when it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        manifest = ElementTree.parse(shared_file("package.xml"))
        print(f"lisa_ros {manifest.findtext('version')}")
        parser.exit()


def _how_to_install(module: str) -> str:
    """What to do about a module that is not there; empty if it is a fault of ours."""
    package = module.partition(".")[0]
    if module in ("lisa_ros.msg", "lisa_ros.action"):
        return "its ROS messages are not built: install it with pip or colcon (docs/install.md)"
    if package in ("lisa_ros", "lisa_tabletop", "benchmarks"):
        return ""
    if package in EXTRAS:
        return f"needs the package {package}: pip install 'lisa_ros[{EXTRAS[package]}]'"
    return not_installed(package)


def _command(name: str) -> tuple[Callable[[argparse.ArgumentParser], None], Callable[..., int]]:
    """What adds the arguments of a sub-command, and what runs it."""
    if name in MODULES:
        module = import_module(f"lisa_ros.cli.{MODULES[name]}")
        return getattr(module, f"add_{name}_arguments"), getattr(module, f"run_{name}")
    if name == "bench":
        module = _benchmarks()
    elif entries := entry_points(group="lisa_ros.commands", name=name):
        module = next(iter(entries)).load()
    elif find_spec("lisa_tabletop"):  # a checkout that nobody has installed
        module = import_module(f"lisa_tabletop.cli.{name.replace('-', '_')}")
    else:
        raise LisaError(
            "the simulated tabletop is not installed here (colcon installs the robot's package "
            "alone): pip install 'lisa_ros[sim]'"
        )
    return module.add_arguments, module.run


def refuse_given(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    """Raise `LisaError` for an option without a default that was given and would be ignored."""
    for name in names:
        if getattr(args, name) is not None:
            option = name.replace("_", "-")
            raise LisaError(f"--{option} has no meaning {why}: leave it out")


def check_model(model: str) -> None:
    """Raise `LisaError` if there is no such model here and it is no server's address either."""
    from lisa_ros.model.config import find
    from lisa_ros.serving.remote import is_address

    if not is_address(model):
        find(model)


def _benchmarks() -> ModuleType:
    """Run from a checkout, never installed: ours if this is one, else the one we stand in."""
    for checkout in (Path(__file__).resolve().parents[2], Path.cwd()):
        if (checkout / "benchmarks" / "bench.py").is_file():
            sys.path[:0] = [str(checkout), str(checkout / "test")]
            return import_module("benchmarks.bench")
    raise LisaError(
        "the benchmarks are not installed: run this in a checkout of the repository, whose "
        "folder benchmarks/ has them"
    )


def add_model_arguments(parser: argparse.ArgumentParser, *, remote: bool = True) -> None:
    """The options that say which model is asked, and how it is loaded.

    `remote`: whether a server may be asked in its place.
    """
    group = parser.add_argument_group("model")
    add, server = group.add_argument, ", or a server's address" * remote
    add("--model", default="nano", help=f"model folder, name or hub id{server} (default: nano)")
    add("--vision-tower", metavar="MODEL", help="folder or hub id of its CLIP tower, if not found")
    group.add_argument(
        "--device", default="auto", help="auto (default: a GPU if any), cpu, cuda or cuda:N"
    )
    add(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16", "mixed"),
        default="auto",
        help="default: bfloat16 on a GPU, else float32; mixed: SAM alone in bfloat16",
    )
    add(
        "--quantization",
        choices=("auto", "int8", "fp8", "int4", "nf4"),
        help="compress the language model's weights; auto: as far as a GPU's memory asks for it",
    )


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """What the options of `add_model_arguments` are to `load_engine` and `load_lisa`."""
    names = ("model", "device", "dtype", "quantization", "vision_tower")
    return {name: getattr(args, name) for name in names}
