"""J and F beside the official code of DAVIS 2017 and MeViS; switches, returns, layouts, faults.

The expected figures were computed by those codes on the sets that video_samples.py makes up
(davis2017-evaluation with its task semi-supervised; tools/metrics.py of MeViS, which ReVOS shares).
"""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import video_samples
from video_samples import CLIPS, SIZE, disc, predict, write_davis, write_mevis

from lisa_ros.cli import main
from lisa_ros.engine.answer import Answer, AnswerStatus
from lisa_ros.errors import ServerUnreachable
from lisa_ros.evaluation.json_files import DatasetError
from lisa_ros.evaluation.video_scores import (
    boundary_measure,
    follow,
    jaccard,
    report_clips,
    score_clip,
)
from lisa_ros.evaluation.video_sets import Truth, VideoClip, read_clips
from lisa_ros.serving.remote import RemoteEngine
from lisa_ros.tracking.tracker import Track, TrackState

DAVIS = {  # J and F of every thing
    "bear": ([0.5903843514076759, 0.6529633380116484], [0.3966325742830989, 0.4350113691986512]),
    "two-dogs": ([0.6387078141566089, 0.715168965326143], [0.4879727006165103, 0.6288671011675018]),
}
DAVIS_MEAN = (0.649306117225519, 0.48712093631644054)
EXPRESSIONS = {
    "bear/0": (0.6569640743010258, 0.47351835476698734),
    "bear/1": (0.7032042257780887, 0.449884313406682),
    "two-dogs/0": (0.6989895139328104, 0.5346334196174921),
    "two-dogs/1": (0.7594843372067047, 0.5873040631637328),
}
LARGE = [  # of masks of 640x480 that touch the borders
    (1.0, 1.0),
    (0.8852641465736857, 0.9337293131562269),
    (0.726429514948403, 0.8779924920288718),
    (0.6112821948488242, 0.8287944062797566),
    (0.5685579769936417, 0.49217235269546433),
    (0.44854904512124044, 0.3358817508991552),
]


def test_davis_is_scored_as_its_own_code_scores_it(tmp_path):
    write_davis(tmp_path)
    scores = [score_clip(clip, predict(clip), first=0) for clip in read_clips(tmp_path)]
    for score in scores:
        j, f = DAVIS[score.clip.name]
        assert score.j.mean(1) == pytest.approx(j, abs=1e-6)
        assert score.f.mean(1) == pytest.approx(f, abs=1e-6)
    row = report_clips(scores)["davis"]
    assert (row["j"], row["f"]) == pytest.approx(DAVIS_MEAN, abs=1e-6)
    assert row["j_and_f"] == pytest.approx(sum(DAVIS_MEAN) / 2, abs=1e-6)


@pytest.mark.parametrize("layout", ["mevis", "revos", "youtube"])
def test_expressions_are_scored_as_mevis_scores_them(tmp_path, layout):
    if layout == "youtube":
        video_samples.write_youtube(tmp_path)
    else:
        write_mevis(tmp_path, revos=layout == "revos")
    clips = read_clips(tmp_path)
    assert {clip.name for clip in clips} == set(EXPRESSIONS)
    assert {clip.instruction for clip in clips} == {"the first", "both of them"}
    kinds = {"mevis": {"expression"}, "revos": {"referring", "reasoning"}, "youtube": {"train"}}
    assert {clip.kind for clip in clips} == kinds[layout]
    for clip in clips:
        score = score_clip(clip, predict(clip), first=-1)
        assert (score.j.mean(), score.f.mean()) == pytest.approx(EXPRESSIONS[clip.name], abs=1e-6)


def test_boundaries_of_large_masks():
    random = np.random.default_rng(5)
    for number, expected in enumerate(LARGE):
        noise = random.random((480, 640)).astype("float32")
        truth = cv2.GaussianBlur(noise, (0, 0), 20) > 0.5
        found = np.roll(truth, (number, -2 * number), (0, 1))
        found[: 40 * number] = False
        both = jaccard(found, truth), boundary_measure(found, truth)
        assert both == pytest.approx(expected, abs=1e-6)


