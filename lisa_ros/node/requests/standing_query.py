"""What the node asks by itself: a standing query, and images encoded before anybody asks."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
from rclpy.clock import Clock
from rclpy.node import Node

from lisa_ros.errors import ImageError
from lisa_ros.msg import Segmentation
from lisa_ros.node.follow_loop import FollowLoop
from lisa_ros.node.inputs.camera import CameraInput
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.queries import Queries
from lisa_ros.node.requests.query import Query
from lisa_ros.node.results.tracks import Following
from lisa_ros.node.status import Readiness, Status
from lisa_ros.node.worker import ModelWorker

LOOK_PERIOD = 0.1  # seconds between two looks whether it is time, or whether the image has changed
GRID = 24  # samples along each side of the image by which a change is noticed
CHANGED = 4.0  # mean difference of these samples, of 255, that is more than a camera's noise


class StandingQuery:
    """Asks `standing.instruction` every `standing.period` seconds, or for every changed image.

    It gives way: while any query waits or is being answered it does not ask. Likewise it has the
    newest image encoded ahead (`model.prepare_frames`) whenever the model would be idle.
    """

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        camera: CameraInput,
        queries: Queries,
        following: FollowLoop,
        worker: ModelWorker,
        readiness: Readiness,
        clock: Clock,
    ) -> None:
        self._parameters, self._camera, self._queries = parameters, camera, queries
        self._loop, self._worker, self._readiness = following, worker, readiness
        self._followed: Following | None = None
        self._asked = 0.0
        self._seen: np.ndarray | None = None
        self._timer = node.create_timer(LOOK_PERIOD, self._look, clock=clock)

    @property
    def _encodes_ahead(self) -> bool:
        return self._parameters["model.prepare_frames"] and self._worker.can_prefetch

    def wake(self) -> None:
        """Look anew whether there is anything to do; called once a second."""
        if not self._parameters["standing.instruction"]:
            self._end_following()
        if self._parameters["standing.instruction"] or self._encodes_ahead:
            self._timer.reset()
        else:
            self._timer.cancel()  # ten wake-ups a second would be most of what an idle node costs

    def _look(self) -> None:
        self._ask_if_due()
        idle = self._queries.idle and self._loop.idle
        if self._encodes_ahead and self._readiness.state == "active" and idle:
            self._worker.prefetch_newest()

    def _ask_if_due(self) -> None:
        instruction = self._parameters["standing.instruction"]
        if self._followed is not None and not self._followed.ended:
            if self._parameters["standing.follow"] and self._followed.instruction == instruction:
                return
            self._end_following()
        if not instruction or self._readiness.state != "active" or not self._queries.idle:
            return
        period = self._parameters["standing.period"]
        if period > 0 and time.monotonic() - self._asked < period:
            return
        frame = self._camera.newest()
        if period == 0 and (frame is None or not self._has_changed(frame)):
            return
        self._asked = time.monotonic()
        query = self._queries.new(instruction, Segmentation.SOURCE_STANDING)
        if self._parameters["standing.follow"]:
            self._follow(query)
        self._queries.ask(query)

    def _follow(self, query: Query) -> None:
        """Follow what the query finds, until it is lost; then it is asked again."""
        one = Following(
            query_id=query.id,
            instruction=query.instruction,
            source=query.source,
            stamp=query.stamp,
            limit=self._parameters["follow.lost_timeout"],
        )
        query.on_result = partial(self._loop.begin_with_answer, one, query)
        self._followed = one
        self._loop.take_up(one)

    def _end_following(self) -> None:
        if self._followed is not None:
            sentence = "standing.instruction or standing.follow has changed"
            self._loop.end(self._followed, Status.CANCELLED, sentence)
            self._followed = None

    def _has_changed(self, frame: Frame) -> bool:
        """Whether the image differs from the one that was asked about last."""
        try:
            pixels = frame.pixels(self._parameters["input.max_pixels"])
        except ImageError:
            return False
        rows, columns = (np.linspace(0, side - 1, GRID).astype(int) for side in pixels.shape[:2])
        samples = pixels[np.ix_(rows, columns)].astype(np.float32)
        before = self._seen
        if before is not None and np.abs(samples - before).mean() < CHANGED:
            return False
        self._seen = samples
        return True
