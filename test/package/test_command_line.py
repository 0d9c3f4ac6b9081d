"""The command line: what stops it is one sentence, what it says reaches every terminal."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image
from rclpy._rclpy_pybind11 import RCLError
from rclpy.executors import ExternalShutdownException

from lisa_ros import cli, demo
from lisa_ros.cli import main
from lisa_ros.engine.question import MODES, EngineConfig, Mode
from lisa_ros.errors import RemoteFailure
from lisa_ros.serving.server import ServeOptions


def command(run, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words of a command that does what `run` does."""
    monkeypatch.setattr(cli, "_command", lambda name: (lambda parser: None, run))
    return ["info"]


def failing(error: BaseException):
    def run(args: object) -> int:
        raise error

    return run


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.png"), "No space left on device: a.p"),
        (PermissionError(errno.EACCES, "Permission denied", "/out"), "Permission denied: /out"),
        (OSError("cannot identify it"), "cannot identify it"),
        (RemoteFailure("http://robot:8000: the model failed"), "http://robot:8000: the model"),
        (FloatingPointError("token logits are not finite"), "token logits are not finite"),
        (ModuleNotFoundError("no", name="peft.tuners"), "pip install 'lisa_ros[train]'"),
        (ModuleNotFoundError("no", name="torch"), "the package torch is missing from"),
        (ModuleNotFoundError("no", name="lisa_ros.msg"), "ROS messages are not built"),
    ],
)
def test_what_stops_a_command_is_one_sentence(
    error: Exception,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    assert main(command(failing(error), monkeypatch)) == 2
    said = capsys.readouterr().err
    assert said.startswith("lisa-ros info: ") and sentence in said and said.count("\n") == 1


@pytest.mark.parametrize("said", ["publisher's context is invalid, at a.c:1", ""])
def test_a_signal_in_the_middle_of_ros_is_no_wrong_name(
    said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """SIGTERM shuts ROS down wherever a loop is: it publishes, or it waits."""
    error = RCLError(said) if said else ExternalShutdownException()
    assert main(command(failing(error), monkeypatch)) == 130
    assert not capsys.readouterr().err


def test_a_module_of_ours_that_is_missing_is_a_fault_with_a_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ModuleNotFoundError):
        main(command(failing(ModuleNotFoundError("no", name="lisa_ros.moved")), monkeypatch))


def lisa(*words: str, **options) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "lisa_ros.cli", *words]
    return subprocess.run(line, capture_output=True, timeout=400, **options)


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    """`lisa-ros --help | true`: the pipe is closed before anything is written."""
    reading, writing = os.pipe()
    os.close(reading)
    line = [sys.executable, "-m", "lisa_ros.cli", "info", "nano"]
    done = subprocess.run(line, stdout=writing, stderr=subprocess.PIPE, timeout=400)
    os.close(writing)
    assert done.stderr == b"" and done.returncode == 141


def test_a_latin_1_terminal_shows_a_chinese_path(tmp_path: Path) -> None:
    latin = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = lisa("info", str(tmp_path / "杯子"), env=latin)
    assert done.returncode == 2 and b"\\u676f\\u5b50" in done.stderr
    assert b"Traceback" not in done.stderr


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    manifest = Path(__file__).resolve().parents[2] / "package.xml"
    number = capsys.readouterr().out.removeprefix("lisa_ros ").strip()
    assert number[0].isdigit() and f"<version>{number}</version>" in manifest.read_text()


