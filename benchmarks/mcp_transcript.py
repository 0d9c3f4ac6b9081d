"""What an agent sees: every tool of `lisa-ros mcp --demo`, by the official client.

    python -m benchmarks.mcp_transcript [--write docs/agents.md]

The calls go over standard input and output first, then the same over streamable HTTP. The
transcript shows the first; of the second, which of the same calls ended in the same way.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mcp import Client, StdioServerParameters

from benchmarks.generated_tables import page_option, show
from lisa_ros.errors import LisaError
from lisa_ros.node.client import NodeProcess

SERVER = [sys.executable, "-m", "lisa_ros.cli", "mcp", "--demo"]
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("status", {}),
    ("look", {}),
    ("find", {"instruction": "Pass me the banana, please."}),
    ("find", {"instruction": "the green teapot"}),
    ("describe", {"question": "What do you see?"}),
    ("follow", {"instruction": "the banana", "seconds": 2.0}),
    ("find", {"instruction": 7}),
    ("find", {"instruction": "the mug", "mode": "text"}),
    ("stop", {}),
)
SHOWN = ("status", "ready", "model", "instances", "images", "stopped", "topic", "error", "reason")
ABOUT = ("label", "score", "box", "position", "size", "pose_reason")
LIMIT = 120.0  # seconds until the node of the demonstration is ready
WIDTH = 150  # characters of a line


async def ready(client: Client) -> None:
    end = time.monotonic() + LIMIT
    while True:
        status = await client.call_tool("status", {})
        state = status.structured_content
        if state["ready"] and not state["camera"]:
            return
        if time.monotonic() > end:
            raise LisaError(f"the demonstration's node is not ready: {status.content[0].text}")
        await asyncio.sleep(0.5)


async def converse(client: Client) -> list[tuple[str, Any]]:
    """Every call of `CALLS` with its result."""
    tools = {tool.name for tool in (await client.list_tools()).tools}
    missing = tools - {name for name, _ in CALLS}
    if missing:
        raise LisaError(f"the transcript calls no {', '.join(sorted(missing))}")
    await ready(client)
    return [
        (f"{name}({json.dumps(words)})", await client.call_tool(name, words))
        for name, words in CALLS
    ]


def shortened(data: dict[str, Any]) -> dict[str, Any]:
    """The fields that the page shows; those of an instance that say something."""
    shown = {key: data[key] for key in SHOWN if data.get(key) not in (None, "")}
    if "instances" in shown:
        shown["instances"] = [
            {key: one[key] for key in ABOUT if one.get(key)} for one in shown["instances"]
        ]
    return shown


def told(result: Any) -> list[str]:
    """The lines of one result."""
    lines = []
    for part in result.content:
        if part.type == "image":
            jpeg = np.frombuffer(base64.b64decode(part.data), np.uint8)
            height, width = cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape[:2]
            lines.append(f"image: {width}x{height}, {len(part.data) / 1000:.0f} kB")
        else:
            mark = "error: " if result.is_error else ""
            lines += [f"{mark}{line}" for line in part.text.splitlines()]
    if result.structured_content and not result.is_error:
        lines.append(f"data: {json.dumps(shortened(result.structured_content))}")
    return [line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…" for line in lines]


async def over_stdio() -> list[tuple[str, Any]]:
    server = StdioServerParameters(command=SERVER[0], args=SERVER[1:], env=dict(os.environ))
    async with Client(server) as client:
        return await converse(client)


async def over_http(log: Path) -> list[tuple[str, Any]]:
    with NodeProcess([*SERVER, "--http", "--port", "0"], log) as process:
        while True:
            process.check()
            found = re.search(r"MCP server: (http://127.0.0.1:(\d+)/mcp)", process.log)
            with socket.socket() as probe:
                if found and probe.connect_ex(("127.0.0.1", int(found[2]))) == 0:
                    break
            await asyncio.sleep(0.2)
        async with Client(found[1]) as client:
            return await converse(client)


def outcome(result: Any) -> Any:
    """How a call ended: its status, or whether it was an error."""
    data = result.structured_content or {}
    return result.is_error or data.get("status", "done")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    page_option(parser, "--write", "transcript")
    args = parser.parse_args()
    first = asyncio.run(over_stdio())
    with tempfile.TemporaryDirectory(prefix="lisa_ros_mcp_") as folder:
        second = asyncio.run(over_http(Path(folder) / "server.log"))
    lines = []
    for call, result in first:
        lines += [f"> {call}", *(f"  {line}" for line in told(result))]
    pairs = zip(first, second, strict=True)
    same = sum(outcome(one) == outcome(other) for (_, one), (_, other) in pairs)
    lines.append(f"# over HTTP: {same} of {len(first)} calls ended in the same way")
    show("\n".join(["```", *lines, "```"]), args.write, "transcript")


if __name__ == "__main__":
    main()
