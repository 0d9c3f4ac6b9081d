"""Things that are followed from image to image, from their beginning to their one end.

A pump watches the camera while anything is followed and gives each newest image to the model's
thread, one at a time: what comes meanwhile is dropped, and queries that wait take turns with it.
All seconds here count by the arrival of images, so stamps that are missing, repeat or jump change
nothing but what the tracker makes of them.
"""

from __future__ import annotations

import itertools
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from functools import partial
from typing import Any

import numpy as np
from rclpy.node import Node

from lisa_ros.errors import ImageError, LisaError, counted
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.camera import CameraInput
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.query import Outcome, Query
from lisa_ros.node.results.objects3d import Localizer
from lisa_ros.node.results.tracks import (
    FollowedThing,
    Following,
    Places,
    TrackPublishers,
    track_message,
)
from lisa_ros.node.status import NotAnswered, Readiness, Status
from lisa_ros.node.worker import ModelWorker
from lisa_ros.tracking.follow import FollowConfig, Follower
from lisa_ros.tracking.tracker import Track, TrackState

POLL = 0.002  # seconds between two looks for a new image
LOOK_PERIOD = 0.1  # seconds between two looks for what is overdue while the model is at work
REMEMBERED = 4  # answers whose instances can still be followed
HIGHEST_NUMBER = 255  # what a pixel of `tracks/labels` can hold


