"""The other processes of the demonstration: the perception node and the recorded camera."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from lisa_ros.demo.recording import IMAGE
from lisa_ros.errors import LisaError

LOG_LINES = 15  # of a failed process, shown to the user


class ProcessEnded(LisaError):
    """One of the processes has ended before its time."""


class Processes:
    """Both processes, from entering a `with` block until leaving it."""

    def __init__(self, model: str, folder: Path) -> None:
        """`folder` takes the log of each process."""
        node = f"lisa_ros.cli node --image {IMAGE} --model".split()
        self._commands = {
            "perception node": [sys.executable, "-m", *node, model],
            "recorded camera": [sys.executable, "-m", "lisa_ros.demo.player"],
        }
        self._folder = folder
        self._running: dict[str, subprocess.Popen[str]] = {}

    def __enter__(self) -> Processes:
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        for name, command in self._commands.items():
            with self.log_of(name).open("w", encoding="utf-8") as log:
                self._running[name] = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE if name == "recorded camera" else log,
                    stderr=log,
                    text=True,
                )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._running.values():
            process.terminate()
        for process in self._running.values():
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def log_of(self, name: str) -> Path:
        """The file that holds what a process has written."""
        return self._folder / f"{name.replace(' ', '_')}.log"

    def tail_of(self, name: str) -> str:
        """The end of that file."""
        lines = self.log_of(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-LOG_LINES:])

    def check(self) -> None:
        """Raise `ProcessEnded` if one of them runs no more."""
        for name, process in self._running.items():
            if process.poll() is not None:
                raise ProcessEnded(
                    f"the {name} has ended with code {process.returncode}:\n{self.tail_of(name)}"
                )

    def show(self, seed: int) -> int:
        """Let the camera show a scene; returns the stamp of its first picture in nanoseconds."""
        camera = self._running["recorded camera"]
        try:
            camera.stdin.write(f"{seed}\n")
            camera.stdin.flush()
            for line in camera.stdout:
                shown, stamp = line.split()
                if int(shown) == seed:
                    return int(stamp)
        except BrokenPipeError:
            pass
        camera.wait()
        self.check()
        raise AssertionError("check raises, as the camera has ended")
