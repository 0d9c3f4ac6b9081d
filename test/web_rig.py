"""A web process beside a node and a camera, and a visitor of its page without a browser."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from node_rig import Process, Rig, wait_for
from websockets.sync.client import ClientConnection, connect

LIMIT = 180.0  # seconds; far beyond what anything here takes on quiet cores
WIDTH, HEIGHT = 160, 120


def start_web(robot: Rig, *arguments: str) -> tuple[Process, str]:
    """The web process in the robot's domain, and its link."""
    command = [sys.executable, "-m", "lisa_ros.cli", "web", "--port", "0", *arguments]
    process = Process(command, robot.domain)
    robot.processes.append(process)
    return process, link_of(process)


def link_of(process: Process) -> str:
    """What it prints once it listens."""

    def link() -> str:
        process.check()
        found = re.search(r"The page: (\S+)", process.log)
        return found.group(1) if found else ""

    return wait_for(link, "the page's link", LIMIT)


class Visitor:
    """What the page's script does, without a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.count = socket, 0
        self.state: dict[str, Any] = {}
        self.heard: list[tuple[dict[str, Any], bytes]] = []

    def send(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def ask(self, instruction: str, mode: str = "auto") -> int:
        self.count += 1
        self.send(type="ask", ask=self.count, instruction=instruction, mode=mode, dialogue="a")
        return self.count

    def next(self, *kinds: str, ask: int | None = None) -> dict[str, Any]:
        """The next message of one of these kinds; all that come are kept in `heard`."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            data = self.socket.recv(timeout=LIMIT)
            jpeg = b""
            if isinstance(data, bytes):
                length = int.from_bytes(data[:4], "little")
                data, jpeg = data[4 : 4 + length].decode(), data[4 + length :]
            message = json.loads(data)
            self.heard.append((message, jpeg))
            if message["type"] == "state":
                self.state = message
            if message["type"] in kinds and ask in (None, message.get("ask")):
                return message
        raise AssertionError(f"waited in vain for {kinds}; heard {self.kinds}")

    def answer(self, instruction: str) -> dict[str, Any]:
        return self.next("answer", "failed", ask=self.ask(instruction))

    def until(self, name: str, *values: Any) -> Any:
        """Wait for the state's field to have one of these values."""
        while self.state.get(name) not in values:
            self.next("state")
        return self.state[name]

    @property
    def kinds(self) -> list[str]:
        return [message["type"] for message, _ in self.heard]


@contextmanager
def visit(address: str, **options: Any) -> Iterator[Visitor]:
    options.setdefault("max_size", None)
    with connect(f"ws://{address}/socket", **options) as socket:
        visitor = Visitor(socket)
        visitor.until("ready", True)
        yield visitor
