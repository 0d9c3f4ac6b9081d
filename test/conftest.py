"""What holds for all tests: nothing leaves this machine, drawing needs no screen."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from lisa_ros.resources import use_large_image_transport

# In the background of a script SIGINT is ignored, and would be by all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
use_large_image_transport()


@pytest.fixture(scope="session")
def tokenizer():
    """One trained on the tabletop's sentences."""
    from corpus import corpus

    from lisa_tabletop.training.nano import train_tokenizer

    questions = corpus(np.random.default_rng(0), 4000)
    return train_tokenizer(q[key] for q in questions for key in ("instruction", "answer"))


@pytest.fixture(scope="session")
def view():
    """The image of drawn_questions.py."""
    from drawn_questions import drawn_view

    return drawn_view()


@pytest.fixture
def dataset(view, tmp_path) -> Path:
    """The questions of drawn_questions.py on disk."""
    from drawn_questions import drawn_dataset

    return drawn_dataset(tmp_path / "set", view)


@pytest.fixture(scope="module")
def masks(tmp_path_factory) -> str:
    """The node's parameter for the true mask of the scene of depth_rig.py."""
    from depth_rig import true_mask

    return true_mask(tmp_path_factory.mktemp("masks"))


@pytest.fixture(scope="module")
def camera(masks):
    """A camera with depth over that scene, and a node that hears it (depth_rig.py)."""
    from depth_rig import DepthCamera
    from node_rig import rig

    with rig() as robot:
        robot.start("-p", masks, "-p", "depth.slop:=0.1")
        yield DepthCamera(robot)
        assert "Traceback" not in robot.processes[0].log
