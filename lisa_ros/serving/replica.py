"""What a replica of the server runs: one engine, the images of its robots, questions in batches."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ray import serve
from ray.serve.metrics import Counter as Metric
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from lisa_ros.engine.answer import Finished
from lisa_ros.engine.load import load_engine
from lisa_ros.engine.question import EngineConfig, Question, check_question
from lisa_ros.errors import BusyError, LisaError
from lisa_ros.serving.remote import TOKEN
from lisa_ros.serving.remote_tracker import TRACK, TrackSessions
from lisa_ros.serving.wire import (
    INFO,
    LONGEST_HEAD,
    PREPARE,
    SEGMENT,
    SESSION_HEADER,
    UNKNOWN_FRAME,
    VERSION,
    VERSION_HEADER,
    Refused,
    ServerInfo,
    WireQuestion,
    decode_image,
    frame_name,
    read_question,
    refusal,
    write_event,
)

LONGEST_FILE = 32 * 2**20  # bytes of an image
KEPT_IMAGES = 512 * 2**20  # bytes of decoded images that stay for further questions
ROBOT_QUESTIONS = 8  # of one robot at the same time: he shall not take the others' places
HANG_LIMIT = 300.0  # seconds of one batch after which Ray Serve replaces the replica
USERS_THREADS = "LISA_ROS_OMP_NUM_THREADS"  # OMP_NUM_THREADS of the user; Ray sets its own
log = logging.getLogger("ray.serve")


@dataclass(eq=False)
class Asked:
    """A question on its way through the replica."""

    question: Question
    deadline: float | None
    prepare: bool
    events: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    """lines of the answer, then None"""
    gone: threading.Event = field(default_factory=threading.Event)
    """set when the robot does not listen any more"""


@serve.deployment(name="engine")
class EngineReplica:
    """One engine: takes HTTP requests, keeps their images, asks in batches."""

    def __init__(
        self,
        model: dict[str, Any],
        token: str,
        *,
        threads: int,
        max_pixels: int,
        batch: int,
        window: float,
    ) -> None:
        """`model`: arguments of `load_engine`; `window`: seconds that a batch waits for more."""
        os.environ.pop("OMP_NUM_THREADS", None)
        if USERS_THREADS in os.environ:
            os.environ["OMP_NUM_THREADS"] = os.environ[USERS_THREADS]
        self.token, self.max_pixels = token, max_pixels
        self.engine = load_engine(**model, config=EngineConfig(threads=threads or None))
        self.engine.warm_up(deadline=time.monotonic() + 60)
        self.images: OrderedDict[str, np.ndarray] = OrderedDict()
        self.tracks = TrackSessions(self.engine, max_pixels)
        self.open: Counter[str] = Counter()
        """questions of each robot that are being answered"""
        self.batch_began: float | None = None
        self._ask.set_max_batch_size(batch)
        self._ask.set_batch_wait_timeout_s(window)
        # of Ray's Prometheus endpoint, beside Serve's own of requests and latencies
        self.questions = Metric("lisa_questions", "questions that the engine was asked")
        self.batches = Metric("lisa_batches", "batches in which it was asked")
        self.bytes_up = Metric("lisa_bytes_up", "bytes of requests")
        self.decoded = Metric("lisa_images", "images that were sent")
        self.encoded = Metric("lisa_sam_encodes", "images that SAM's encoder has seen")

    def check_health(self) -> None:
        """Called by Ray Serve, which replaces a replica whose engine hangs."""
        began = self.batch_began
        if began is not None and time.monotonic() - began > HANG_LIMIT:
            raise RuntimeError(f"one batch has taken more than {HANG_LIMIT:g} s")

    async def __call__(self, request: Request) -> Response:
        """One HTTP request. Words about a fault come back in the same form as an answer."""
        try:
            given = request.headers.get("authorization", "")
            if self.token and not hmac.compare_digest(
                given.encode(), f"Bearer {self.token}".encode()
            ):
                raise Refused("token", f"wrong token: set {TOKEN} to the server's own", 401)
            route = (request.method, request.url.path)
            if route == ("GET", INFO):
                return self._reply(200, self.info.write())
            if route == ("POST", TRACK):
                body = await self._body(request)
                loop = asyncio.get_running_loop()
                return self._reply(*await loop.run_in_executor(None, self.tracks.answer, body))
            if route not in (("POST", SEGMENT), ("POST", PREPARE)):
                raise Refused("path", f"there is no {' '.join(route)[:80]} here", 404)
            robot = request.headers.get(SESSION_HEADER, "")
            if self.open[robot] >= ROBOT_QUESTIONS:
                raise BusyError(f"{self.open[robot]} questions of this robot are being answered")
            asked = self._asked(await self._body(request), prepare=route[1] == PREPARE)
            return self._reply(200, self._answer(asked, robot))
        except LisaError as error:
            return self._reply(*refusal(error))
        except ClientDisconnect:
            return self._reply(*refusal(Refused("body", "the request ended early")))

    @property
    def info(self) -> ServerInfo:
        """What a robot learns first."""
        engine = self.engine
        return ServerInfo(VERSION, engine.name, str(engine.device), self.max_pixels)

    def _reply(self, code: int, content: bytes | AsyncIterator[bytes]) -> Response:
        headers = {VERSION_HEADER: str(VERSION)}
        kind = Response if isinstance(content, bytes) else _Pieces
        return kind(content, code, headers, media_type="application/x-ndjson")

    async def _body(self, request: Request) -> bytes:
        """The request's body, as far as it may be long."""
        most = LONGEST_FILE + LONGEST_HEAD
        told = request.headers.get("content-length", "0")
        parts, length = [], int(told) if told.isdecimal() else 0
        if length <= most:
            length = 0
            async for part in request.stream():
                parts.append(part)
                length += len(part)
                if length > most:
                    break
        if length > most:
            raise Refused("image", f"the image takes more than {LONGEST_FILE} bytes as a file", 413)
        if length:
            self.bytes_up.inc(length)
        return b"".join(parts)

    def _asked(self, body: bytes, prepare: bool) -> Asked:
        """The question that a body holds, with its image."""
        wire = read_question(body)
        image, key = self._image(wire)
        question = Question(
            image, wire.instruction, wire.mode, wire.history, key, wire.max_new_tokens
        )
        check_question(question, self.engine.config, self.engine.modes)
        deadline = None if wire.time_left is None else time.monotonic() + wire.time_left
        return Asked(question, deadline, prepare)

    def _image(self, wire: WireQuestion) -> tuple[np.ndarray, str | None]:
        """The image and its key. Who names an image must have had it, so robots never mix."""
        if wire.file:
            name = frame_name(wire.file)
            image = self.images.get(name)
            if image is None:
                image = decode_image(wire.file, self.max_pixels)
                self.decoded.inc()
            if not wire.keep:
                return image, None
            self.images[name] = image
            while sum(image.nbytes for image in self.images.values()) > KEPT_IMAGES:
                self.images.popitem(last=False)
        else:
            name = wire.frame
            if name not in self.images:
                raise Refused(UNKNOWN_FRAME, "this image is not kept here: send it", 404)
        self.images.move_to_end(name)
        return self.images[name], name

    async def _answer(self, asked: Asked, robot: str) -> AsyncIterator[bytes]:
        """The lines of an answer as the engine brings them."""
        self.open[robot] += 1
        batch = asyncio.ensure_future(self._ask(asked))
        batch.add_done_callback(lambda _: asked.events.put_nowait(None))  # whatever became of it
        try:
            ended = False
            while not ended:
                lines = [await asked.events.get()]
                while not asked.events.empty():  # every piece costs Ray some messages
                    lines.append(asked.events.get_nowait())
                ended = None in lines
                if said := b"".join(line for line in lines if line is not None):
                    yield said
            if batch.done():
                batch.result()  # raises what nobody has told
        finally:  # here too when the robot has hung up
            asked.gone.set()
            self.open[robot] -= 1
            if not self.open[robot]:
                del self.open[robot]

    @serve.batch
    async def _ask(self, batch: list[Asked]) -> list[None]:
        """Answer some questions together, in a thread."""
        loop = asyncio.get_running_loop()
        self.batches.inc()
        self.batch_began = time.monotonic()
        try:
            await loop.run_in_executor(None, self._run, batch, loop)
        finally:
            self.batch_began = None
        return [None] * len(batch)

    def _run(self, batch: list[Asked], loop: asyncio.AbstractEventLoop) -> None:
        """On the engine's thread. A fault of one question must not be that of its neighbours."""

        def say(asked: Asked, line: bytes, *, last: bool) -> None:
            loop.call_soon_threadsafe(put, asked.events, line, last)

        def put(events: asyncio.Queue[bytes | None], line: bytes, last: bool) -> None:
            events.put_nowait(line)
            if last:
                events.put_nowait(None)

        heard = [one for one in batch if not one.gone.is_set()]
        groups = [[one for one in heard if not one.prepare]]
        groups += [[one] for one in heard if one.prepare]
        for group in filter(None, groups):
            self.questions.inc(len(group))
            begun: set[Asked] = set()
            try:
                self._ask_engine(group, say, begun)
            except Exception as error:
                if len(group) > 1 and not begun:
                    groups += [[one] for one in group]
                    continue
                if not isinstance(error, LisaError):
                    log.exception("the model failed")
                    error = Refused("model", f"the model failed with {type(error).__name__}")
                for one in group:  # those who have their answer do not hear it any more
                    say(one, refusal(error)[1], last=True)

    def _ask_engine(self, group: list[Asked], say: Callable[..., None], begun: set[Asked]) -> None:
        """One pass of the engine over a group; every line is said as soon as it is there."""
        if group[0].prepare:
            question = group[0].question
            self.engine.prepare(question.image, question.key)
            say(group[0], b'{"text": ""}\n', last=True)
            return
        deadlines = [one.deadline for one in group]
        events = self.engine.stream_batch(
            [one.question for one in group],
            cancel=_AllGone(group),
            deadline=None if None in deadlines else max(deadlines),
        )
        for index, event in events:
            begun.add(group[index])
            # its end does not wait for that of its neighbours
            say(group[index], write_event(event), last=isinstance(event, Finished))
            if isinstance(event, Finished) and event.answer.counters["sam_encodes"]:
                self.encoded.inc(event.answer.counters["sam_encodes"])


class _Pieces(StreamingResponse):
    """Pieces of an answer, each sent when it comes; the head leaves together with the first.

    Every message costs Ray several of its own. It cancels an answer whose robot has hung up, so
    nothing here need listen for that.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        messages = [
            {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        ]
        async for piece in self.body_iterator:
            messages.append({"type": "http.response.body", "body": piece, "more_body": True})
            while messages:
                await send(messages.pop(0))
        for message in [*messages, {"type": "http.response.body", "body": b""}]:
            await send(message)


@dataclass(frozen=True)
class _AllGone:
    """The cancellation of a batch: set when nobody listens any more."""

    group: list[Asked]

    def is_set(self) -> bool:
        return all(one.gone.is_set() for one in self.group)
