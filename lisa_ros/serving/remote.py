"""The robot's side of `lisa-ros serve`: an engine that asks a server. Nothing here needs torch.

Every exchange runs in a thread of its own, so that nothing the network does (a name that does not
resolve, a server that hangs, a peer that reads slowly) holds the caller beyond his deadline.
"""

from __future__ import annotations

import http.client
import math
import os
import queue
import socket
import ssl
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np

from lisa_ros.engine.answer import ABORTED, Answer, Event, Finished, TextDelta
from lisa_ros.engine.question import (
    DEFAULTS,
    MODES,
    AskOptions,
    Cancel,
    EngineConfig,
    Interruption,
    Question,
    check_image,
    check_question,
)
from lisa_ros.errors import (
    BusyError,
    LisaError,
    RemoteFailure,
    ServerError,
    ServerUnreachable,
)
from lisa_ros.serving.wire import (
    INFO,
    LOSSLESS,
    PREPARE,
    REFUSALS,
    SEGMENT,
    SESSION_HEADER,
    UNKNOWN_FRAME,
    VERSION_HEADER,
    EventReader,
    Refused,
    ServerInfo,
    WireError,
    WireQuestion,
    encode_image,
    frame_name,
    is_last,
    write_question,
)

if TYPE_CHECKING:
    from typing_extensions import Unpack

TOKEN = "LISA_ROS_TOKEN"  # a parameter could be read by everybody on the ROS network
CONNECT_LIMIT = 3.0  # seconds until a server that does not take the connection is given up
SILENCE_LIMIT = 60.0  # seconds without a byte, where the question has no deadline
KEEPALIVE = (  # a machine that confirms nothing for 9 s is gone; one that computes does confirm
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9000),
)
INFO_LIMIT = 3.0  # seconds for what a server says about itself
PREPARE_LIMIT = 2.0  # seconds for encoding ahead: a query may be waiting behind it
PATIENCE = 0.02  # seconds between two looks at `cancel` and `deadline`
LONGEST_LINE = 64 * 2**20  # bytes of an answer's line
TOGETHER = 4  # questions of `segment_batch` that are under way at the same time
KEPT_CONNECTIONS = TOGETHER
KEPT_FRAMES = 256  # names of images that the server may still have
NEVER = Interruption()
HTTP_BUSY = 503  # Ray Serve's own answer where too many questions wait
HTTP_BROKEN = (500, 502, 504)  # its own, or a load balancer's, where a replica has ended


def read_token() -> str:
    """The environment's token, for server and robot; `ServerError` if no header can carry it."""
    token = os.environ.get(TOKEN, "").strip()
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise ServerError(f"{TOKEN} holds what no token has: letters, digits and -._~+/= alone")
    return token


def is_address(model: str | os.PathLike) -> bool:
    """Whether a model is named by the address of a server."""
    return str(model).lower().startswith(("http://", "https://"))


