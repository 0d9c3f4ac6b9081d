"""The one thread that has the model: it loads it, asks it and lets go of it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from lisa_ros.engine.answer import Answer, Finished, Instance, MaskReady, TextDelta
from lisa_ros.engine.load import give_memory_back, is_out_of_memory
from lisa_ros.errors import LisaError, ServerError
from lisa_ros.msg import Segmentation
from lisa_ros.node.inputs.camera import CameraInput
from lisa_ros.node.inputs.frame import Frame
from lisa_ros.node.loading import Loader
from lisa_ros.node.parameters import Parameters
from lisa_ros.node.requests.query import CANCELLED, Outcome, Query, sure_enough
from lisa_ros.node.results.objects3d import Localizer
from lisa_ros.node.status import ANSWERED, NotAnswered, Status

if TYPE_CHECKING:
    from lisa_ros.engine.engine import Engine
    from lisa_ros.serving.remote import RemoteEngine
    from lisa_ros.serving.remote_tracker import NewTracker

WARM_UP_TIME = 5.0  # seconds after which the engine shall leave it at that


class FaultyAnswer(Exception):
    """The engine's answer breaks its own promises."""


class ModelWorker:
    """Runs everything that touches the model, one thing after the other."""

    def __init__(
        self,
        load: Loader,
        camera: CameraInput,
        localizer: Localizer,
        parameters: Parameters,
        logger: Any,
    ) -> None:
        self._load, self._camera, self._localizer = load, camera, localizer
        self._parameters, self._logger = parameters, logger
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lisa_model")
        self.engine: Engine | RemoteEngine | None = None
        """the model, once it is loaded; it is asked on this thread alone"""
        self.new_tracker: NewTracker | None = None
        self.busy: Query | None = None
        """the query that is being answered"""
        self._ahead: Frame | None = None
        """the last frame that was encoded before anybody asked"""
        self._prefetching: Future[None] | None = None
        self.can_prefetch = True
        """false once encoding ahead has failed, until the next model"""

    @property
    def model_name(self) -> str:
        """Empty while no model is loaded."""
        engine = self.engine
        return "" if engine is None else engine.name

    def load(self) -> Future[None]:
        """Begin to load what the parameters `model.*` describe."""
        return self._thread.submit(self._load_model)

    def unload(self) -> Future[None]:
        """Begin to let go of the model and its memory."""
        return self._thread.submit(self._unload_model)

    def ask(self, query: Query, report: Callable[[Query, Outcome], None]) -> None:
        """Put a query at the end of the queue; `report` is called on the model's thread."""
        self._thread.submit(self._answer, query, report)

    def submit(self, job: Callable[[], None]) -> Future[None]:
        """Have something else done with the model, in its turn among the queries."""
        return self._thread.submit(job)

    def prefetch_newest(self) -> None:
        """Encode the newest image of the camera, unless that is being done or has been."""
        if self._prefetching is None or self._prefetching.done():
            self._prefetching = self._thread.submit(self._prefetch)

    def close(self) -> None:
        """Take nothing more; what is queued is dropped."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _load_model(self) -> None:
        # Imported now, so that the first query does not pay for them.
        import PIL.JpegImagePlugin
        import PIL.PngImagePlugin  # noqa: F401

        self._unload_model()
        engine, new_tracker = self._load(self._parameters)
        try:
            # The first question to a new model is slow, most of all on a GPU.
            engine.warm_up(deadline=time.monotonic() + WARM_UP_TIME)
        except Exception as error:
            self.failure(error)
        self.engine, self.new_tracker = engine, new_tracker

    def _unload_model(self) -> None:
        self.engine, self.new_tracker, self._ahead = None, None, None
        self.can_prefetch = True
        give_memory_back()

    def _prefetch(self) -> None:
        """Encode the newest frame and take its depth image; the first fault is the last."""
        frame = self._camera.newest()
        if self.engine is None or frame is None or frame is self._ahead:
            return
        try:
            pixels = frame.pixels(self._parameters["input.max_pixels"])
            self._localizer.prepare(frame, lambda: False)
            self.engine.prepare(pixels, frame.key)
            self._ahead = frame
        except LisaError:
            pass  # the image cannot be used, which a query about it will be told
        except Exception as error:
            self.failure(error)
            self.can_prefetch = False
            self._logger.warning("images are not encoded ahead any more until the next configure")

    def _frame_for(self, query: Query) -> Frame:
        """The image that a query is about: one that is encoded already, or the newest.

        A standing query may have been woken by what the newest one alone shows.
        """
        ahead = self._ahead
        if (
            ahead is not None
            and self._parameters["model.prepare_frames"]
            and query.source != Segmentation.SOURCE_STANDING
            and ahead.arrived >= self._camera.opened
            and ahead.age <= self._parameters["input.max_age"]
        ):
            return ahead
        return self._camera.fresh(lambda: query.ended)

    def _answer(self, query: Query, report: Callable[[Query, Outcome], None]) -> None:
        """Bring one query to its end, whatever the model does."""
        if query.ended:
            return
        query.started = time.monotonic()
        self.busy = query
        try:
            outcome = self._outcome(query)
        except Exception as error:
            outcome = self.outcome_of(error)
        finally:
            self.busy = None
        report(query, outcome)

    def _outcome(self, query: Query) -> Outcome:
        """Ask the model, and place in space what it found."""
        if self.engine is None:
            raise NotAnswered(Status.NOT_READY, "the model is not loaded")
        if query.frame is None:
            query.frame = self._frame_for(query)
        began = time.monotonic()
        pixels = query.frame.pixels(self._parameters["input.max_pixels"])
        query.convert = time.monotonic() - began
        self._localizer.prepare(query.frame, query.cancel.is_set)
        answer = self._ask(query, query.frame, pixels)
        outcome = sure_enough(answer, self._parameters["score.min"])
        if outcome.status in ANSWERED:
            masks = [one.mask for one in outcome.answer.instances]
            outcome.objects = self._localizer.objects(query.frame, masks)
        return outcome

    def _ask(self, query: Query, frame: Frame, pixels: np.ndarray) -> Answer:
        """Follow the engine's events, so that masks and words are known before the end."""
        events = self.engine.stream(
            pixels,
            query.instruction,
            mode=query.mode,
            history=query.history,
            key=frame.key,
            cancel=query.cancel,
            max_new_tokens=query.max_new_tokens,
            deadline=query.deadline,
        )
        for event in events:
            if isinstance(event, Finished):
                for one in event.answer.instances:
                    _check_instance(one, pixels)
                return event.answer
            if query.ended:
                raise NotAnswered(Status.CANCELLED, CANCELLED)
            if isinstance(event, TextDelta):
                query.text += event.text
            elif isinstance(event, MaskReady):
                _check_instance(event.instance, pixels)
                if event.instance.score < self._parameters["score.min"]:
                    continue
                query.first_mask = query.first_mask or time.monotonic()
                query.instances.append(event.instance)
            query.on_progress(query)
        raise FaultyAnswer("the engine stopped without an answer")

    def outcome_of(self, error: Exception) -> Outcome:
        """How a query ends by an exception."""
        if isinstance(error, NotAnswered):
            return Outcome(error.status, str(error))
        if isinstance(error, LisaError):
            of_server = isinstance(error, ServerError)
            return Outcome(Status.NOT_READY if of_server else Status.REJECTED, str(error))
        return self.failure(error)

    def failure(self, error: Exception) -> Outcome:
        """What is said about a fault of the model; its details go to the log, never on a topic."""
        self._logger.error("the model failed\n" + "".join(traceback.format_exception(error)))
        if is_out_of_memory(error):
            error.__traceback__ = None  # it holds the tensors of the failed pass
            give_memory_back()
            sentence = (
                "the model ran out of memory on this image: free some, use smaller images, "
                "a shorter query.max_new_tokens or model.quantization"
            )
        else:
            sentence = (
                f"the model failed with {type(error).__name__}; the node's log has the details"
            )
        return Outcome(Status.MODEL_ERROR, sentence)


def _check_instance(instance: Instance, pixels: np.ndarray) -> None:
    """Raise `FaultyAnswer` for a mask or score that cannot be published as it is."""
    mask = instance.mask
    if mask.dtype != bool or mask.shape != pixels.shape[:2]:
        raise FaultyAnswer(f"a mask of {mask.dtype} {mask.shape} for an image {pixels.shape}")
    if not np.isfinite([instance.score, instance.seg_probability]).all():
        raise FaultyAnswer("the score or the probability of a mask is not a number")
