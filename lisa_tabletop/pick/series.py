"""Many trials, one after another, each on a table of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from lisa_ros.errors import LisaError
from lisa_tabletop.pick.film import Film
from lisa_tabletop.pick.scene import UNCLUTTERED_GAP, PickScene, question_about, scene_seeds
from lisa_tabletop.pick.trial import Perception, Trial, run_trial
from lisa_tabletop.world.camera_model import simulate


@dataclass(frozen=True)
class Series:
    """Which scenes and questions.

    Attributes:
        run: decides everything but the answers.
        uncluttered: a few objects, each with `UNCLUTTERED_GAP` around it.
        absent: whether things that are not there are asked for, too.
        split: "train" or "test" sentences.
    """

    run: int
    uncluttered: bool = False
    absent: bool = True
    split: str = "test"


def run_trials(series: Series, count: int, perception: Perception, film: Film) -> Iterator[Trial]:
    """`count` trials; scenes of which nothing can be asked are passed over.

    Raises:
        LisaError: the series has not so many scenes.
    """
    done = 0
    for seed in scene_seeds(series.run):
        if done == count:
            return
        trial = _trial(seed, series, perception, film)
        if trial is not None:
            done += 1
            yield trial
    if done < count:
        raise LisaError(f"one run has scenes for {done} trials only: ask for fewer")


def _trial(seed: int, series: Series, perception: Perception, film: Film) -> Trial | None:
    """None if the scene of this seed is not to be used."""
    scene = PickScene(seed, series.uncluttered, film.watch)
    if series.uncluttered and scene.gap() < UNCLUTTERED_GAP:
        return None
    camera = scene.open_camera()
    try:
        view = camera.look()
        view = replace(view, rgb=simulate(view.rgb, np.random.default_rng((seed, 3))))
        question = question_about(view, seed, series.absent, series.split)
        if question is None:
            return None
        film.begin(camera, view, question)
        trial = run_trial(scene, view, question, perception, film.planned)
        film.end(trial)
        return trial
    finally:
        camera.close()
