"""When an answer is broken off from outside."""

from __future__ import annotations

import time
from typing import Protocol


class Cancel(Protocol):
    """Anything like a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether the caller has lost interest."""


class Stop:
    """Called between passes: gives the reason to stop, or an empty string."""

    def __init__(self, cancel: Cancel | None, deadline: float | None) -> None:
        """`deadline` is a time of `time.monotonic()`."""
        self.cancel, self.deadline = cancel, deadline

    def __call__(self) -> str:
        if self.cancel is not None and self.cancel.is_set():
            return "cancel"
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "deadline"
        return ""
