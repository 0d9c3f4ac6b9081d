"""A stage of nano's training that learns nothing, for processes of their own to run."""

import time
from argparse import Namespace

from lisa_ros.training.loop import _stop_asked


def stage_that_saves(name: str, args: Namespace, threads: int) -> None:
    """Saves when it is told to stop: one named slow three seconds later."""
    with _stop_asked() as stop:
        (args.folder / f"{name} began").touch()
        assert stop.wait(400)
        time.sleep(3 if name == "slow" else 0)
        (args.folder / f"{name} saved").touch()
        raise KeyboardInterrupt
