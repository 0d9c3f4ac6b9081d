"""What holds for all tests: nothing leaves this machine, drawing needs no screen."""

import os
from pathlib import Path

import numpy as np
import pytest

from lisa_ros.dds import use_large_image_transport

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
use_large_image_transport()


@pytest.fixture(scope="session")
def tokenizer():
    """One trained on the tabletop's sentences."""
    from lisa_ros.learn.nano import train_tokenizer
    from lisa_ros.sim.instructions import corpus

    questions = corpus(np.random.default_rng(0), 4000)
    return train_tokenizer(q[key] for q in questions for key in ("instruction", "answer"))


@pytest.fixture(scope="session")
def view():
    """The picture of drawn_questions.py."""
    from drawn_questions import drawn_view

    return drawn_view()


@pytest.fixture
def dataset(view, tmp_path) -> Path:
    """The questions of drawn_questions.py on disk."""
    from drawn_questions import drawn_dataset

    return drawn_dataset(tmp_path / "set", view)
