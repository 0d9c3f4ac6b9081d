"""What `lisa-ros sim-pick` shows and writes: table, video, contact sheet, JSON; its refusals."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

import cv2
from PIL import Image, ImageSequence

from lisa_ros.cli import main
from lisa_ros.errors import LisaError
from lisa_tabletop.pick import film
from lisa_tabletop.pick.film import MOST_TILES, Tile, save_contact_sheet
from lisa_tabletop.pick.series import summary
from lisa_tabletop.pick.trial import PickOutcome, Trial


def trial(
    kind: str, outcome: PickOutcome, meant: str = "red mug", can_be_held: bool = True
) -> Trial:
    return Trial(
        1, kind, "the mug", "It is it.", "OK", meant, can_be_held, outcome, "", [], 0.5, 1.0
    )


def test_what_is_not_there_has_verdicts_of_its_own() -> None:
    absent = {"kind": "absent", "meant": ""}
    assert film.verdict(trial(outcome=PickOutcome.REFUSED, **absent)) == "rightly refused"
    assert film.verdict(trial(outcome=PickOutcome.MISSED, **absent)) == "not there, but reached for"
    taken = replace(trial(outcome=PickOutcome.WRONG, **absent), taken=["red mug"])
    assert film.verdict(taken) == "not there, but lifted: red mug"
    assert film.verdict(trial("use", PickOutcome.REFUSED)) == "refused, but there is the red mug"


def test_the_report_keeps_apart_what_cannot_be_held_and_what_is_not_there() -> None:
    counts = summary(
        [
            trial("plain", PickOutcome.LIFTED),
            trial("plain", PickOutcome.MISSED, can_be_held=False),
            trial("use", PickOutcome.WRONG),
            trial("relation", PickOutcome.REFUSED),
            trial("absent", PickOutcome.REFUSED, meant=""),
            trial("absent", PickOutcome.WRONG, meant=""),
        ]
    )
    assert counts["plain"] == {
        "trials": 2, "cannot_be_held": 1, "lifted": 1, "wrong": 0, "missed": 0, "refused": 0,
        "no_answer": 0, "rate": 1.0,
    }  # fmt: skip
    assert counts["plain and implicit"]["rate"] == 0.5
    assert counts["all"]["trials"] == 4 and counts["all"]["refused"] == 1
    assert counts["absent"] == {
        "trials": 2, "refused": 1, "grasped": 1, "no_answer": 0, "rate": 0.5
    }  # fmt: skip


def test_the_command_writes_table_video_sheet_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(film, "PERIOD", 0.7)  # images take most of the time,
    monkeypatch.setattr(film, "CODECS", ("mp4v",))  # and so does the good codec
    arguments = ["sim-pick", "--perfect", "--trials", "2", "--seed", "91", "--filmed", "1"]
    assert main([*arguments, "--uncluttered", "--output", str(tmp_path)]) == 0
    assert "lifted" in capsys.readouterr().out
    written = json.loads((tmp_path / "pick.json").read_text())
    assert len(written["trials"]) == 2
    assert written["summary"]["all"]["trials"] == 2
    assert written["settings"]["seed"] == 91
    video = cv2.VideoCapture(str(tmp_path / "pick.mp4"))
    images = []
    while (image := video.read()[1]) is not None:
        images.append(image)
    assert images[0].shape == (540, 960, 3)
    assert len(images) > film.ASKING + film.ANSWERED + film.ENDED
    assert not np.array_equal(images[0], images[-1])
    assert cv2.imread(str(tmp_path / "pick.jpg")).shape[2] == 3
    with Image.open(tmp_path / "pick.gif") as animation:
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(animation)]
    assert abs(sum(shown) / 1000 - len(images) / film.RATE) < 0.1 + 0.005 * len(shown)
    assert len(shown) < len(images) / 2


def test_a_long_run_still_has_a_sheet(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    tiles = [Tile(trial("plain", PickOutcome.LIFTED), image, image)] * (MOST_TILES + 40)
    save_contact_sheet(tmp_path / "sheet.jpg", tiles)
    assert (tmp_path / "sheet.jpg").stat().st_size > 0
    with pytest.raises(LisaError, match="cannot write"):
        save_contact_sheet(tmp_path / "sheet.jpg" / "sheet.jpg", tiles)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--trials", "0"), "--trials must be at least 1, it is 0"),
        (("--trials", "-3"), "--trials must be at least 1, it is -3"),
        (("--seed", "-1"), "--seed must be from 0 to 99, it is -1"),
        (("--filmed", "-1"), "--filmed must be at least 0, it is -1"),
    ],
)
def test_arguments_that_cannot_be_meant(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim-pick", *arguments, "--output", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_no_folder_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["sim-pick", "--perfect", "--output", str(tmp_path / "file")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_a_model_that_is_missing_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "lisa_ros.cli", "sim-pick", "--trials", "1"]
    command += ["--model", str(tmp_path / "nothing_here"), "--output", str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert ended.returncode == 2
    assert "nothing_here" in ended.stderr and "Traceback" not in ended.stderr