class RemoteEngine:
    """Asks a `lisa-ros serve` about images, by the interface of `Engine`."""

    def __init__(
        self, address: str, *, jpeg_quality: int = LOSSLESS, config: EngineConfig = DEFAULTS
    ) -> None:
        """`jpeg_quality` of the images that are sent: 1 to 100, or 0 for PNG.

        The token is that of the environment variable LISA_ROS_TOKEN. Nothing is asked yet.

        Raises:
            ServerError: the address or the token is none.
        """
        self.address, self.jpeg_quality, self.config = address, jpeg_quality, config
        self.modes = MODES  # which of them its model was trained for, the server knows
        self.name, self.device = "a model whose server has not answered yet", address
        self.bytes_up = 0
        """of the bodies of all requests so far"""
        self.server = _Server(address)
        """shared with the trackers of this robot, so that they meet the same replica"""
        self._frames: OrderedDict[Hashable, str] = OrderedDict()
        """under which name the server has the image of a key"""

    def connect(self, interrupted: Interruption = NEVER) -> None:
        """Learn the model's name.

        Raises:
            ServerUnreachable: nobody answers, which may pass.
            ServerError: somebody answers who is not, or not for us, a server.
        """
        end = time.monotonic() + INFO_LIMIT
        limits = Interruption(interrupted.cancel, min(end, interrupted.deadline or end))
        line = next(self.server.lines("GET", INFO, b"", limits), None)
        if interrupted():
            return
        if line is None:
            self.server.lost = True
            raise ServerUnreachable(
                f"the server {self.address} does not answer: it is starting, hangs, or has too "
                "much to do"
            )
        try:
            self.name = ServerInfo.read(line).model
        except (WireError, Refused) as error:
            raise self.explained(error) from None

    def segment(self, image: np.ndarray, instruction: str, **options: Unpack[AskOptions]) -> Answer:
        """As `Engine.segment`; also raises `ServerError` and `RemoteFailure`."""
        *_, last = self.stream(image, instruction, **options)
        return last.answer

    def stream(
        self, image: np.ndarray, instruction: str, **options: Unpack[AskOptions]
    ) -> Iterator[Event]:
        """As `Engine.stream`; also raises `ServerError` and `RemoteFailure`."""
        interrupted = Interruption(options.pop("cancel", None), options.pop("deadline", None))
        question = Question(image, instruction, **options)
        check_question(question, self.config)
        began, text, reader = time.monotonic(), "", EventReader(image.shape[:2])
        for event in self._events(SEGMENT, question, interrupted, reader):
            if isinstance(event, Finished):
                total = 1e3 * (time.monotonic() - began)
                event.answer.timings["network"] = total - event.answer.timings.get("total", 0)
                event.answer.timings["total"] = total
            elif isinstance(event, TextDelta):
                text += event.text
            yield event
            if isinstance(event, Finished):
                return
        reason = interrupted()
        if not reason:
            raise ServerError(f"the server {self.address} broke off in the middle of an answer")
        found = reader.instances
        yield Finished(Answer(text, ABORTED[reason], found, stopped_by=reason, transcript=text))

    def segment_batch(
        self,
        questions: Sequence[Question],
        *,
        cancel: Cancel | None = None,
        deadline: float | None = None,
    ) -> list[Answer]:
        """As `Engine.segment_batch`; the server makes batches of what it is asked together."""

        def ask(one: Question) -> Answer:
            asked = {name: value for name, value in vars(one).items() if value is not None}
            return self.segment(**asked, cancel=cancel, deadline=deadline)

        with ThreadPoolExecutor(TOGETHER) as threads:
            return list(threads.map(ask, questions))

    def prepare(self, image: np.ndarray, key: Hashable) -> None:
        """Have an image encoded before it is asked about."""
        check_image(image, self.config, key)
        interrupted = Interruption(None, time.monotonic() + PREPARE_LIMIT)
        question = Question(image, "-", key=key)
        for _ in self._events(PREPARE, question, interrupted, EventReader(image.shape[:2])):
            pass

    def warm_up(self, *, deadline: float | None = None) -> None:
        """The server warms its model before it takes questions."""

    def _events(
        self, path: str, question: Question, interrupted: Interruption, reader: EventReader
    ) -> Iterator[Event]:
        """What comes back. Of an image that the server may have, the name alone is sent first."""
        if self.server.lost:  # while a replica starts, Ray takes questions and holds them back
            self.connect(interrupted)
        key = None if question.key is None else (question.key, question.image.shape)
        frame, file = self._frames.get(key, ""), b""
        while True:
            if not frame:
                file = encode_image(question.image, self.jpeg_quality)
            end = interrupted.deadline
            left = None if end in (None, math.inf) else max(end - time.monotonic(), 0.0)
            body = write_question(
                WireQuestion(
                    instruction=question.instruction,
                    mode=question.mode,
                    history=tuple(question.history),
                    max_new_tokens=int(question.max_new_tokens or self.config.max_new_tokens),
                    time_left=left,
                    frame=frame,
                    keep=key is not None,
                    file=file,
                )
            )
            self.bytes_up += len(body)
            for line in self.server.lines("POST", path, body, interrupted):
                try:
                    event = reader.read(line)
                except (WireError, Refused) as error:
                    if frame and isinstance(error, Refused) and error.kind == UNKNOWN_FRAME:
                        break
                    raise self.explained(error) from None
                if file and key is not None:
                    self._frames[key] = frame_name(file)
                    self._frames.move_to_end(key)
                    while len(self._frames) > KEPT_FRAMES:
                        self._frames.popitem(last=False)
                yield event
            else:
                return
            frame = ""  # the server has forgotten the image, or is a new one

    def explained(self, error: WireError | Refused) -> Exception:
        """The exception for what the server has refused, or has said and cannot be understood."""
        if isinstance(error, Refused):
            if error.kind == "model":
                return RemoteFailure(f"{self.address}: {error}")
            for fault, (_, kind) in REFUSALS.items():
                if kind == error.kind:
                    return fault(str(error))
        return ServerError(f"the server {self.address}: {error}")


