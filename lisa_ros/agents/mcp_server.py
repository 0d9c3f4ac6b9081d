"""Eyes for agents: a Model Context Protocol server beside a running perception node.

Six tools: `look`, `find`, `describe`, `follow`, `stop`, `status`. It only perceives: nothing that
it offers moves anything. On the ROS side it is a client like the web page.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import logging
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Annotated, Any

import cv2
import numpy as np
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ImageContent, TextContent, Tool, ToolAnnotations
from pycocotools import mask as coco
from pydantic import Field, ValidationError

from lisa_ros.errors import InstructionError, counted
from lisa_ros.node.results.overlay import mark_masks
from lisa_ros.web.node_client import NodeClient

INSTRUCTIONS = """Eyes of a robot. `find` takes plain words ("the red mug left of the book", \
"something to drink from") and gives mask, score and, with a depth camera, where the thing is. \
Status OK: found. NOT_FOUND: the model says that it is not there. TEXT_ONLY: an answer in words. \
Everything else carries a sentence in `error`. Nothing here moves the robot."""
MOST_BYTES = 200_000  # of an image, as it is sent: base64 and all
SIDES = (1280, 960, 640, 480, 320)  # pixels of the longer side, tried from the largest on
QUALITIES = (85, 65, 45)
FIRST_LOOK = 3.0  # seconds in which a camera has shown an image, if there is one
IMAGE_LIMIT = 3.0  # seconds from an answer to its image
ANSWER_LIMIT = 90.0  # seconds; the node's own limit is shorter
LINGER = 10.0  # seconds after a call in which the camera stays subscribed to
MOST_OPEN = 8  # questions of all agents together; ROS loses what goes beyond 10 requests at once
LONGEST_FOLLOW = 60.0  # seconds of one call


@dataclass
class Call:
    """What has come back from the node for one call of a tool."""

    cancel_reason: str = ""
    """why we have ended it, if we have"""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    has_image: asyncio.Event = field(default_factory=asyncio.Event)
    message: dict[str, Any] = field(default_factory=dict)
    tracks: list[dict[str, Any]] = field(default_factory=list)
    jpeg: bytes = b""


class Eyes:
    """The ROS side, for coroutines."""

    def __init__(self, namespace: str, ros_arguments: list[str]) -> None:
        self._node = NodeClient(namespace, ros_arguments, self._post)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[str, Call] = {}
        self._count = itertools.count(1)
        self._live = b""
        self._shown = asyncio.Event()
        self._users = 0

    @contextlib.asynccontextmanager
    async def open(self, _: MCPServer) -> AsyncIterator[None]:
        """As long as the server runs."""
        if self._loop is None:  # over HTTP each session comes in here
            self._loop = asyncio.get_running_loop()
            self._node.start()
        yield

    def close(self) -> None:
        self._node.close()

    @property
    def state(self) -> dict[str, Any]:
        return self._node.state

    def _post(self, page: str, key: str, message: dict[str, Any], jpeg: bytes) -> None:
        """Called on the ROS thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, page, message, jpeg)

    def _deliver(self, page: str, message: dict[str, Any], jpeg: bytes) -> None:
        kind, call = message["type"], self._calls.get(page)
        if kind == "live" and not page:
            self._live = jpeg
            self._shown.set()
        if call is None:
            return
        if kind == "image":
            call.jpeg = jpeg
            call.has_image.set()
        elif kind == "live":
            call.tracks.append(message)
            call.jpeg = jpeg
        elif kind in ("answer", "failed", "follow_ended"):
            call.message = message
            call.ended.set()

    @contextlib.asynccontextmanager
    async def looking(self) -> AsyncIterator[None]:
        """While somebody wants images: the camera is subscribed to, and has shown an image."""
        self._users += 1
        self._node.watch(True)
        try:
            with contextlib.suppress(asyncio.TimeoutError):
                if self.state["ready"] and not self.state["camera"]:
                    await asyncio.wait_for(self._shown.wait(), FIRST_LOOK)
            yield
        finally:
            asyncio.get_running_loop().call_later(LINGER, self._leave)

    def _leave(self) -> None:
        self._users -= 1
        if not self._users:
            self._node.watch(False)
            self._live, self._shown = b"", asyncio.Event()

    async def look(self) -> bytes:
        """The newest image as JPEG; empty if none comes any more."""
        async with self.looking():
            self._shown.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._shown.wait(), FIRST_LOOK)
                return self._live  # it has just come, whatever the node said a second ago
            state = self.state  # with a fault in it what we still have is of an earlier time
            return b"" if state["node"] or state["camera"] else self._live

    async def ask(self, instruction: str, mode: str, dialogue: str = "") -> Call:
        """Ask and wait for the answer and its image."""
        if len(self._calls) >= MOST_OPEN:
            return rejected(instruction)
        async with self._call() as (name, call):
            words = {"instruction": instruction, "mode": mode, "dialogue": dialogue}
            self._node.ask(name, 1, words)
            await self._end_of(call)
            if call.message.get("width"):
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(call.has_image.wait(), IMAGE_LIMIT)
            return call

    async def follow(self, instruction: str, seconds: float) -> Call:
        """Follow a thing for so long, or until it is lost."""
        if len(self._calls) >= MOST_OPEN:
            return rejected(instruction)
        async with self._call() as (name, call):
            self._node.follow(name, 1, {"instruction": instruction})
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(call.ended.wait(), seconds)
                return call
            over = "is over" if seconds == 1 else "are over"
            call.cancel_reason = call.cancel_reason or f"the {seconds:g} s {over}"
            self._node.stop(name)
            await self._end_of(call)
            return call

    @contextlib.asynccontextmanager
    async def _call(self) -> AsyncIterator[tuple[str, Call]]:
        """A call with its name on the ROS side, while the camera is looked at."""
        name = f"call {next(self._count)}"
        self._calls[name] = call = Call()
        try:
            async with self.looking():
                yield name, call
        finally:
            self._node.stop(name)  # the agent may have hung up
            del self._calls[name]

    async def _end_of(self, call: Call) -> None:
        try:
            await asyncio.wait_for(call.ended.wait(), ANSWER_LIMIT)
        except asyncio.TimeoutError:
            raise ToolError(f"no answer within {ANSWER_LIMIT:.0f} s: `status` says why") from None

    def stop(self) -> int:
        """Take back everything that is open; how much that was."""
        for name, call in self._calls.items():
            call.cancel_reason = "it was stopped"
            self._node.stop(name)
        return len(self._calls)


