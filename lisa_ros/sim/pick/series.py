"""Many trials, one after another, each on a table of its own."""

from __future__ import annotations

from collections.abc import Iterator

from lisa_ros.errors import LisaError
from lisa_ros.sim.pick.film import Film
from lisa_ros.sim.pick.scene import UNCLUTTERED_GAP, PickScene, question_about, scene_seeds
from lisa_ros.sim.pick.trial import Perception, Trial, run_trial


def run_trials(
    run: int, count: int, perception: Perception, film: Film, *, uncluttered: bool, absent: bool
) -> Iterator[Trial]:
    """`count` trials; scenes of which nothing can be asked are passed over.

    Args:
        run: the number of the run; it decides everything but the perception's answers.
        uncluttered: a few objects, each with `UNCLUTTERED_GAP` around it.
        absent: whether things that are not there are asked for, too.
    """
    done = 0
    for seed in scene_seeds(run):
        if done == count:
            return
        trial = _trial(seed, perception, film, uncluttered, absent)
        if trial is not None:
            done += 1
            yield trial
    if done < count:
        raise LisaError(f"one run has scenes for {done} trials only: ask for fewer")


def _trial(
    seed: int, perception: Perception, film: Film, uncluttered: bool, absent: bool
) -> Trial | None:
    """None if the scene of this seed is not to be used."""
    scene = PickScene(seed, uncluttered, film.watch)
    if uncluttered and scene.gap() < UNCLUTTERED_GAP:
        return None
    camera = scene.open_camera()
    try:
        view = camera.look()
        question = question_about(view, seed, absent)
        if question is None:
            return None
        film.begin(camera, view, question)
        trial = run_trial(scene, view, question, perception, film.planned)
        film.end(trial)
        return trial
    finally:
        camera.close()
