"""Many trials, each on a table of its own, and what they come to: a table for people, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
from rich.table import Table

from lisa_ros.errors import LisaError
from lisa_ros.writing import write_file
from lisa_tabletop.pick.disturb import HANDS, Disturbance
from lisa_tabletop.pick.film import Film
from lisa_tabletop.pick.scene import UNCLUTTERED_GAP, PickScene, question_about, scene_seeds
from lisa_tabletop.pick.trial import Perception, PickOutcome, Trial, run_trial
from lisa_tabletop.world.camera import SceneView
from lisa_tabletop.world.camera_model import simulate

# Instructions that name the thing or imply it, which is what a robot is mostly told.
PLAIN_AND_IMPLICIT = ("plain", "attribute", "use")


@dataclass(frozen=True)
class Series:
    """Which scenes and questions.

    Attributes:
        run: decides everything but the answers.
        uncluttered: a few objects, each with `UNCLUTTERED_GAP` around it.
        absent: whether things that are not there are asked for, too.
        split: "train" or "test" sentences.
        disturb: each scene three times, once for each of `HANDS`.
    """

    run: int
    uncluttered: bool = False
    absent: bool = True
    split: str = "test"
    disturb: bool = False


def run_trials(series: Series, count: int, perception: Perception, film: Film) -> Iterator[Trial]:
    """Trials on `count` scenes; scenes of which nothing can be asked are passed over.

    Raises:
        LisaError: the series has not so many scenes.
    """
    done = 0
    for seed in scene_seeds(series.run):
        if done == count:
            return
        trials = [
            trial
            for hand in (HANDS if series.disturb else ("",))
            if (trial := _trial(seed, series, perception, film, hand)) is not None
        ]
        done += bool(trials)
        yield from trials
    if done < count:
        raise LisaError(f"one run has scenes for {done} trials only: ask for fewer")


def _trial(
    seed: int, series: Series, perception: Perception, film: Film, hand: str
) -> Trial | None:
    """None if the scene of this seed is not to be used."""
    scene = PickScene(seed, series.uncluttered, film.watch)
    if series.uncluttered and scene.gap() < UNCLUTTERED_GAP:
        return None
    camera = scene.open_camera()
    try:
        noise = np.random.default_rng((seed, 3))

        def look() -> SceneView:
            view = camera.look()
            return replace(view, rgb=simulate(view.rgb, noise))

        view = look()
        question = question_about(view, seed, series.absent, series.split)
        if question is None:
            return None
        disturbance = None
        if hand in HANDS[1:]:
            disturbance = Disturbance(scene, look, follows=hand == "following")
        film.begin(camera, view, question, hand)
        trial = run_trial(scene, view, question, perception, film.planned, disturbance)
        trial = replace(trial, hand=hand)
        film.end(trial)
        return trial
    finally:
        camera.close()


def count(trials: Sequence[Trial]) -> dict[str, int | float | None]:
    """Numbers of trials with a thing to lift, apart from those that the gripper cannot hold.

    `rate` is the part of the others that were lifted, None where there are none.
    """
    fair = [trial for trial in trials if trial.can_be_held]
    lifted = sum(trial.outcome is PickOutcome.LIFTED for trial in fair)
    return {
        "trials": len(trials),
        "cannot_be_held": len(trials) - len(fair),
        "lifted": lifted,
        "wrong": sum(trial.outcome is PickOutcome.WRONG for trial in fair),
        "missed": sum(trial.outcome in (PickOutcome.MISSED, PickOutcome.PUSHED) for trial in fair),
        "refused": sum(trial.outcome is PickOutcome.REFUSED for trial in fair),
        "no_answer": sum(trial.outcome is PickOutcome.FAILED for trial in fair),
        "rate": lifted / len(fair) if fair else None,
    }


def count_absent(trials: Sequence[Trial]) -> dict[str, int | float | None]:
    """Numbers of trials in which what was asked for is not there; `rate`: rightly refused."""
    refused = sum(trial.right for trial in trials)
    no_answer = sum(trial.outcome is PickOutcome.FAILED for trial in trials)
    return {
        "trials": len(trials),
        "refused": refused,
        "grasped": len(trials) - refused - no_answer,
        "no_answer": no_answer,
        "rate": refused / len(trials) if trials else None,
    }


def summary(trials: Sequence[Trial]) -> dict[str, dict]:
    """Counts by kind of instruction, and over several kinds."""
    present = [trial for trial in trials if trial.meant]
    kinds = sorted({trial.kind for trial in present})
    result = {kind: count([trial for trial in present if trial.kind == kind]) for kind in kinds}
    groups = {
        "plain and implicit": [t for t in present if t.kind in PLAIN_AND_IMPLICIT],
        "all": present,
    }
    result |= {name: count(group) for name, group in groups.items()}
    absent = [trial for trial in trials if not trial.meant]
    if absent:
        result["absent"] = count_absent(absent)
    return result


def table(trials: Sequence[Trial], title: str) -> Table:
    """The summary to look at."""
    shown = Table(title=title, title_justify="left", caption_justify="left")
    shown.add_column("instruction", no_wrap=True)
    for name in ("trials", "too big", "lifted", "wrong", "missed", "refused", "silent", "rate"):
        shown.add_column(name, justify="right", no_wrap=True)
    counts = summary(trials)
    absent = counts.pop("absent", None)
    keys = ("trials", "cannot_be_held", "lifted", "wrong", "missed", "refused", "no_answer")
    for kind, row in counts.items():
        cells = [str(row[key] or "") for key in keys]
        style = "bold" if kind in ("plain and implicit", "all") else ""
        name, last = kind.replace("_", " "), kind == "all"
        shown.add_row(name, *cells, _percent(row["rate"]), end_section=last, style=style)
    if absent:
        cells = [str(absent["trials"]), "", "", str(absent["grasped"] or ""), "",
                 str(absent["refused"] or ""), str(absent["no_answer"] or "")]  # fmt: skip
        shown.add_row("not there", *cells, _percent(absent["rate"]))
    waits = [trial.answer_seconds for trial in trials]
    shown.caption = (
        "too big: for the gripper, whatever was answered; not counted in the columns that follow.\n"
        "wrong: something else was lifted. missed: it was not touched, or it slipped.\n"
        "rate: of those that were not too big. Where the thing is not there: rightly refused.\n"
        f"median time to an answer: {median(waits):.2f} s"
    )
    return shown


def save(path: Path, trials: Sequence[Trial], settings: dict) -> None:
    """Settings, summary and every trial as JSON.

    Raises:
        WriteError: it cannot be written.
    """
    rows = [
        asdict(trial) | {"outcome": trial.outcome.value, "right": trial.right} for trial in trials
    ]
    counts = {hand: summary(group) for hand, group in by_hand(trials).items()}
    content = {"settings": settings, "summary": counts.get("", counts), "trials": rows}
    write_file(path, json.dumps(content, indent=1) + "\n")


def by_hand(trials: Sequence[Trial]) -> dict[str, list[Trial]]:
    """The trials of each of `HANDS`, or all of them under an empty name."""
    return {
        hand: group
        for hand in ("", *HANDS)
        if (group := [trial for trial in trials if trial.hand == hand])
    }


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.0f} %"