def rejected(instruction: str) -> Call:
    """What a question gets that comes while too many are open."""
    call = Call()
    call.message = {
        "type": "answer",
        "query": instruction,
        "status": "REJECTED",
        "error": f"{MOST_OPEN} questions are open already: wait for an answer, or stop them",
        "answer": "",
        "instances": [],
    }
    return call


def image_with_masks(jpeg: bytes, instances: list[dict[str, Any]]) -> list[ImageContent]:
    """The image with its masks drawn, of at most `MOST_BYTES`; none without an image."""
    pixels = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR) if jpeg else None
    if pixels is None:
        return []
    masks = [coco.decode(json.loads(one["mask"])) for one in instances if one["mask"]]
    masks = [mask.astype(bool) for mask in masks if mask.any()]
    if masks and masks[0].shape != pixels.shape[:2]:  # a live image may have been made smaller
        size = (pixels.shape[1], pixels.shape[0])
        masks = [
            cv2.resize(mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
            for mask in masks
        ]
    if masks:
        pixels = np.ascontiguousarray(mark_masks(pixels[..., ::-1].copy(), masks)[..., ::-1])
    longest = max(pixels.shape[:2])
    for side in SIDES:
        scale = min(1.0, side / longest)
        smaller = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for quality in QUALITIES:
            done, data = cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, quality])
            text = base64.b64encode(data.tobytes()).decode()
            if done and len(text) <= MOST_BYTES:
                return [ImageContent(data=text, mime_type="image/jpeg")]
    return []


