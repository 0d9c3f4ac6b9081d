"""The web server: three files, one socket for each open page, and what was said to the microphone.

Starlette in the main thread; the ROS side in another (node_client.py). Messages to a page wait in a
dictionary by key, where a newer one takes the place of an unsent older one, so that a slow phone
sees less, not later.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import secrets
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from lisa_ros.errors import LisaError
from lisa_ros.model.prompt import MODE_SUFFIXES
from lisa_ros.web.access import SECURITY_HEADERS, AccessControl, content_security_policy
from lisa_ros.web.node_client import NodeClient

FILES = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
FOLDER = Path(__file__).parent / "page"
MESSAGE_LIMIT = 64 * 1024  # bytes that a page may send at once
SPEECH_LIMIT = 4 * 2**20  # bytes of a recording: two minutes of 16 kHz
PAGES = 16  # open at once
KEPT_OVERHEARD = 8  # answers to others' questions that wait to be sent to a page
IN_FLIGHT = 2  # live images that a page has not yet said to have drawn
RATE, BURST = 10.0, 20.0  # messages of a page per second, and how many at once
LENGTH = struct.Struct("<I")  # before an image: the length of the JSON that says what it is


@dataclass
class Demo:
    """The recorded tables that `--demo` shows, and what can be asked about the present one."""

    tables: list[tuple[int, list[str]]]
    """seed and instructions of each"""
    show: Callable[[str], None]
    """tells the camera a seed"""
    present: int = 0

    @property
    def questions(self) -> list[str]:
        return self.tables[self.present][1]

    def next_table(self) -> None:
        self.present = (self.present + 1) % len(self.tables)
        self.show(str(self.tables[self.present][0]))


class Misuse(Exception):
    """A page has sent something that no page of ours sends; the text says what."""


class Page:
    """One open page: what waits to be sent to it."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self.watches = True
        self.follows: int | None = None
        """number of its question whose thing is followed: its live images come with masks"""
        self._waiting: OrderedDict[str, tuple[dict[str, Any], bytes]] = OrderedDict()
        self._wake = asyncio.Event()
        self._in_flight = 0
        self._allowance, self._counted = BURST, time.monotonic()

    def put(self, key: str, message: dict[str, Any], jpeg: bytes = b"") -> None:
        """Send it when there is room; an unsent message of the same key is forgotten."""
        if message["type"] == "live":
            # beside images with the masks of a track those without would flicker
            if not self.watches or ("ask" not in message and self.follows is not None):
                return
        elif message["type"] in ("follow_ended", "failed") and message["ask"] == self.follows:
            self.follows = None
        self._waiting[key] = (message, jpeg)
        overheard = [key for key in self._waiting if key.startswith("overheard")]
        for old in overheard[:-KEPT_OVERHEARD]:  # a page that sleeps while others ask
            del self._waiting[old]
        self._wake.set()

    def drawn(self) -> None:
        """The page has drawn a live image and can take the next."""
        self._in_flight = max(0, self._in_flight - 1)
        self._wake.set()

    def charge(self) -> None:
        """Count one message from the page.

        Raises:
            Misuse: there were too many.
        """
        now = time.monotonic()
        self._allowance = min(BURST, self._allowance + (now - self._counted) * RATE)
        self._counted = now
        if self._allowance < 1:
            raise Misuse(f"too many messages: at most {RATE:g} a second; wait a moment")
        self._allowance -= 1

    async def send_all(self, socket: WebSocket) -> None:
        """Send what waits, for as long as the page is open."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (key := self._next()) is not None:
                message, jpeg = self._waiting.pop(key)
                text = json.dumps(message, ensure_ascii=False, allow_nan=False)
                if not jpeg:
                    await socket.send_text(text)
                    continue
                if message["type"] == "live":
                    self._in_flight += 1
                head = text.encode()
                await socket.send_bytes(LENGTH.pack(len(head)) + head + jpeg)

    def _next(self) -> str | None:
        """The oldest that may go; live images last, and only so many ahead of the page."""
        others = (key for key in self._waiting if key != "live")
        live = "live" if "live" in self._waiting and self._in_flight < IN_FLIGHT else None
        return next(others, live)


class WebServer:
    """The application, its open pages and the node's client."""

    def __init__(
        self,
        namespace: str,
        ros_arguments: list[str],
        token: str,
        port: int,
        demo: Demo | None,
        speech_model: str,
    ) -> None:
        self.pages: dict[str, Page] = {}
        self._demo, self._speech_model = demo, speech_model
        self._loop: asyncio.AbstractEventLoop | None = None
        self._node = NodeClient(namespace, ros_arguments, self._post)
        self._recognizer: Any = None
        self._listening = asyncio.Lock()
        routes = [Route(path, self._file) for path in FILES]
        routes.append(Route("/speech", self._speech, methods=["POST"]))
        routes.append(WebSocketRoute("/socket", self._socket))
        self.app = AccessControl(Starlette(routes=routes, lifespan=self._lifespan), token, port)

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> Any:
        self._loop = asyncio.get_running_loop()
        self._node.start()
        yield
        await asyncio.to_thread(self._node.close)

    # --- from ROS ----------------------------------------------------------------------------

    def _post(self, page: str, key: str, message: dict[str, Any], jpeg: bytes) -> None:
        """Called on the ROS thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, page, key, message, jpeg)

    def _deliver(self, page: str, key: str, message: dict[str, Any], jpeg: bytes) -> None:
        if message["type"] == "state":
            message = self._with_demo(message)
        for one in list(self.pages.values()) if not page else [self.pages.get(page)]:
            if one is not None:
                one.put(key, message, jpeg)

    def _with_demo(self, state: dict[str, Any]) -> dict[str, Any]:
        return state | {"questions": self._demo.questions if self._demo else []}

    # --- HTTP --------------------------------------------------------------------------------

    async def _file(self, request: Request) -> Response:
        name, kind = FILES[request.url.path]
        policy = content_security_policy(request.headers.get("host", ""))
        return Response(
            (FOLDER / name).read_bytes(),
            media_type=kind,
            headers=SECURITY_HEADERS | {"Content-Security-Policy": policy},
        )

    async def _speech(self, request: Request) -> Response:
        """A WAV recording in, what was said out."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > SPEECH_LIMIT:
                error = "the recording is too long: two minutes at most"
                return JSONResponse({"error": error}, 413)
        if self._listening.locked():
            return JSONResponse({"error": "another page is being listened to: say it again"}, 503)
        async with self._listening:
            try:
                heard = await asyncio.to_thread(self._recognise, body)
            except LisaError as error:
                return JSONResponse({"error": str(error)}, 422)
        if not heard.text:
            return JSONResponse({"error": "Nothing was understood: say it again."})
        return JSONResponse({"text": heard.text, "sure": heard.sure})

    def _recognise(self, wav: bytes) -> Any:
        """What was said in a WAV file."""
        from lisa_ros.speech.audio import read_wav
        from lisa_ros.speech.recognizer import load_recognizer

        samples, rate = read_wav(io.BytesIO(wav), "the recording")
        if self._recognizer is None:
            self._recognizer = load_recognizer(self._speech_model)
        return self._recognizer.recognise(samples, rate)

    # --- the socket --------------------------------------------------------------------------

    async def _socket(self, socket: WebSocket) -> None:
        await socket.accept()
        if len(self.pages) >= PAGES:
            error = f"{PAGES} pages are open already: close one, then reload this one"
            await socket.send_text(json.dumps({"type": "fault", "error": error}))
            await socket.close(1013)
            return
        page = Page()
        self.pages[page.name] = page
        self._count_watchers()
        page.put("state", self._with_demo(self._node.state))
        sending = asyncio.create_task(page.send_all(socket))
        try:
            while not sending.done():
                received = await socket.receive()
                if received["type"] == "websocket.disconnect":
                    break
                await self._take(page, received.get("text") or received.get("bytes") or "")
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError):
                await sending
            del self.pages[page.name]
            self._node.stop(page.name)
            self._count_watchers()

    async def _take(self, page: Page, text: str | bytes) -> None:
        """One message from a page."""
        try:
            message = json.loads(text)
            kind = message["type"] if isinstance(message, dict) else None
        except (ValueError, KeyError, RecursionError):
            kind = None
        try:
            if kind == "drawn":
                page.drawn()
                return
            page.charge()
            self._obey(page, kind, message if kind else {})
        except Misuse as error:
            page.put("fault", {"type": "fault", "error": str(error)})

    def _obey(self, page: Page, kind: str | None, message: dict[str, Any]) -> None:
        if kind == "watch":
            page.watches = _field(message, "on", bool)
            self._count_watchers()
        elif kind == "ask":
            words = {name: _field(message, name, str) for name in ("instruction", "mode")}
            if words["mode"] not in MODE_SUFFIXES:
                raise Misuse(f"the mode must be one of {', '.join(MODE_SUFFIXES)}")
            words["dialogue"] = f"web {_field(message, 'dialogue', str)[:64]}"
            self._node.ask(page.name, _number(message, "ask"), words)
        elif kind == "follow":
            what: dict[str, Any] = {"instruction": _field(message, "instruction", str)}
            if not what["instruction"]:
                what |= {"query_id": _field(message, "query_id", str)}
                what |= {"instance_id": _number(message, "instance_id")}
            if page.follows is not None:
                self._node.stop(page.name, page.follows)
            page.follows = _number(message, "ask")
            self._node.follow(page.name, page.follows, what)
        elif kind == "stop":
            self._node.stop(page.name)
        elif kind == "next_table" and self._demo is not None:
            self._demo.next_table()
            self._deliver("", "state", self._node.state, b"")
        else:
            raise Misuse("the server does not understand this page: reload it")

    def _count_watchers(self) -> None:
        self._node.watch(any(page.watches for page in self.pages.values()))

    def serve(self, listening: socket.socket, certificate: Path | None, key: Path | None) -> None:
        """Serve until SIGINT or SIGTERM."""
        config = uvicorn.Config(
            self.app,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws_max_size=MESSAGE_LIMIT,
            ws_per_message_deflate=False,  # a JPEG does not get smaller
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        uvicorn.Server(config).run(sockets=[listening])


def _field(message: dict[str, Any], name: str, kind: type) -> Any:
    value = message.get(name, kind())
    if type(value) is not kind:
        raise Misuse(f"`{name}` must be of the type {kind.__name__}")
    if kind is str:
        # a lone surrogate is no text that ROS could send, and it ends a text at a NUL
        return value.encode("utf-8", "replace").decode().replace("\0", "?")
    return value


def _number(message: dict[str, Any], name: str) -> int:
    value = _field(message, name, int)
    if not 0 <= value < 2**16:
        raise Misuse(f"`{name}` must lie in 0 .. 65535")
    return value
