"""Clips of the simulated table: what each kind shows, what is written, whether it is the fixed set.

Six clips of a second, in all that is asserted here; the fixed ones have ten seconds each.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lisa_ros.cli import main
from lisa_ros.evaluation.video_scores import report_clips, score_clip
from lisa_ros.evaluation.video_sets import read_clips
from lisa_ros.image_files import read_samples
from lisa_tabletop.evaluation import fixed_clips
from lisa_tabletop.evaluation.fixed_clips import compare_clips, draw_clips, summarise_clips
from lisa_tabletop.world.moving_table import CLIP_KINDS, GONE, TWINS, Clip, glide


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    target = tmp_path_factory.mktemp("clips") / "six"
    draw_clips(target, clips=6, series=1, seconds=1.0, processes=2)
    return target


def things(folder, name):
    return [read_samples(p) for p in sorted((folder / "Things" / "480p" / name).iterdir())]


def test_what_happens_in_each_kind(folder):
    said = json.loads((folder / "clips.json").read_text())["clips"]
    assert [words["kind"] for words in said.values()] == list(CLIP_KINDS)[:6]
    for name, words in said.items():
        seen = np.array([(numbers == 1).sum() for numbers in things(folder, name)])
        assert len(seen) == 15
        assert seen[0] > 0 and seen[-1] > 0, name
        assert (seen[7] == 0) == (words["kind"] in GONE), name
        assert words["instruction"] and "[SEG]" in words["answer"]
        if words["kind"] in TWINS:
            assert words["things"][0].split()[-1] == words["things"][1].split()[-1]


def test_davis_readers_find_what_they_expect(folder):
    names = (folder / "ImageSets/2017/val.txt").read_text().split()
    for name in names:
        meant = Image.open(folder / "Annotations/480p" / name / "00000.png")
        assert meant.mode == "P" and meant.getpalette()[3:6] == [128, 0, 0]
        everything = read_samples(folder / "Things/480p" / name / "00000.png")
        assert np.array_equal(np.asarray(meant), (everything == 1).astype(np.uint8))
    clips = read_clips(folder)
    assert [clip.name for clip in clips] == names
    # stretched again, so that the gaps are gaps
    long = [replace(clip, rate=1.5) for clip in clips]
    perfect = [score_clip(c, lambda i, _, c=c: c.truth(i).masks, first=0) for c in long]
    row = report_clips(perfect)["all"]
    assert (row["j"], row["f"], row["switched"], row["wrong"]) == (1, 1, 0, 0)
    assert row["found"] == 1 and row["returns"] == 3
    twin = next(clip for clip in clips if clip.kind in TWINS)
    other = score_clip(twin, lambda i, _: (twin.truth(i).others == 2)[None], first=0)
    assert other.switches == 1 and other.wrong.all()


def test_two_trackers_in_turns_and_the_ratio_of_their_times(folder, tmp_path, capsys):
    """The shipped model; asked about each image it is asked as often as there are any."""
    command = ["eval", "--dataset", str(folder), "--clips", "1", "--begin", "instruction"]
    command += ["--tracker", "lisa", "--tracker", "every-frame", "--json", str(tmp_path / "a.json")]
    assert main(command) == 0
    assert "lisa takes 0." in capsys.readouterr().out
    found = json.loads((tmp_path / "a.json").read_text())["trackers"]
    assert found["every-frame"]["counters"] == {"asked": 15}
    followed = found["lisa"]
    assert followed["counters"]["asked"] < 5 and followed["counters"]["frames"] >= 14
    row = followed["results"]["camera"]
    assert 0 <= row["calibration_error"] <= 1 and row["clips"] == 1
    assert followed["results"].keys() == found["every-frame"]["results"].keys()


def test_a_clip_follows_from_its_seed(folder):
    name, words = next(iter(json.loads((folder / "clips.json").read_text())["clips"].items()))
    again = Clip(words["seed"], words["kind"], seconds=1.0)
    assert again.question["instruction"] == words["instruction"]
    written = json.loads((folder / "Scripts" / f"{name}.json").read_text())
    assert np.round(again.script.eye, 4).tolist() == written["eye"]


def test_the_hashes_say_what_differs(folder, monkeypatch, tmp_path, capsys):
    assert main(["sim-clips", str(folder), "--check"]) == 0
    assert "Not the 63 fixed clips" in capsys.readouterr().out
    summary = summarise_clips(folder)
    monkeypatch.setattr(fixed_clips, "FIXED", tmp_path / "fixed.json")
    (tmp_path / "fixed.json").write_text(json.dumps(summary))
    assert compare_clips(summary).startswith("These are the fixed clips")
    for part, words in (("masks", "the masks are not"), ("images", "the pixels are not")):
        other = {**summary, "sha256": {**summary["sha256"], part: "0"}}
        assert words in compare_clips(other)


def test_clips_are_not_written_over_something(folder, capsys):
    assert main(["sim-clips", str(folder), "--clips", "1"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["sim-clips", str(folder.parent / "new"), "--seed", "99"]) == 2
    assert "--seed must be from 0 to 19, it is 99" in capsys.readouterr().err


def test_motion_is_smooth_and_holds_its_keys():
    times = np.linspace(0, 1, 101)
    path = glide(times, [(0.2, np.zeros(2)), (0.5, np.array([1.0, -1.0])), (0.8, np.zeros(2))])
    assert not path[:21].any() and not path[80:].any()
    assert path[50].tolist() == [1.0, -1.0]
    assert np.abs(np.diff(path, axis=0)).max() < 0.07  # twice the mean speed, and no jump