def result(structured: dict[str, Any], words: str, images: list[ImageContent]) -> CallToolResult:
    """What a tool gives back: words for the model, the same as data, the image."""
    content = [TextContent(text=words), *images]
    return CallToolResult(content=content, structured_content=structured)


def answered(call: Call) -> CallToolResult:
    """The answer to one instruction."""
    message = call.message
    if message["type"] == "failed":
        raise ToolError(message["error"])
    instances = message["instances"]
    structured = {key: value for key, value in message.items() if key not in ("type", "ask")}
    # the image shows the masks; run lengths are nothing that a language model reads
    structured["instances"] = [
        {key: value for key, value in one.items() if key not in ("mask", "track")}
        for one in instances
    ]
    words = message["answer"] or message["error"]
    lines = [f"{message['status']}: {words}" if words else message["status"]]
    return result(structured, told(lines, instances), image_with_masks(call.jpeg, instances))


def followed(call: Call) -> CallToolResult:
    """How following a thing went."""
    instances = call.tracks[-1]["instances"] if call.tracks else []
    images = len(call.tracks)
    seen = sum(any(one["track"] == "visible" for one in t["instances"]) for t in call.tracks)
    reason = call.cancel_reason or call.message["reason"]
    structured = {
        "instances": [{k: v for k, v in one.items() if k != "mask"} for one in instances],
        "images": seen,
        "reason": reason,
    }
    lines = [f"Seen in {seen} of {counted(images, 'image')}, then following ended: {reason}"]
    if not images:
        lines = [f"Nothing was followed: {reason}"]
    return result(structured, told(lines, instances), image_with_masks(call.jpeg, instances))


def told(lines: list[str], instances: list[dict[str, Any]]) -> str:
    """The sentences, then a line for each thing: many agents show their model nothing but text."""
    for number, one in enumerate(instances, 1):
        facts = [] if one["score"] is None else [f"score {one['score']:.2f}"]
        facts.append("box x {}, y {}, width {}, height {}".format(*one["box"]))
        if one["track"] and one["track"] != "visible":
            facts = [one["track"]]
        elif "position" in one:
            facts.append("at {}, {}, {} m in {}".format(*one["position"], one["frame_id"]))
            facts.append("{} x {} x {} m large".format(*one["size"]))
        lines.append(f"{number}. {one['label']}: {', '.join(facts)}")
    return "\n".join(lines)


class AgentServer(MCPServer):
    """Says in one sentence what an agent did wrong, in place of the validator's report."""

    async def list_tools(self) -> list[Tool]:
        tools = await super().list_tools()
        for tool in tools:
            tool.input_schema["additionalProperties"] = False
        return tools

    async def call_tool(self, name: str, arguments: dict[str, Any], context: Any = None) -> Any:
        tools = {tool.name: tool for tool in await self.list_tools()}
        if name not in tools:
            raise ToolError(f"there is no tool {name!r:.40}; there are {', '.join(tools)}")
        takes = {key: allowed(one) for key, one in tools[name].input_schema["properties"].items()}
        for key in arguments.keys() - takes.keys():
            known = " and ".join(f"`{one}`, {what}" for one, what in takes.items())
            raise ToolError(
                f"{name} takes no {key!r:.40}; it takes {known or 'no argument at all'}"
            )
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            cause = error.__cause__
            if isinstance(cause, ValidationError):
                first = cause.errors()[0]
                key, value = str(first["loc"][0]), first["input"]
                if first["type"] == "missing":
                    raise ToolError(f"{name} needs `{key}`, {takes[key]}") from None
                given = f"{value!r:.40}"
                if isinstance(value, str) and len(value) > 40:
                    given = f"a text of {len(value)} characters"
                raise ToolError(f"`{key}` of {name} must be {takes[key]}, not {given}") from None
            if isinstance(cause, ToolError):  # without the package's "Error executing tool ..."
                raise cause from None
            if isinstance(cause, InstructionError):
                raise ToolError(str(cause)) from None
            raise