def test_an_empty_mask_of_a_visible_thing_counts_nothing_and_of_an_unseen_one_all():
    nothing, something = np.zeros((72, 96), bool), disc(40, 30, 12)
    assert (jaccard(nothing, something), boundary_measure(nothing, something)) == (0, 0)
    assert (jaccard(something, nothing), boundary_measure(something, nothing)) == (0, 0)
    assert (jaccard(nothing, nothing), boundary_measure(nothing, nothing)) == (1, 1)


def clip_of(truths: list[Truth], folder: Path) -> VideoClip:
    video_samples.write_frames(folder)
    frame = folder / CLIPS[0] / "00000.jpg"
    return VideoClip("x", "x", [frame] * len(truths), "", 10.0, truths.__getitem__, joined=False)


def test_switches_wrong_frames_and_returns_are_counted(tmp_path):
    thing, other, nothing = disc(20, 30, 10), disc(60, 30, 10), np.zeros(SIZE[::-1], bool)
    numbers = (2 * other).astype(np.uint8)
    # seen for 5 frames, gone for 5, seen again for 20 at 10 a second
    seen = [thing] * 5 + [nothing] * 5 + [thing] * 20
    clip = clip_of([Truth(mask[None], numbers) for mask in seen], tmp_path)
    # keeps it, goes over to the other one, comes back, is gone for a while after the return
    masks = [thing] * 3 + [other] * 2 + [nothing] * 5 + [nothing] * 7
    masks += [other] * 2 + [thing] * 11
    score = score_clip(clip, lambda index, _: masks[index][None], first=0)
    assert score.switches == 2
    assert score.wrong.sum() == 4
    assert score.found_after == [pytest.approx(0.9)]
    row = report_clips([score])["x"]
    # the first frame was given away, the last does not count in this layout
    assert row["wrong"] == pytest.approx(4 / 28)
    assert (row["switched"], row["found"], row["returns"]) == (1, 1, 1)
    never = score_clip(clip, lambda index, _: (masks[index] & (index < 5))[None], first=0)
    assert never.found_after == [math.inf]
    assert report_clips([never, replace(score, switches=0)])["x"]["found"] == 0.5


def test_where_others_are_unknown_nothing_is_said_of_switches(tmp_path):
    write_mevis(tmp_path)
    [first, *_] = read_clips(tmp_path)
    row = report_clips([score_clip(first, predict(first), first=-1)])["expression"]
    assert row["switched"] is None and row["wrong"] is None


def no_list(folder: Path) -> None:
    (folder / "ImageSets" / "2017" / "val.txt").unlink()