def test_what_is_not_there_is_told_before_torch_is_imported(tmp_path: Path) -> None:
    code = """
import sys
from lisa_ros.cli import main
from lisa_ros.engine.question import MODES, Mode
for command in (["calibrate"], ["finetune", "--output", "new"]):
    assert main([*command, "--dataset", "nowhere"]) == 2
from lisa_ros.engine.load import load_engine
from lisa_ros.errors import LisaError
for wrong in ({"model": "no/such/folder"}, {"device": "foo"}, {"vision_tower": "no/such/tower"}):
    try:
        load_engine(**wrong)
    except LisaError as error:
        print(error, file=sys.stderr)
print("loaded:", sorted({"torch", "transformers"} & set(sys.modules)))
"""
    line = [sys.executable, "-c", code]
    done = subprocess.run(line, capture_output=True, text=True, timeout=400, cwd=tmp_path)
    assert done.stdout == "loaded: []\n", done.stderr
    assert done.stderr.count("there is no data set folder nowhere") == 2
    for name in ("no/such/folder", "'foo'", "no/such/tower"):
        assert name in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_benchmarks_are_found_from_inside_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(cli, "__file__", str(tmp_path / "lib" / "lisa_ros" / "cli" / "x.py"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    assert main(["bench"]) == 2
    assert "run this in a checkout" in capsys.readouterr().err
    monkeypatch.chdir(Path(__file__).resolve().parents[2])
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "--help"])
    assert "--presets" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("segment", "{photo}", "the mug", "--device", "foo"), "there is no device 'foo'"),
        (("segment", "{photo}", "the mug", "--vision-tower", "nope"), "there is no folder nope"),
        (("segment", "{folder}", "the mug"), "it is a folder; name an image in it"),
        (("bag", "nope.mcap", "--query", "the mug", "--out", "{photo}"), "nope.mcap"),
        (("bag", "{cut}", "--query", "x", "--out", "{out}"), "holds no images; "),
        (("video", "{cut}", "x"), "cut. Was its recorder killed, or the file copied in part?"),
        (("bag", "{bag}", "--query", " ", "--out", "{out}"), "the instruction is empty"),
        (("bag", "{bag}", "--query", "x" * 2001, "--out", "{out}"), "has 2001 characters"),
        (("views", "{bag}", "--query", "", "--out", "{out}"), "the instruction is empty"),
        (("views", "{bag}", "--query", "the mug", "--out", "{out}"), "a recording also needs"),
        (("segment", "{photo}", "\udcff\udcfe mug"), "the instruction is no text"),
        (("video", "{photo}", "\ud800"), "the instruction is no text"),
        (("bag", "{bag}", "--query", "\udcff", "--out", "{out}"), "the instruction is no text"),
        (("views", "{bag}", "--query", "\udcff", "--out", "{out}"), "the instruction is no text"),
        (("segment", "{photo}", "the mug", "--overlay", "{folder}/o.xyz"), "no image format"),
        (("segment", "{photo}", "the mug", "--overlay", "{photo}"), "photo.png, which is read"),
        (("segment", "{photo}", "the mug", "--json", "{photo}"), "photo.png, which is read"),
        (("video", "{photo}", "the mug", "--out", "{folder}/v.xyz"), "end in .mp4 or .gif"),
        (("eval", "--sheet", "{folder}/s.xyz"), "its ending names no image"),
        (("eval", "--reliability", "{folder}/r.xyz"), "its ending names no image"),
        (("eval", "--json", "{folder}"), "it is a folder; name a file"),
        (
            ("views", "{folder}", "--query", "the mug", "--out", "{folder}"),
            "the folder of the views",
        ),
        (("speak", "--command", 'a "b'), "no closing quotation"),
        (("speak", "--namespace", "a b!"), "ROS cannot use these names"),
        (("speak", "--ros-args", "--foo"), "ROS cannot use these names"),
        (("node", "--ros-args", "--foo"), "ROS cannot use these names"),
        (("node", "--namespace", "a b!"), "ROS cannot use these names"),
        (("eval", "--clips", "3"), "--clips has no meaning for a set of images"),
        (("train-nano", "--threads", "-3"), "--threads must be at least 1, it is -3"),
        (("train-nano", "--minutes", "nan"), "--minutes must be above 0 and finite, it is nan"),
        (("train-nano", "--minutes", "inf"), "--minutes must be above 0 and finite"),
        (("views", "{bag}", "--query", "x", "--out", "{out}", "--voxel", "inf"), "--voxel must"),
        (("views", "{bag}", "--query", "x", "--out", "{out}", "--every", "inf"), "--every must"),
        (("bag", "{bag}", "--query", "x", "--out", "{out}", "--every", "inf"), "--every must"),
        (("bag", "{bag}", "--query", "x", "--out", "{out}", "--mode", "semantic"), "not trained"),
        (
            ("bag", "{bag}", "--query", "x", "--out", "{out}", "--score-min", "nan"),
            "--score-min must be from 0 to 1, it is nan",
        ),
        (("sim-pick", "--model", "nope", "--trials", "1"), "there is no model folder nope"),
        (("web", "--demo", "--model", "nope"), "there is no model folder nope"),
        (("mcp", "--demo", "--model", "nope"), "there is no model folder nope"),
        (("demo", "--model", "nope", "--output", "{out}"), "there is no model folder nope"),
        (("web", "--model", "nano"), "--model has no meaning without --demo: leave it out"),
        (("mcp", "--model", "nano"), "--model has no meaning without --demo: leave it out"),
        (("mcp", "--port", "5"), "--port has no meaning without --http: leave it out"),
        (("mcp", "--host", "::1"), "--host has no meaning without --http: leave it out"),
        (("listen", "--rate", "8000"), "--rate has no meaning without --topic: leave it out"),
        (("sim-pick", "--perfect", "--model", "nano"), "--model has no meaning with --perfect"),
        (("sim-benchmark", "{out}", "--check", "--images", "9"), "--images has no meaning with"),
        (("sim-clips", "{out}", "--check", "--seed", "9"), "--seed has no meaning with --check"),
        (("train-nano", "--init-parts", "pretrain_sam"), "--init-parts has no meaning without"),
        (("mcp", "--namespace", "a b"), "ROS cannot use these names"),
        (("web", "--namespace", "1/%"), "ROS cannot use these names"),
        (("sim", "--rate", "inf"), "--rate must be from 0.001 to 1000, it is inf"),
        (("sim", "--rate", "1e9"), "--rate must be from 0.001 to 1000, it is 1000000000\n"),
        (("sim", "--rate", "1e-300"), "--rate must be from 0.001 to 1000, it is 1e-300"),
        (("views", "{bag}", "--query", "x", "--out", "{out}", "--voxel", "nan"), "--voxel must"),
        (("bag", "{bag}", "--query", "x", "--out", "{out}", "--score-min", "2"), "1, it is 2"),
        (("sim", "--rate", "nan"), "--rate must be from 0.001 to 1000, it is nan"),
        (("sim", "--seed", "-1"), "--seed must be at least 0, it is -1"),
        (("sim-benchmark", "{out}", "--images", "0"), "--images must be at least 1, it is 0"),
        (("sim-benchmark", "{out}", "--processes", "0"), "--processes must be at least 1, it is 0"),
        (("sim-clips", "{out}", "--clips", "0"), "--clips must be from 1 to"),
        (("sim-clips", "{out}", "--processes", "-1"), "--processes must be at least 1, it is -1"),
        (("sim-clips", "{out}", "--seconds", "0.5"), "--seconds must be from 1 to 600, it is 0.5"),
        (("train-nano", "--tables", "0"), "--tables must be at least 1, it is 0"),
        (("train-nano", "--seed", "-1"), f"--seed must be from 0 to {2**63 - 1}, it is -1"),
        (("video", "{photo}", "x", "--keys", "0"), "--keys must be at least 1, it is 0"),
        (("data", "check", "{folder}", "--pictures", "-4"), "--pictures must be at least 1, it is"),
        (("serve", "--batch", "0"), "--batch must be from 1 to 10000, it is 0"),
        (("train-nano", "--folder", "{photo}"), ": it is a file, no folder"),
        (("train-nano", "--curves", "{folder}/c.xyz"), "its ending names no image"),
        (("finetune", "--questions", "9", "--output", "{photo}"), ": it is a file, no folder"),
        (("sim-pick", "--perfect", "--output", "{photo}/x"), "photo.png is a file, no folder"),
        (
            ("segment", "{photo}", "x", "--overlay", "/proc/a.png"),
            "cannot write into the folder /proc: ",
        ),
        (
            ("bag", "{bag}", "--query", "x", "--out", "/proc/x"),
            "cannot write into the folder /proc: ",
        ),
        (("demo", "--output", "{photo}/x"), "cannot write into the folder"),
    ],
)
@pytest.mark.filterwarnings("error::RuntimeWarning")  # rclpy's, with a line of its source
def test_what_cannot_be_asked_is_told_before_anything_is_loaded_or_written(
    words: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    recording = Path(demo.__file__).with_name("tabletop.mcap")
    (tmp_path / "cut.mcap").write_bytes(recording.read_bytes()[:100_000])
    places = {
        "folder": tmp_path,
        "cut": tmp_path / "cut.mcap",
        "photo": tmp_path / "photo.png",
        "bag": recording,
        "out": tmp_path / "new",
    }
    assert main([word.format(**places) for word in words]) == 2
    assert sentence in capsys.readouterr().err
    assert Image.open(tmp_path / "photo.png").size == (64, 48)
    if "instruction" in sentence or "model" in sentence:
        assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "words",
    [
        "eval --json {new}/x.json --sheet {new}/x.xyz",
        "eval --json {new}/x.json --dataset {empty}",
        "eval --json {new}/x.json --model {empty}",
        "eval --json {new}/x.json --sheet {new}/x.json",
        "views {empty} --query cup --out {new}",
        "bag {empty} --query cup --out {new}/bag",
        "convert {empty} {new}/model",
        "finetune --dataset {empty} --output {new}",
        "finetune --dataset {questions} --output {new} --model {empty}",
        "demo --output {file}/new",
        "sim-pick --trials 0 --output {new}",
        "train-nano --folder {new} --minutes -1",
        "train-nano --folder {new} --init {empty}",
        "train-nano --folder {new} --curves {new}/curves.png",
    ],
)
def test_a_command_that_is_refused_leaves_no_empty_folder(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    questions = tmp_path / "questions"
    questions.mkdir()
    Image.new("RGB", (32, 32)).save(questions / "a.jpg")
    shapes = [{"label": "target", "points": [[2, 2], [20, 2], [20, 20]]}]
    entry = {"text": ["the cup"], "is_sentence": False, "shapes": shapes}
    (questions / "a.json").write_text(json.dumps(entry))
    places = {name: tmp_path / name for name in ("new", "empty", "file", "questions")}
    assert main(words.format(**places).split()) == 2, capsys.readouterr()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "questions"]
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("serve", ("--port N", "--batch N")),
        (
            "finetune",
            ("--output PATH", "--steps N", "--rate X", "--seed N", "by chance", "auto (d"),
        ),
        ("sim-benchmark", ("--images N",)),
        ("train-nano", ("--minutes X", "--first-table N", "by chance")),
    ],
)
def test_help_says_what_an_option_takes(
    command: str, told: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert all(one in said for one in told), said
    assert ".py" not in said


@pytest.mark.parametrize("command", ["segment", "bag"])
def test_help_explains_every_mode(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert tuple(MODES) == get_args(Mode)
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    for mode, what in MODES.items():
        assert f"{mode}: {what}" in told


MODEL = {
    "model": "somewhere", "device": "cuda:1", "dtype": "mixed",
    "quantization": "fp8", "vision_tower": "tower",
}  # fmt: skip
MODEL_WORDS = [w for name, value in MODEL.items() for w in (f"--{name.replace('_', '-')}", value)]


class Reached(Exception):
    """What was called, and with what."""


@pytest.mark.parametrize(
    ("words", "called", "expected"),
    [
        (
            ("segment", "{photo}", "the mug", "--clip-view", "tiles", *MODEL_WORDS),
            "lisa_ros.engine.load.load_engine",
            MODEL | {"config": EngineConfig(clip_view="tiles")},
        ),
        (
            ("bag", "in", "--query", "a", "--query", "b", "--out", "out", "--every", "2.5",
             "--image", "/i", "--depth", "/d", "--camera-info", "/c", "--mode", "text",
             "--score-min", "0.25"),
            "lisa_ros.recordings.annotate.Annotator",
            {"args": [Path("in"), Path("out"), ["a", "b"]], "every": 2.5, "topic": "/i",
             "depth": "/d", "info": "/c", "mode": "text", "least_score": 0.25},
        ),
        (
            ("views", "{bag}", "--query", "a", "--out", "{out}", "--image", "/i", "--depth", "/d",
             "--camera-info", "/c", "--frame", "map", "--every", "0.5"),
            "lisa_ros.recordings.bag_views.read_bag",
            {"args": ["/i", "/d", "/c", "map", 0.5]},
        ),
        (
            ("views", "{views}", "--query", "a", "--out", "{out}", "--voxel", "0.02"),
            "lisa_ros.recordings.ask_views",
            {"args": ["a"], "up": "up", "voxel": 0.02},
        ),
        (
            ("serve", "--model", "nano", "--device", "cuda:1", "--host", "::1", "--port", "7",
             "--replicas", "2", "--max-replicas", "3", "--threads", "4", "--batch", "5",
             "--window", "6", "--queue", "70", "--max-pixels", "800", "--metrics-port", "9",
             "--tls-cert", "a.pem", "--tls-key", "b.pem", "--ray-address", "there"),
            "lisa_ros.serving.server.start",
            {"args": [
                ServeOptions(
                    {"model": "nano", "device": "cuda:1", "dtype": "auto", "quantization": None,
                     "vision_tower": None},
                    host="::1", port=7, replicas=2, max_replicas=3, threads=4, batch=5, window=6.0,
                    queue=70, max_pixels=800, metrics_port=9, tls_cert=Path("a.pem"),
                    tls_key=Path("b.pem"), ray_address="there",
                ),
                "secret",
            ]},
        ),
        (
            ("node", "--model", "7", "--device", "cpu", "--image", "/cam/image/compressed",
             "--depth", "/cam/depth/compressedDepth", "--camera-info", "/cam/info",
             "--namespace", "/one/", "--ros-args", "-p", "a:=1"),
            "lisa_ros.node.run.run",
            {"args": [["--ros-args", "-p", 'model.path:="7"', "-p", 'model.device:="cpu"',
                       "-p", 'input.transport:="compressed"', "-p", 'depth.transport:="compressed"',
                       "-r", "image:=/cam/image", "-r", "image/compressed:=/cam/image/compressed",
                       "-r", "depth:=/cam/depth",
                       "-r", "depth/compressedDepth:=/cam/depth/compressedDepth",
                       "-r", "camera_info:=/cam/info", "-r", "__ns:=/one", "-p", "a:=1"]]},
        ),
    ],
    ids=["segment", "bag", "views of a bag", "views", "serve", "node"],
)  # fmt: skip
def test_what_options_say_reaches_who_acts_on_it(
    words: tuple[str, ...],
    called: str,
    expected: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def reached(*args: object, **named: object) -> None:
        named |= {"args": list(args)[-len(expected["args"]) :]} if "args" in expected else {}
        raise Reached(named)

    Image.new("RGB", (64, 48)).save(tmp_path / "photo.png")
    monkeypatch.setattr("lisa_ros.recordings.views.read_folder", lambda folder: ([], "up"))
    monkeypatch.setattr("lisa_ros.engine.load.load_engine", lambda **_: None)
    monkeypatch.setenv("LISA_ROS_TOKEN", "secret")
    monkeypatch.setattr(called, reached)
    places = {
        "photo": tmp_path / "photo.png",
        "bag": Path(demo.__file__).with_name("tabletop.mcap"),
        "views": tmp_path,
        "out": tmp_path / "new",
    }
    with pytest.raises(Reached) as told:
        main([word.format(**places) for word in words])
    assert told.value.args[0] == expected