def allowed(schema: dict[str, Any]) -> str:
    """What an argument may be, by its JSON schema."""
    if schema["type"] == "string":
        return f"a text of {schema.get('minLength', 0)} to {schema['maxLength']} characters"
    return f"a number above {schema['exclusiveMinimum']:g} and at most {schema['maximum']:g}"


SEES = ToolAnnotations(read_only_hint=True, open_world_hint=False)
Words = Annotated[str, Field(min_length=1, max_length=1000, description="plain words")]
Seconds = Annotated[
    float,
    # strict: neither "2" nor True is a number
    Field(gt=0, le=LONGEST_FOLLOW, strict=True, description="how long to watch it"),
]


def make_server(eyes: Eyes) -> MCPServer:
    """The server with its six tools."""
    server = AgentServer(
        "lisa_ros", instructions=INSTRUCTIONS, lifespan=eyes.open, log_level="WARNING"
    )

    @server.tool(annotations=SEES)
    async def look() -> CallToolResult:
        """The image that the robot's camera shows now."""
        jpeg = await eyes.look()
        if not jpeg:
            state = eyes.state
            raise ToolError(state["node"] or state["camera"] or "the camera shows no new image")
        return result(
            {"topic": eyes.state["topic"]}, "The camera's image.", image_with_masks(jpeg, [])
        )

    @server.tool(annotations=SEES)
    async def find(instruction: Words) -> CallToolResult:
        """Find what is meant: mask, score, box in pixels and, with depth, its place in metres."""
        # this mode has words beside the mask: of mask alone, none
        return answered(await eyes.ask(instruction, "explain"))

    @server.tool(annotations=SEES)
    async def describe(
        question: Words = "What do you see?",
        dialogue: Annotated[str, Field(max_length=100, description="name of a conversation")] = "",
    ) -> CallToolResult:
        """Ask about the image in words; questions with the same dialogue see each other."""
        return answered(await eyes.ask(question, "text", dialogue))

    @server.tool(annotations=SEES)
    async def follow(instruction: Words, seconds: Seconds = 5.0) -> CallToolResult:
        """Keep a thing in view for some seconds: where it was at the end, or why it was lost."""
        call = await eyes.follow(instruction, seconds)
        return answered(call) if call.message["type"] != "follow_ended" else followed(call)

    @server.tool(annotations=SEES)
    async def stop() -> CallToolResult:
        """Take back every question that is still open here."""
        count = eyes.stop()
        what = "question was" if count == 1 else "questions were"
        return result({"stopped": count}, f"{count} open {what} taken back.", [])

    @server.tool(annotations=SEES)
    async def status() -> CallToolResult:
        """Whether the perception node is ready, which model it has, and why no image comes.

        `ready` is about the node alone; `camera` is empty as soon as images come.
        """
        state = {key: value for key, value in eyes.state.items() if key != "type"}
        words = state["node"] or state["camera"] or f"Ready: {state['model']} on {state['device']}."
        return result(state, words, [])

    return server


def serve(eyes: Eyes, transport: str, host: str, port: int) -> None:
    """Serve until the other side hangs up, or SIGINT."""
    # standard output belongs to the protocol
    logging.basicConfig(level=logging.WARNING)
    server = make_server(eyes)
    ended: Future[None] = Future()

    def run() -> None:
        try:
            ended.set_result(server.run("stdio"))
        except BaseException as error:
            ended.set_exception(error)

    try:
        if transport == "stdio":
            # its reader waits for the agent's next line, whatever signal comes
            threading.Thread(target=run, daemon=True).start()
            ended.result()
        else:
            server.run("streamable-http", host=host, port=port)
    finally:
        eyes.close()