def no_frames(folder: Path) -> None:
    for path in (folder / "JPEGImages" / "480p" / "bear").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("spoil", "words"), [(no_list, "val.txt is missing"), (no_frames, "frames of clip bear")]
)
def test_a_spoilt_set_is_one_sentence(tmp_path, spoil, words, capsys):
    write_davis(tmp_path)
    spoil(tmp_path)
    assert main(["eval", "--dataset", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_masks_that_are_fewer_than_frames_are_named(tmp_path):
    write_mevis(tmp_path)
    masks = json.loads((tmp_path / "mask_dict.json").read_text())
    masks["3"].pop()
    (tmp_path / "mask_dict.json").write_text(json.dumps(masks))
    with pytest.raises(DatasetError, match="no mask 3 for every frame of two-dogs"):
        read_clips(tmp_path)


META, MASKS = "meta_expressions.json", "mask_dict.json"
EXPRESSION = ("videos", "two-dogs", "expressions", "1")


@pytest.mark.parametrize(
    ("name", "way", "value", "where", "words"),
    [
        (META, ("videos",), ["bear"], "", "videos"),
        (META, ("videos", "bear"), {}, "line 2 (videos[bear])", "it has no 'frames'"),
        (META, ("videos", "bear", "frames"), [], "line 2 (videos[bear])", "a list of names"),
        (META, ("videos", "bear", "expressions"), None, "line 2 (videos[bear])", "expressions"),
        (META, EXPRESSION, {}, "line 2 (expressions[1])", "it has no 'exp'"),
        (META, (*EXPRESSION, "exp"), 5, "line 2 (expressions[1])", "exp must be words"),
        (META, (*EXPRESSION, "anno_id"), "?", "line 2 (expressions[1])", "'?'"),
        (META, (*EXPRESSION, "type_id"), [], "line 2 (expressions[1])", "list"),
        (MASKS, ("3",), None, "line 2 (3)", "no mask 3 for every frame of two-dogs"),
        (MASKS, ("2", 1), "??", "line 2 (2[1])", "00001.jpg is neither polygons nor"),
        (MASKS, ("2", 1), {"size": [72, 96]}, "line 2 (2[1])", "it has no 'counts'"),
        (MASKS, ("2", 1, "size"), [7, 9], "line 2 (2[1])", "of 9x7, its image of 96x72"),
        (MASKS, ("2", 1, "counts"), "1", "line 2 (2[1])", "counts 1 pixels, its image has 6912"),
        (MASKS, ("2", 1, "counts"), "oo", "line 2 (2[1])", "a compressed run-length code that is"),
        (MASKS, ("2", 1, "counts"), "\u00e9", "line 2 (2[1])", "is no compressed run-length code"),
        (MASKS, ("2", 1, "counts"), [6920, -8], "line 2 (2[1])", "counts a run of -8 pixels"),
        (MASKS, ("2", 1, "counts"), [6911.5, 0.5], "line 2 (2[1])", "a run of 6911.5 pixels"),
        (MASKS, (), [], "", "must be a table of masks"),
    ],
)
def test_an_entry_that_is_none_is_one_sentence_with_its_place(
    tmp_path, name, way, value, where, words
):
    write_mevis(tmp_path)
    path = tmp_path / name
    content = {"": json.loads(path.read_text())}
    parent, key = content, ""
    for step in way:
        parent, key = parent[key], step
    parent[key] = value
    # line 2 holds the entry that is at fault, line 1 all before it
    text = json.dumps(content[""])
    mark = {META: way[3:4] or way[1:2], MASKS: way[:1]}[name]
    lines = text.split(f'"{mark[0]}": ') if mark else [text]
    at = len(lines) - 1 if name == META else 1
    text = "".join(
        part if n == 0 else f'{chr(10) * (n == at)}"{mark[0]}": {part}'
        for n, part in enumerate(lines)
    )
    path.write_text(text)
    with pytest.raises(DatasetError) as caught:
        for clip in read_clips(tmp_path):
            score_clip(clip, predict(clip), first=-1)
    assert str(caught.value).startswith(f"{path}, {where}" if where else str(path))
    assert words in str(caught.value)


RATE, CLIP = (2, "rate"), (4, "clips[bear]")


@pytest.mark.parametrize(
    ("place", "changed", "words"),
    [
        *((RATE, {"rate": rate}, "a number of frames a second") for rate in (0, 0.3, -5, "24")),
        (RATE, {"rate": 1e999}, "Infinity is no number"),
        (CLIP, {"instruction": 5}, "instruction must be words"),
        (CLIP, {"kind": [1]}, "kind must be a word"),
        (CLIP, None, "must be a table of kind and instruction"),
        ((3, "clips"), [], "clips must be a table"),
    ],
)
def test_what_our_clips_say_is_judged_when_it_is_read(tmp_path, place, changed, words):
    write_davis(tmp_path)
    path, clip = tmp_path / "clips.json", {"kind": "still", "instruction": "the bear"}
    content = {"rate": 24, "clips": {"bear": clip}}
    path.write_text(json.dumps(content, indent=1))
    assert [(one.kind, one.rate) for one in read_clips(tmp_path)] == [("still", 24), ("davis", 24)]
    if place == CLIP:
        content["clips"]["bear"] = {**clip, **changed} if changed else changed
    else:
        content |= changed if place == RATE else {"clips": changed}
    path.write_text(json.dumps(content, indent=1))
    line, name = place
    with pytest.raises(DatasetError) as caught:
        read_clips(tmp_path)
    assert words in str(caught.value)
    assert words.startswith("Inf") or f"{path}, line {line} ({name}) does not" in str(caught.value)


def test_masks_of_another_size_than_their_image_are_said(tmp_path):
    video_samples.write_youtube(tmp_path)
    path = tmp_path / "train" / "Annotations" / "bear" / "00002.png"
    for image, words in ((np.zeros((9, 7), np.uint8), "its masks are of 7x9"),
                           (np.zeros((72, 96, 3), np.uint8), "is no map of things")):  # fmt: skip
        cv2.imwrite(str(path), image)
        clip = read_clips(tmp_path)[0]
        with pytest.raises(DatasetError, match=f"00002.*{words}"):
            score_clip(clip, predict(clip), first=-1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--clips", "0"], "--clips must be at least 1, it is 0"),
        (["--clips", "-3"], "--clips must be at least 1, it is -3"),
        (["--sam2", "x"], "--tracker sam2 as well"),
        (["--tracker", "sam2"], "needs --sam2 DIR"),
        (["--sheet", "x.png"], "--sheet has no meaning for a set of video"),
        (["--mode", "mask"], "--mode has no meaning for a set of video"),
    ],
)
def test_options_that_say_nothing_about_clips_are_refused(tmp_path, options, words, capsys):
    write_davis(tmp_path)
    assert main(["eval", "--dataset", str(tmp_path), *options]) == 2
    assert words in capsys.readouterr().err
    assert main(["eval", "--dataset", str(tmp_path / "images"), "--clips", "3"]) == 2
    assert "--clips has no meaning for a set of images" in capsys.readouterr().err


class Distant(RemoteEngine):
    """A server whose answers take time that this process does not spend."""

    def segment(self, image, instruction, **options):
        time.sleep(0.05)
        return Answer("", AnswerStatus.NOT_FOUND, [])


def test_the_time_of_a_server_counts(tmp_path, monkeypatch, capsys):
    write_mevis(tmp_path)
    monkeypatch.setattr(
        "lisa_ros.engine.load.load_engine", lambda **_: Distant("http://127.0.0.1:9")
    )
    command = ["eval", "--dataset", str(tmp_path), "--clips", "1", "--tracker", "every-frame"]
    assert main([*command, "--json", str(tmp_path / "out.json")]) == 0
    assert "the server's" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())["trackers"]["every-frame"]
    [row] = found["results"].values()
    assert row["milliseconds"] >= 50


