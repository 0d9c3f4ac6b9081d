"""`lisa-ros sim`: what people see first is a table that the shipped model answers well."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("mujoco") is None:
    pytest.skip("the simulator needs mujoco: pip install lisa_ros[sim]", allow_module_level=True)

from lisa_ros import load_engine
from lisa_ros.cli import main
from lisa_ros.errors import LisaError
from lisa_tabletop.cli.sim import SEED
from lisa_tabletop.language.instructions import compose
from lisa_tabletop.world.camera import TabletopCamera, View
from lisa_tabletop.world.tabletop import Tabletop


@pytest.fixture(scope="module")
def default_view() -> View:
    try:
        camera = TabletopCamera(Tabletop(SEED))
    except LisaError as error:
        pytest.skip(str(error))
    camera.move(np.random.default_rng((SEED, 1)))
    view = camera.look()
    camera.close()
    return view


def test_at_least_four_of_five_plain_questions_about_the_default_table_are_answered_right(
    default_view: View,
) -> None:
    engine = load_engine("nano")
    right = []
    for split in ("train", "test"):  # sentences that the model was trained on, and others
        random = np.random.default_rng(0)
        plain = {"types": {"plain": 1.0}, "forms": {"name": 1.0}}
        for question in compose(default_view.record, random, 5, split, **plain):
            answer = engine.segment(default_view.rgb, question["instruction"], key=SEED)
            meant = np.isin(default_view.instances, question["targets"])
            found = np.any([one.mask for one in answer.instances] or [meant & False], axis=0)
            right.append((meant & found).sum() > 0.5 * (meant | found).sum())
    assert len(right) == 10
    assert sum(right) >= 8, right


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--rate", "0"), "--rate must be above 0"),
        (("--seed", "-1"), "--seed must not be negative"),
    ],
)
def test_arguments_that_cannot_be_meant(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sim", *arguments]) == 2
    assert sentence in capsys.readouterr().err