class FollowLoop:
    """Everything that is being followed.

    `begin` and what it calls belong to the model's thread; `end` and `end_all` may be called from
    any.
    """

    def __init__(
        self,
        node: Node,
        parameters: Parameters,
        camera: CameraInput,
        localizer: Localizer,
        worker: ModelWorker,
        readiness: Readiness,
    ) -> None:
        self._node, self._parameters, self._readiness = node, parameters, readiness
        self._camera, self._localizer, self._worker = camera, localizer, worker
        self._publishers = TrackPublishers(node)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._taken_up: list[Following] = []
        self._pump: threading.Thread | None = None
        self.answers: deque[tuple[Query, Outcome]] = deque(maxlen=REMEMBERED)
        """the last about the camera's images, whose instances can still be followed"""

    @property
    def idle(self) -> bool:
        """Whether nothing is followed, or waits for it."""
        return not self._taken_up

    @property
    def things(self) -> int:
        """That are being followed."""
        with self._lock:
            return sum(len(one.things) for one in self._taken_up)

    def take_up(self, one: Following) -> None:
        """It will end in one `on_end`."""
        with self._lock:
            self._taken_up.append(one)
            if self._pump is None:
                self._pump = threading.Thread(target=self._run, name="lisa_follow", daemon=True)
                self._pump.start()

    def begin_with_answer(
        self, one: Following, query: Query, message: Segmentation, outcome: Outcome
    ) -> None:
        """Follow what a query has found, which must have ended; else end with what it says."""
        one.last = message
        if outcome.status == Status.OK:
            self.begin(one, query.frame, instances=outcome.answer.instances)
        else:
            sentence = message.error or message.answer or "nothing was found to follow"
            self.end(one, outcome.status, sentence)

    def begin_with_instance(self, one: Following, query_id: str, instance_id: int) -> None:
        """Follow an instance of an earlier answer; on the executor's thread."""
        for query, outcome in reversed(list(self.answers)):
            instances = outcome.answer.instances
            if query.id == query_id and 1 <= instance_id <= len(instances):
                one.instruction = query.instruction
                found = [instances[instance_id - 1]]
                self._worker.submit(partial(self.begin, one, query.frame, instances=found))
                return
        sentence = (
            f"there is no instance {instance_id} in an answer {query_id!r:.60}: only the last "
            f"{REMEMBERED} answers about the camera's images are remembered; ask again"
        )
        self.end(one, Status.REJECTED, sentence)

    def begin_with_place(self, one: Following, **place: Sequence[int]) -> None:
        """Follow what is in a box or at a point of the newest image; on the executor's thread."""
        self._worker.submit(partial(self.begin, one, None, **place))

    def begin(self, one: Following, frame: Frame | None, **what: Any) -> None:
        """Begin on the model's thread; whatever goes wrong becomes its end.

        Args:
            one: has been taken up.
            frame: None: the newest of the camera.
            what: for `Follower.begin`.
        """
        if one.ended:
            return
        try:
            frame = self._camera.fresh(lambda: one.ended) if frame is None else frame
            self._begin(one, frame, what)
        except Exception as error:
            self._end_by(one, error)

    def _begin(self, one: Following, frame: Frame, what: dict[str, Any]) -> None:
        worker, most = self._worker, self._parameters["follow.max_things"]
        if worker.engine is None or self._readiness.not_ready_reason:
            raise NotAnswered(Status.NOT_READY, self._readiness.not_ready_reason)
        room = most - self.things
        if room <= 0:
            sentence = f"{most} things are followed already (follow.max_things): end one of them"
            raise NotAnswered(Status.REJECTED, sentence)
        began = time.monotonic()
        pixels = frame.pixels(self._parameters["input.max_pixels"])
        self._localizer.prepare(frame, lambda: one.ended)
        config = FollowConfig(ask_interval=self._parameters["follow.ask_interval"])
        one.follower = Follower(worker.engine, worker.new_tracker(room), config)
        places = Places(self._localizer, frame)
        tracks = one.follower.begin(
            pixels,
            stamp=frame.seconds,
            key=frame.key,
            instruction=one.instruction,
            locate=self._locate(places),
            **what,
        )
        if not tracks:
            raise NotAnswered(Status.NOT_FOUND, "there is nothing to follow: the mask is empty")
        if one.follower.left_out:
            self._node.get_logger().warning(
                f"query {one.query_id}: {counted(one.follower.left_out, 'thing')} more than can be "
                f"followed (follow.max_things is {most}); the surest are"
            )
        if one.ended:
            return
        one.began = time.monotonic()
        self._publish(one, frame, tracks, places, began)
        self._publish_labels(frame)

    def _run(self) -> None:
        """The pump: the newest image to the model's thread, and a look for what is overdue."""
        last: Frame | None = None
        while True:
            with self._lock:
                if not self._taken_up:
                    self._pump = None
                    return
            try:
                frame = self._camera.newest()
                if frame is None or frame is last or not self._begun_before(frame):
                    time.sleep(POLL)
                else:
                    last = frame
                    step = self._worker.submit(partial(self._step, frame))
                    while not wait([step], LOOK_PERIOD).done and not self.idle:
                        self._end_overdue()
                self._end_overdue()
            except Exception:
                # the camera is being closed, or the thread of the model is gone: then all ends
                self._node.get_logger().error(f"following\n{traceback.format_exc()}")
                self.end_all(Status.MODEL_ERROR, "following has failed; see the node's log")

    def _begun_before(self, frame: Frame) -> list[Following]:
        """What has begun with an earlier image."""
        with self._lock:
            return [
                one
                for one in self._taken_up
                if one.frame is not None and one.frame.arrived < frame.arrived
            ]

    def _step(self, frame: Frame) -> None:
        """One image for everything that is followed; on the model's thread."""
        followed = self._begun_before(frame)
        try:
            pixels = frame.pixels(self._parameters["input.max_pixels"])
            self._localizer.prepare(frame, lambda: all(one.ended for one in followed))
        except LisaError as error:
            for one in followed:
                one.fault = str(error)
            return
        places = Places(self._localizer, frame)
        for one in followed:
            self._advance(one, frame, pixels, places)
        self._publish_labels(frame)

    def _advance(self, one: Following, frame: Frame, pixels: np.ndarray, places: Places) -> None:
        """Look for the things of one following in an image."""
        if one.ended:
            return
        began = time.monotonic()
        try:
            tracks = one.follower.update(
                pixels,
                stamp=frame.seconds,
                key=frame.key,
                locate=self._locate(places),
                cancel=one.cancel,
                deadline=began + self._parameters["query.timeout"],
                max_new_tokens=self._parameters["query.max_new_tokens"],
            )
            if not one.ended:
                self._publish(one, frame, tracks, places, began)
        except ImageError as error:
            one.fault = str(error)  # of this image; the next may be better
        except Exception as error:
            self._end_by(one, error)

    def _publish(
        self, one: Following, frame: Frame, tracks: Sequence[Track], places: Places, began: float
    ) -> None:
        """Send out where the things are, and end what has been gone for too long."""
        numbers = self._free_numbers()
        visible = [track for track in tracks if track.state == TrackState.VISIBLE]
        for track in tracks:
            if track.id not in one.things:
                # an earlier answer's image may be older than the goal
                now = max(frame.arrived, one.arrived)
                one.things[track.id] = FollowedThing(
                    next(numbers), next(self._ids), began=now, seen=now
                )
        for track in visible:
            thing = one.things[track.id]
            thing.seen = max(thing.seen, frame.arrived)
            thing.note_place(frame.seconds, places.of(track.mask), places.frame_id)
        one.frame, one.frames = frame, one.frames + 1
        one.looked, one.fault = time.monotonic(), ""
        message = track_message(one, tracks, places, self._worker.model_name)
        message.timings.track = (time.monotonic() - began) * 1e3 - message.timings.geometry
        message.timings.total = frame.age * 1e3
        one.last = message
        self._publishers.publish(message)
        one.on_message(message)
        unseen = frame.arrived - max(thing.seen for thing in one.things.values())
        if unseen > one.limit:
            what = "it was" if len(one.things) == 1 else "all of its things were"
            sentence = (
                f"{what} last seen {unseen:.1f} s ago, and the limit (lost_timeout) is "
                f"{one.limit:g} s"
            )
            sentence += f": {one.follower.fault}" if one.follower.fault else ""
            self.end(one, Status.NOT_FOUND, sentence)

    def _publish_labels(self, frame: Frame) -> None:
        """The numbers of all things that were looked for in this image, as one image."""
        with self._lock:
            found = [one.last for one in self._taken_up if one.frame is frame]
        self._publishers.publish_labels(found, frame)

    def _free_numbers(self) -> Any:
        with self._lock:
            taken = {thing.number for one in self._taken_up for thing in one.things.values()}
        return (number for number in range(1, HIGHEST_NUMBER + 1) if number not in taken)

    def _locate(self, places: Places) -> Callable[[np.ndarray], np.ndarray | None] | None:
        """Places tell whether a thing can have come there, but only in a frame that stands still"""
        if not self._parameters["target_frame"]:
            return None
        return lambda mask: places.of(mask).centroid

    def _end_overdue(self) -> None:
        """End what gets no image any more, or no turn of the model."""
        with self._lock:
            followed = list(self._taken_up)
        now, patience = time.monotonic(), self._parameters["query.timeout"]
        newest = self._camera.newest()
        for one in followed:
            if self._readiness.not_ready_reason:
                self.end(one, Status.CANCELLED, self._readiness.not_ready_reason)
            elif one.frame is None:
                # a query of its own has its own limit, and ends sooner
                if now - one.arrived > patience + LOOK_PERIOD * 10:
                    sentence = f"it did not begin within {patience:g} s: the model is busy"
                    self.end(one, Status.TIMEOUT, sentence)
            elif now - (one.looked if newest is None else newest.arrived) > one.limit:
                sentence = (
                    f"no image has arrived on {self._camera.topic} for {one.limit:g} s "
                    "(lost_timeout): is the camera still running?"
                )
                self.end(one, Status.STALE_IMAGE, sentence)
            elif one.fault and now - one.looked > one.limit:
                sentence = f"no image could be used for {one.limit:g} s: {one.fault}"
                self.end(one, Status.REJECTED, sentence)
            elif now - one.looked > max(patience, one.limit):
                sentence = f"the model was busy for {now - one.looked:.0f} s with something else"
                self.end(one, Status.TIMEOUT, sentence)

    def end(self, one: Following, status: Status, reason: str) -> None:
        """End it with a sentence; whoever comes second does nothing."""
        if not one.end():
            return
        one.status, one.reason = status, reason
        with self._lock:
            if one in self._taken_up:
                self._taken_up.remove(one)
        logger = self._node.get_logger()
        # what never began has a line as a query, and a standing query would fill the log with it
        log = logger.info if one.frames else logger.debug
        log(
            f"query {one.query_id} {one.instruction!r:.100}: followed through "
            f"{counted(one.frames, 'image')} "
            f"in {one.seconds:.1f} s, {status.name}: {reason}"
        )
        one.on_end()

    def end_all(self, status: Status, reason: str) -> None:
        """End everything that is followed or waits for it."""
        with self._lock:
            followed = list(self._taken_up)
        for one in followed:
            self.end(one, status, reason)

    def _end_by(self, one: Following, error: Exception) -> None:
        outcome = self._worker.outcome_of(error)
        self.end(one, outcome.status, outcome.error)
