"""What the node says about itself on `/diagnostics`, once a second."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import Counter, deque
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from lisa_ros.errors import LisaError
from lisa_ros.msg import Segmentation
from lisa_ros.node.follow_loop import FollowLoop
from lisa_ros.node.inputs.camera_watchdog import CameraWatchdog, Report
from lisa_ros.node.requests.queries import Queries
from lisa_ros.node.status import ANSWERED, Readiness, Status
from lisa_ros.node.worker import ModelWorker

PERIOD = 1.0  # seconds
REMEMBERED = 200  # results that the percentiles rest on
STAGES = (
    *("wait", "convert", "clip", "sam", "prefill", "decode", "mask", "geometry"),
    *("first_mask", "total"),
)
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Diagnostics:
    """Counts results and publishes the state of the node."""

    def __init__(
        self,
        node: Node,
        watchdog: CameraWatchdog,
        queries: Queries,
        following: FollowLoop,
        worker: ModelWorker,
        readiness: Readiness,
    ) -> None:
        self._node, self._watchdog = node, watchdog
        self._queries, self._worker, self._readiness = queries, worker, readiness
        self._following = following
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self.results: deque[Segmentation] = deque()
        """what has been published since the last look; any thread appends to it"""
        self._counts: Counter[str] = Counter()
        self._latencies = {stage: deque(maxlen=REMEMBERED) for stage in STAGES}
        self._last_error = ""
        self._level = OK
        self._due = time.monotonic() + PERIOD

    def _take_results(self) -> None:
        """Count what has been published meanwhile."""
        while self.results:
            message = self.results.popleft()
            status = Status(message.status)
            self._counts[status.name] += 1
            self._level = _level_of(status)
            if message.error:
                self._last_error = f"{status.name}: {message.error}"
            if status in ANSWERED:
                for stage in STAGES:
                    self._latencies[stage].append(getattr(message.timings, stage))

    def publish_soon(self) -> None:
        """The node's state has changed: let the next look not wait for the second to pass."""
        self._due = time.monotonic()

    def publish_if_due(self) -> None:
        """Publish, if a second has passed since the last time."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = max(self._due + PERIOD, now + PERIOD / 2)
        try:
            self._publisher.publish(self._message())
        except Exception:
            # What tells about the node's state must never be what changes it.
            self._node.get_logger().error(f"diagnostics\n{traceback.format_exc()}")

    def _message(self) -> DiagnosticArray:
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        name = self._node.get_fully_qualified_name().lstrip("/")
        parts: dict[str, Report] = {
            "model": self._model_report(),
            "camera": self._watchdog.camera(),
            "depth": self._watchdog.depth(),
            "queries": self._queries_report(),
        }
        for part, (level, message, values) in parts.items():
            array.status.append(
                DiagnosticStatus(
                    name=f"{name}: {part}",
                    level=level,
                    message=message,
                    hardware_id=name,
                    values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
                )
            )
        return array

    def _model_report(self) -> Report:
        """State of the life cycle, model and memory."""
        engine, busy, readiness = self._worker.engine, self._worker.busy, self._readiness
        device = str(engine.device) if engine else "none"
        values = {
            "state": readiness.state,
            "model": engine.name if engine else "none",
            "device": device,
            "answering for [s]": f"{time.monotonic() - busy.started:.1f}" if busy else "0",
            "memory [MB]": f"{resident_bytes() / 2**20:.0f}",
            "GPU memory [MB]": f"{gpu_bytes(device) / 2**20:.0f}",
        }
        if not readiness.not_ready_reason:
            return OK, "ready", values
        # What a user can mend is a warning, what he cannot is an error.
        mendable = readiness.failure is None or isinstance(readiness.failure, LisaError)
        return WARN if mendable else ERROR, readiness.not_ready_reason, values

    def _queries_report(self) -> Report:
        """Results by status, and where the time goes: median and 95th percentile per stage."""
        self._take_results()
        values: dict[str, Any] = {"waiting": self._queries.waiting}
        values["things followed"] = self._following.things
        values |= {f"ended {name}": count for name, count in sorted(self._counts.items())}
        for stage, samples in self._latencies.items():
            if samples:
                middle, high = np.percentile(samples, [50, 95])
                values[f"{stage} [ms]"] = f"median {middle:.1f}, 95 % {high:.1f}"
        values["last error"] = self._last_error
        return self._level, f"{self._counts.total()} answered", values


def _level_of(status: Status) -> bytes:
    """How bad it is that the last query ended so: an exception of the model is an error."""
    if status == Status.MODEL_ERROR:
        return ERROR
    return OK if status in (*ANSWERED, Status.CANCELLED) else WARN


def resident_bytes() -> int:
    """Memory of this process that lies in RAM; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def gpu_bytes(device: str) -> int:
    """Memory that torch holds on the model's GPU.

    Asked without a model it would meet torch half imported, while the model's thread loads it.
    """
    return sys.modules["torch"].cuda.memory_reserved() if device.startswith("cuda") else 0
