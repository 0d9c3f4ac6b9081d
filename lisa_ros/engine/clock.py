"""Where the time of an answer goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import torch


class Clock:
    """Milliseconds per stage. On a GPU they come from events, so that timing waits for nothing."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.started = perf_counter()
        self.stages: dict[str, float] = defaultdict(float)
        self.events: list[tuple[str, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a `with` block to a stage."""
        if self.device.type != "cuda":
            begin = perf_counter()
            yield
            self.stages[name] += 1000 * (perf_counter() - begin)
            return
        first = torch.cuda.Event(enable_timing=True)
        last = torch.cuda.Event(enable_timing=True)
        first.record(torch.cuda.current_stream(self.device))
        yield
        last.record(torch.cuda.current_stream(self.device))
        self.events.append((name, first, last))

    def mark(self, name: str) -> None:
        """Note the time since the question, once."""
        self.stages.setdefault(name, 1000 * (perf_counter() - self.started))

    def timings(self) -> dict[str, float]:
        """All stages so far, and the total."""
        for name, first, last in self.events:
            last.synchronize()
            self.stages[name] += first.elapsed_time(last)
        self.events.clear()
        total = 1000 * (perf_counter() - self.started)
        return {**self.stages, "total": total}
