"""`lisa-ros eval`: gIoU, cIoU, refusals, AP50 and names on our test set, or on the papers'.

Of sets of video it reports J, F, id switches and what else a robot asks of a tracker.
`lisa-ros data check`: which of the papers' sets are there and whole.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lisa_ros.cli import add_model_arguments, model_options, refuse_given
from lisa_ros.errors import LisaError, check_number, counted
from lisa_ros.image_files import figure_format
from lisa_ros.writing import writable_files, write_file

if TYPE_CHECKING:
    from lisa_ros.engine import Answer, Engine
    from lisa_ros.evaluation.evaluate import Sample
    from lisa_ros.evaluation.reasonseg import Item

COLUMNS = {
    "asked": "samples",
    "gIoU": "giou",
    "cIoU": "ciou",
    "refused\nrightly": "refusal_accuracy",
    "refused\nwrongly": "false_refusals",
    "AP50": "ap50",
    "names\nit": "named",
    "and its\ncolour": "named_with_color",
}

VIDEO_COLUMNS = {
    "clips": "clips",
    "J": "j",
    "F": "f",
    "J&F": "j_and_f",
    "id\nswitch": "switched",
    "wrong\nthing": "wrong",
    "found\nin 1 s": "found",
    "returns": "returns",
    "score\nerror": "calibration_error",
    "ms": "milliseconds",
}


STILL_OPTIONS = ("mode", "sheet", "reliability", "markdown", "split")
VIDEO_OPTIONS = ("begin", "tracker", "sam2", "clips")


def add_eval_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_model_arguments(parser)
    add(
        "--dataset",
        type=Path,
        metavar="DIR",
        help="folder of `lisa-ros sim-benchmark` or of ReasonSeg (default: the fixed test set,"
        " drawn the first time); or video: of `lisa-ros sim-clips`, DAVIS 2017, Ref-YouTube-VOS,"
        " MeViS, ReVOS; or with --root one of refcoco, refcoco+, refcocog, reasonseg,"
        " lisa_plus_instances",
    )
    add("--root", type=Path, metavar="ROOT", help="folder of the published sets (`lisa-ros data`)")
    add("--split", action="append", help="of a published set (default: all that the papers have)")
    add("--markdown", type=Path, metavar="FILE", help="write the papers' table, theirs beside ours")
    add(
        "--mode",
        choices=("auto", "mask", "explain", "semantic"),
        help="how to ask: auto lets the model decide (default); mask always wants a mask, as LISA's"
        " own evaluation does (default with --root); semantic: one mask for a category (LISA++)",
    )
    add("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    add("--sheet", type=Path, metavar="FILE", help="draw 40 answers as they fall (PNG, JPG, SVG)")
    add("--reliability", type=Path, metavar="FILE", help="draw how far scores can be trusted")
    video = parser.add_argument_group("video")
    video.add_argument(
        "--begin",
        choices=("mask", "instruction"),
        help="with the first true mask (default), or with what the model says about the first"
        " frame",
    )
    video.add_argument(
        "--tracker",
        action="append",
        choices=("lisa", "sam2", "every-frame"),
        help="who keeps the thing (default: lisa); every-frame: nobody, the model is asked anew"
        " about each image. Given twice: both, clip by clip in turns, and the ratio of their"
        " processor times",
    )
    video.add_argument("--sam2", metavar="DIR", help="folder of SAM 2 or EdgeTAM, for that tracker")
    video.add_argument("--clips", type=int, metavar="N", help="only the first N clips")


def run_eval(args: argparse.Namespace) -> int:
    """Ask, print the table, write what was asked for; 1 if there was what could not be asked."""
    if (args.split or args.markdown) and not args.root:
        raise LisaError("--split and --markdown are for published sets: give --root ROOT as well")
    written = (args.json, args.sheet, args.reliability, args.markdown)
    writable_files(*written, new_folder=True)
    for path in filter(None, (args.sheet, args.reliability)):
        figure_format(path)
    from lisa_ros.evaluation.reasonseg import read_dataset, tabletop
    from lisa_ros.evaluation.video_sets import is_video_set

    is_video = bool(args.dataset and not args.root and is_video_set(args.dataset))
    _check_options(args, is_video)
    if is_video:
        return _run_video(args)
    args.mode = args.mode or ("mask" if args.root else "auto")
    folder, items = args.dataset, []
    if args.root:
        from lisa_ros.evaluation.tables import published_items

        items = published_items(args.root, args.dataset.name if args.dataset else "", args.split)
    elif folder:
        items = read_dataset(folder)  # before torch is imported, which takes seconds
    else:
        ours = tabletop()
    from lisa_ros.engine.load import load_engine
    from lisa_ros.engine.question import check_mode
    from lisa_ros.evaluation import calibration
    from lisa_ros.evaluation.evaluate import report
    from lisa_ros.evaluation.plots import choose, contact_sheet, draw_reliability

    engine = load_engine(**model_options(args))
    check_mode(args.mode, engine.modes)
    if not items:
        folder = ours.drawn_once("benchmark")  # minutes: what the model lacks has been told by now
        items = read_dataset(folder)
    comparable = _comparable(folder) if all(item.ours for item in items) else ""
    chosen = choose(len(items))
    samples, shown = [], []
    for index, (sample, answer) in enumerate(ask(engine, items, args.mode)):
        samples.append(sample)
        if index in chosen and answer is not None:
            shown.append((sample, answer))
    asked, unasked = [s for s in samples if not s.fault], [s for s in samples if s.fault]
    results, scores = report(asked), calibration.figures(asked)
    _print_table("questions", COLUMNS, results)
    told = f"{counted(scores['masks'], 'mask')}, {scores['right']} of them right"
    error, separation = (_cell(scores[name]) for name in ("calibration_error", "separation"))
    print(f"scores of {told}: calibration error {error}, separation {separation}")
    found = {"model": args.model, "mode": args.mode, "questions": len(items)}
    found |= {"comparable": comparable, "results": results, "scores": scores}
    if unasked:
        found["unasked"] = {str(s.item.image): s.fault for s in unasked}
        found["results_with_unasked_as_zero"] = zeros = report(samples)
        _print_unasked(unasked, len(items), zeros)
    if comparable:
        print(comparable)
    if args.markdown:
        from lisa_ros.evaluation.tables import markdown

        write_file(args.markdown, markdown(args.dataset.name, args.model, samples))
    if args.json:
        write_file(args.json, json.dumps(found, indent=2) + "\n")
    if args.sheet:
        contact_sheet(shown, args.sheet)
    if args.reliability:
        draw_reliability(asked, args.reliability)
    return 1 if unasked else 0


def _check_options(args: argparse.Namespace, is_video: bool) -> None:
    """Raise `LisaError` for an option that this kind of data set would ignore."""
    kind, others = ("video", STILL_OPTIONS) if is_video else ("images", VIDEO_OPTIONS)
    refuse_given(args, others, f"for a set of {kind}")
    check_number("--clips", args.clips, 1)


def _comparable(folder: Path) -> str:
    """Whether figures on a set of ours can be compared with the published ones, as a sentence."""
    from lisa_ros.evaluation.reasonseg import tabletop

    try:
        sets = tabletop()
        return sets.compare(sets.summarise(folder))
    except LisaError as error:
        return f"Not compared with the fixed test set: {error}"


def ask(engine: Engine, items: Sequence[Item], mode: str) -> Iterator[tuple[Sample, Answer | None]]:
    """Ask every question, with a progress bar."""
    from rich.progress import Progress

    from lisa_ros.evaluation.evaluate import evaluate

    with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
        yield from progress.track(
            evaluate(engine, items, mode), total=len(items), description=f"asking ({mode})"
        )


def _print_unasked(unasked: Sequence[Sample], count: int, zeros: dict) -> None:
    """Name what could not be asked, and the figures in which it counts as wrong."""
    print(f"{len(unasked)} of {count} questions could not be asked and are not in these figures:")
    for sample in unasked:
        print(f"  {sample.item.split}/{sample.item.image.name}: {sample.fault}")
    for split, kinds in zeros.items():
        row = list(kinds.values())[-1]
        print(
            f"with them as zero, {split}: gIoU {_cell(row['giou'])}, cIoU {_cell(row['ciou'])}"
            f" of {row['samples']}"
        )


def _print_table(head: str, columns: dict[str, str], parts: dict[str, dict[str, dict]]) -> None:
    """The figures of each kind of question or clip, below the name of the part, if it has one."""
    from rich.console import Console

    from lisa_ros.text_tables import plain_table

    table = plain_table([head, *columns])
    for part, kinds in parts.items():
        if part:
            table.add_row(f"[bold]{part}")
        for kind, row in kinds.items():
            name = f"  {kind}" if part else kind
            table.add_row(name, *(_cell(row[column]) for column in columns.values()))
        table.add_section()
    Console().print(table)


def _cell(value: float | int | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def _run_video(args: argparse.Namespace) -> int:
    """Follow what is meant through every clip of a set; print and write the figures."""
    from collections import Counter

    from rich.progress import Progress

    from lisa_ros.engine.load import load_engine
    from lisa_ros.evaluation import video_scores
    from lisa_ros.evaluation.video_sets import read_clips
    from lisa_ros.serving.remote import RemoteEngine
    from lisa_ros.serving.remote_tracker import new_tracker
    from lisa_ros.tracking.follow import Follower, load_sam2
    from lisa_ros.tracking.tracker import MAX_TRACKS

    trackers = args.tracker or ["lisa"]
    sam2 = load_sam2(trackers, args.sam2)
    asked = {one: args.begin == "instruction" or one == "every-frame" for one in trackers}
    clips = read_clips(args.dataset)[: args.clips]
    if any(asked.values()) and not all(clip.instruction for clip in clips):
        raise LisaError(
            f"{args.dataset} has no words for its things, as DAVIS has none: take --begin mask and "
            "a tracker"
        )
    engine = load_engine(**model_options(args))
    # what a server computes is not this process's time
    clock = time.perf_counter if isinstance(engine, RemoteEngine) else time.process_time
    scores: dict[str, list[video_scores.ClipScore]] = {one: [] for one in trackers}
    counters: dict[str, Counter[str]] = {one: Counter() for one in trackers}
    with Progress(transient=True, disable=not sys.stdout.isatty()) as progress:
        # of several trackers each clip is done by one after the other, so that a busy moment of
        # the machine hits all of them
        turns = [(clip, one) for clip in clips for one in scores]
        for clip, tracker in progress.track(turns, description="following"):
            first = -1 if asked[tracker] else video_scores.first_mask(clip)
            if tracker == "every-frame":
                predict = video_scores.ask_every_frame(engine, clip)
                scores[tracker].append(video_scores.score_clip(clip, predict, first, clock))
                counters[tracker]["asked"] += len(clip.frames)
                continue
            network = sam2 if tracker == "sam2" else None
            follower = Follower(engine, new_tracker(engine, network)(MAX_TRACKS))
            predict = video_scores.follow(follower, clip, first)
            scores[tracker].append(
                video_scores.score_clip(clip, predict, first, clock, lambda f=follower: f.tracks)
            )
            counters[tracker].update(follower.tracker.counters)
            counters[tracker]["asked"] += follower.asked
    spent = (
        "processor time" if clock is time.process_time else "time, the server's and the network's"
    )
    found = {}
    for tracker, done in scores.items():
        results = video_scores.report_clips(done)
        if len(scores) > 1:
            print(f"{tracker}:")
        whole = {k: {**r, "milliseconds": round(r["milliseconds"])} for k, r in results.items()}
        _print_table("kind", VIDEO_COLUMNS, {"": whole})
        print(", ".join(f"{name} {count}" for name, count in sorted(counters[tracker].items())))
        found[tracker] = {
            "begin": "instruction" if asked[tracker] else "mask",
            "results": results,
            "counters": dict(counters[tracker]),
            "clips": {
                one.clip.name: {
                    "j": one.j.mean(1).tolist(),
                    "f": one.f.mean(1).tolist(),
                    "wrong": None if one.wrong is None else one.wrong.mean(1).tolist(),
                    "switches": one.switches,
                    "found_after": [s if math.isfinite(s) else None for s in one.found_after],
                }
                for one in done
            },
        }
    if len(scores) > 1:
        each = {one: sum(s.seconds * len(s.clip.frames) for s in scores[one]) for one in scores}
        *others, last = each
        for one in others:
            print(f"{one} takes {each[one] / each[last]:.3f} of the time of {last}")
    print(f"ms: {spent} of a frame, without reading it")
    if args.json:
        found = {"model": args.model, "ms": spent, "trackers": found}
        write_file(args.json, json.dumps(found, indent=2) + "\n")
    return 0


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=("check",))
    add("root", type=Path, metavar="ROOT", help="the folder that LISA's authors call dataset/")
    add("sets", nargs="*", metavar="SET", help="look for these alone (default: all)")
    add(
        "--pictures",
        type=int,
        default=100,
        metavar="N",
        help="of each set, draw the masks of N images spread over it (default: 100)",
    )


def run_data(args: argparse.Namespace) -> int:
    """Print the table and what to get where; 1 unless every set is whole.

    Those of LISA++ may be missing, where they are not asked for by name: LISA does without.
    """
    from rich.console import Console

    from lisa_ros.evaluation.dataset_types import faults
    from lisa_ros.evaluation.json_files import DatasetError
    from lisa_ros.evaluation.published import CATALOGUE, Source, open_published
    from lisa_ros.text_tables import plain_table

    if not args.root.is_dir():
        raise LisaError(f"there is no folder {args.root}")
    check_number("--pictures", args.pictures, 1)
    if unknown := [name for name in args.sets if name not in CATALOGUE]:
        raise LisaError(f"there is no set {unknown[0]}; there are {', '.join(CATALOGUE)}")
    table = plain_table(("data set", "is", "images", "asked for"))
    table.columns[1].justify = "left"
    table.add_column("licence")
    wrong: dict[str, list[str]] = {}
    needed: dict[Source, list[str]] = {}  # what is to be got, and for which sets
    code = 0
    for name in args.sets or CATALOGUE:
        known = CATALOGUE[name]
        absent = [one for one in known.sources if not (args.root / one.becomes).exists()]
        try:
            data = open_published(args.root, name)
        except DatasetError as error:
            state = "missing" if known.sources[0] in absent else "incomplete"
            table.add_row(name, state, "", "", known.licence)
            text = str(error).removeprefix(f"{name}: ")
            if state == "incomplete":
                wrong[name] = [text]
            # what is there but at fault is to be got anew: what the sentence names first
            places = {text.find(str(args.root / one.becomes)): one for one in known.sources}
            faulty = [places[place] for place in sorted(places) if place >= 0]
            for one in dict.fromkeys([*absent, *faulty[:1]]) or known.sources:
                needed.setdefault(one, []).append(name)
            if args.sets or known.group != "lisa_plus" or state == "incomplete":
                code = 1
            continue
        wrong[name] = faults(data, args.pictures)
        state = f"faults: {len(wrong[name])}" if wrong[name] else "whole"
        table.add_row(name, state, f"{len({*data.images}):,}", f"{data.things():,}", known.licence)
        code = 1 if wrong[name] else code
    Console(soft_wrap=True).print(table)
    for name, found in wrong.items():
        for sentence in found[:10]:
            print(f"{name}: {sentence}")
        if len(found) > 10:
            print(f"{name}: and {len(found) - 10} faults more")
    if needed:
        print(f"\nto get, for {args.root}:")
    for one, names in needed.items():
        print(f"{one.what} as {one.becomes}: for {', '.join(names)}; {one.licence}")
        print(f"  {one.address}")
    return code