class Gone:
    """A follower whose server answered once."""

    fault = "it does not answer"

    def begin(self, image, *, instances, **_):
        mask = instances[0].mask
        return [Track(1, "", mask, (0, 0, 1, 1), 1.0, TrackState.VISIBLE, 0.0, 0.0)]

    def update(self, image, **_):
        return []


def test_a_server_that_goes_away_has_not_lost_sight_of_things(tmp_path):
    write_mevis(tmp_path)
    clip = read_clips(tmp_path)[0]
    with pytest.raises(ServerUnreachable, match="is not scored: it does not answer"):
        score_clip(clip, follow(Gone(), clip, 0), 0)


def test_words_are_asked_for_where_there_are_none(tmp_path, capsys):
    write_davis(tmp_path)
    assert main(["eval", "--dataset", str(tmp_path), "--begin", "instruction"]) == 2
    assert "has no words for its things" in capsys.readouterr().err


def test_what_a_set_of_video_has_no_use_for_is_refused_at_once(tmp_path, capsys):
    write_davis(tmp_path)
    for option, value in (("--sheet", str(tmp_path / "s.png")), ("--mode", "auto")):
        assert main(["eval", "--dataset", str(tmp_path), option, value]) == 2
        assert f"{option} has no meaning for a set of video" in capsys.readouterr().err