class _Server:
    """The way to one address: exchanges, each in a thread of its own, and idle connections."""

    def __init__(self, address: str) -> None:
        try:
            parts = urlsplit(address)
            self.host, self.port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ServerError(f"{address} is no address of a server: {error}") from None
        if not self.host or parts.username or parts.query or parts.fragment:
            raise ServerError(
                f"{address} is no address of a server: write http://host:port or https://host:port"
                + (f", and put the token into {TOKEN}" if parts.username else "")
            )
        self.address, self.prefix = address, parts.path.rstrip("/")
        self.context = ssl.create_default_context() if parts.scheme.lower() == "https" else None
        # the same for all questions of this engine: its images lie on one replica of the server
        self.headers = {SESSION_HEADER: uuid.uuid4().hex}
        if token := read_token():
            self.headers["authorization"] = f"Bearer {token}"
        self.idle: list[http.client.HTTPConnection] = []
        self.lost = False
        """whether nobody answered the last time"""

    def lines(
        self, method: str, path: str, body: bytes, interrupted: Interruption
    ) -> Iterator[bytes]:
        """The lines of an answer as they come; none any more once `interrupted` gives a reason."""
        if interrupted():
            return
        exchange = _Exchange(self, method, path, body)
        try:
            while not interrupted():
                with suppress(queue.Empty):
                    said = exchange.said.get(timeout=PATIENCE)
                    if said is None:
                        return
                    fault = self._explained(said) if isinstance(said, Exception) else None
                    self.lost = isinstance(fault, ServerError)
                    if fault is not None:
                        raise fault
                    yield said
        finally:
            exchange.abandon()

    def connect(self) -> http.client.HTTPConnection:
        """A new connection. Raises `OSError`."""
        if self.context is None:
            connection = http.client.HTTPConnection(self.host, self.port, timeout=CONNECT_LIMIT)
        else:
            connection = http.client.HTTPSConnection(
                self.host, self.port, timeout=CONNECT_LIMIT, context=self.context
            )
        connection.connect()
        connection.sock.settimeout(SILENCE_LIMIT)
        for option in KEEPALIVE:
            connection.sock.setsockopt(*option)
        return connection

    def _explained(self, error: Exception) -> Exception:
        """What is said about a connection's fault."""
        where = f"the server {self.address}"
        if isinstance(error, LisaError):
            return error
        if isinstance(error, ssl.SSLCertVerificationError):
            return ServerError(
                f"{where} has a certificate that cannot be trusted ({error.verify_message}): name "
                "the file of its authority in SSL_CERT_FILE, and the host as the certificate does"
            )
        if isinstance(error, ssl.SSLError) and "WRONG_VERSION" in str(error):
            return ServerError(f"{where} does not speak TLS: write http://, or start it with TLS")
        if isinstance(error, ConnectionResetError | BrokenPipeError | http.client.BadStatusLine):
            return ServerUnreachable(
                f"{where} closed the connection before its answer was complete; one that speaks "
                "TLS does so where the address begins with http://"
            )
        if isinstance(error, http.client.HTTPException):
            return ServerUnreachable(f"{where} broke off in the middle of an answer")
        if isinstance(error, OSError):
            text = "it does not answer" if isinstance(error, TimeoutError) else error.strerror
            return ServerUnreachable(f"{where} cannot be reached: {text or error}")
        return error


class _Exchange:
    """One request and its answer, in a thread of its own."""

    def __init__(self, server: _Server, method: str, path: str, body: bytes) -> None:
        self.server, self.method, self.path, self.body = server, method, path, body
        self.said: queue.SimpleQueue[bytes | Exception | None] = queue.SimpleQueue()
        """lines of the answer, then None, or what went wrong"""
        self.connection: http.client.HTTPConnection | None = None
        self.socket: socket.socket | None = None
        """of the connection, which forgets it where the server will close it"""
        self.answered = self.abandoned = False
        threading.Thread(target=self._run, name="lisa_remote", daemon=True).start()

    def abandon(self) -> None:
        """Nobody listens any more; a server that sees the connection go stops working."""
        self.abandoned = True
        if not self.answered and self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            response = self._response()
            while line := response.readline(LONGEST_LINE):
                self.answered = is_last(line)  # the rest is the end of the HTTP message alone
                self.said.put(line)
            hung_up, self.answered = self.abandoned and not self.answered, True
            if response.will_close or hung_up or len(self.server.idle) >= KEPT_CONNECTIONS:
                self.connection.close()
            else:
                self.server.idle.append(self.connection)
            self.said.put(None)
        except Exception as error:
            if self.connection is not None:
                self.connection.close()
            self.said.put(error)

    def _response(self) -> http.client.HTTPResponse:
        """Send the request; a kept connection may have been closed meanwhile, so try a new one."""
        while True:
            kept = None
            with suppress(IndexError):
                kept = self.server.idle.pop()
            self.connection = kept or self.server.connect()
            self.socket = self.connection.sock
            try:
                # a server refuses what is too large before it has read it
                with suppress(BrokenPipeError, ConnectionResetError):
                    path = self.server.prefix + self.path
                    self.connection.request(self.method, path, self.body, self.server.headers)
                response = self.connection.getresponse()
                break
            except (OSError, http.client.HTTPException):
                if kept is None or self.abandoned:
                    raise
                self.connection.close()
        if response.getheader(VERSION_HEADER) is None:
            if response.status == HTTP_BUSY:
                raise BusyError("the server has too many questions waiting: ask again later")
            if response.status in HTTP_BROKEN:
                raise ServerUnreachable(
                    f"the server {self.server.address} broke off (HTTP {response.status}): its "
                    "replica has ended, and another takes its place"
                )
            raise ServerError(
                f"what answers at {self.server.address} (HTTP {response.status}) is no lisa-ros "
                "serve, or it is still starting"
            )
        return response
