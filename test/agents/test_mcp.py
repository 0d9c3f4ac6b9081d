"""The MCP server beside a node, by the official client."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mcp import Client, StdioServerParameters
from node_rig import ROOT, Process, Rig, drawn_image, rig, wait_for

from lisa_ros.agents import mcp_server
from lisa_ros.cli import main


def paths() -> str:
    """For a process of ours: what a ROS installation or the user has put there stays reachable."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


MCP = [sys.executable, "-m", "lisa_ros.cli", "mcp"]
QUEUE = 10  # query.queue_size
WORDS = "a text of 1 to 1000 characters"
SECONDS = "a number above 0 and at most 60"
NUL = "the instruction is no text: its character 2 is a NUL"
WRONG = (
    ("find", {}, f"find needs `instruction`, {WORDS}"),
    ("find", {"instruction": 7}, f"`instruction` of find must be {WORDS}, not 7"),
    ("find", {"instruction": None}, f"`instruction` of find must be {WORDS}, not None"),
    (
        "find",
        {"instruction": ""},
        f"`instruction` of find must be {WORDS}, not ''",
    ),
    (
        "find",
        {"instruction": "x" * 2000},
        f"`instruction` of find must be {WORDS}, not a text of 2000 characters",
    ),
    ("find", {"instruction": "a\0b"}, NUL),
    ("describe", {"question": "a\0b"}, NUL),
    ("follow", {"instruction": "a\0b"}, NUL),
    (
        "find",
        {"instruction": "the mug", "mode": "text"},
        f"find takes no 'mode'; it takes `instruction`, {WORDS}",
    ),
    ("look", {"topic": "/tf"}, "look takes no 'topic'; it takes no argument at all"),
    (
        "follow",
        {"instruction": "the mug", "seconds": 0},
        f"`seconds` of follow must be {SECONDS}, not 0",
    ),
    (
        "follow",
        {"instruction": "the mug", "seconds": "2"},
        f"`seconds` of follow must be {SECONDS}, not '2'",
    ),
    (
        "follow",
        {"instruction": "the mug", "seconds": True},
        f"`seconds` of follow must be {SECONDS}, not True",
    ),
    (
        "follow",
        {"instruction": "the mug", "for": 3},
        f"follow takes no 'for'; it takes `instruction`, {WORDS} and `seconds`, {SECONDS}",
    ),
    (
        "grasp",
        {},
        "there is no tool 'grasp'; there are look, find, describe, follow, stop, status",
    ),
)
TOOLS = {"look", "find", "describe", "follow", "stop", "status"}


@pytest.fixture(scope="module")
def robot() -> Iterator[Rig]:
    with rig() as made:
        made.start("-p", f"query.queue_size:={QUEUE}")
        made.film(10.0, drawn_image(160, 120))
        yield made


@pytest.fixture(scope="module")
def address(robot: Rig) -> Iterator[str]:
    process = Process([*MCP, "--http", "--port", "0"], robot.domain)

    def listens() -> str:
        assert process.alive, process.log
        found = re.search(r"MCP server: (http://127.0.0.1:(\d+)/mcp)", process.log)
        with socket.socket() as probe:
            return found[1] if found and not probe.connect_ex(("127.0.0.1", int(found[2]))) else ""

    yield wait_for(listens, "the server to listen")
    process.stop()
    assert "Traceback" not in process.log, process.log


async def ready(client: Client) -> None:
    """Until the server has found the node."""
    for _ in range(600):
        status = await client.call_tool("status", {})
        if status.structured_content["ready"]:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(status)


async def call_every_tool(client: Client) -> None:
    """Each tool once, with what an agent needs of it."""
    assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
    await ready(client)

    seen = await client.call_tool("look", {})
    assert not seen.is_error, seen
    assert seen.content[1].mime_type == "image/jpeg"

    found = await client.call_tool("find", {"instruction": "the red mug"})
    answer = found.structured_content
    assert answer["status"] == "OK" and answer["query"] == "the red mug"
    assert answer["mode"] == "explain"  # has words beside the mask
    one = answer["instances"][0]
    assert one["score"] > 0 and len(one["box"]) == 4 and "mask" not in one
    assert "pose_reason" in one
    # all that a model is shown by agents that pass nothing but text on
    said = found.content[0].text.splitlines()
    assert said[0] == "OK: Sure, it is here."
    assert said[1].startswith("1. it: score 0.90, box x ")
    shown = found.content[1]
    assert len(shown.data) <= 200_000
    assert base64.b64decode(shown.data)[:2] == b"\xff\xd8"
    assert shown.data != seen.content[1].data, "the masks are drawn in"

    described = await client.call_tool("describe", {"question": "what is this?"})
    assert described.structured_content["mode"] == "text"
    remembered = []
    for _ in range(2):
        words = {"question": "history", "dialogue": "kitchen"}
        described = await client.call_tool("describe", words)
        said = described.structured_content["answer"]
        remembered.append(int(re.match(r"I remember (\d+):", said)[1]))
    assert remembered[1] == remembered[0] + 1, "the dialogue is handed on"

    followed = await client.call_tool("follow", {"instruction": "the red mug", "seconds": 1.0})
    assert not followed.is_error, followed
    images = followed.structured_content["images"]
    assert images > 0
    assert followed.structured_content["reason"] == "the 1 s is over"
    said = followed.content[0].text.splitlines()
    assert said[0].startswith(f"Seen in {images} of ")
    assert said[0].endswith(" images, then following ended: the 1 s is over")
    assert said[1].startswith("1. it: score 0.80, box x ")

    assert (await client.call_tool("stop", {})).structured_content == {"stopped": 0}

    for tool, arguments, sentence in WRONG:
        answer = await client.call_tool(tool, arguments)
        assert answer.is_error and answer.content[0].text == sentence
    assert (await client.call_tool("status", {})).structured_content["ready"]


def test_every_tool_over_http(address: str) -> None:
    async def talk() -> None:
        async with Client(address) as client:
            await call_every_tool(client)

    asyncio.run(talk())


def test_every_tool_over_stdio(robot: Rig) -> None:
    async def talk() -> None:
        variables = {**os.environ, "ROS_DOMAIN_ID": str(robot.domain), "PYTHONPATH": paths()}
        server = StdioServerParameters(command=MCP[0], args=MCP[1:], env=variables)
        async with Client(server) as client:
            await call_every_tool(client)

    asyncio.run(talk())


def test_a_hundred_calls_at_once_each_end_once(address: str, robot: Rig) -> None:
    async def talk() -> list:
        async with Client(address) as client:
            await ready(client)
            asked = (client.call_tool("find", {"instruction": f"long:20 {n}"}) for n in range(100))
            return await asyncio.gather(*asked)

    before = len(robot.results)
    results = asyncio.run(talk())
    failed = [one.content[0].text for one in results if one.is_error]
    assert not failed, failed
    statuses = Counter(one.structured_content["status"] for one in results)
    assert sum(statuses.values()) == 100
    assert set(statuses) <= {"OK", "REJECTED"}
    assert statuses["REJECTED"] > 0 and 0 < statuses["OK"] <= QUEUE + 1
    for one in results:
        answer = one.structured_content
        assert answer["query"].startswith("long:20")
        assert (answer["status"] == "OK") != bool(answer["error"])
    wait_for(lambda: len(robot.results) - before >= statuses["OK"], "a message for each")
    assert len({one.query for one in robot.results[before:]}) == statuses["OK"]


def test_what_is_stopped_says_so(address: str) -> None:
    async def talk() -> None:
        async with Client(address) as client:
            await ready(client)
            words = {"instruction": "the red mug", "seconds": 60}
            asked = asyncio.create_task(client.call_tool("follow", words))
            while not (stopped := await client.call_tool("stop", {})).structured_content["stopped"]:
                await asyncio.sleep(0.1)
            assert stopped.content[0].text == "1 open question was taken back."
            assert (await asked).structured_content["reason"] == "it was stopped"

    asyncio.run(talk())


def test_pages_of_other_origins_are_kept_out(address: str) -> None:
    """What a page in the browser of the robot's own machine could send."""
    place = address.removeprefix("http://").removesuffix("/mcp")
    for foreign in ({"Origin": "https://evil.example"}, {"Host": "evil.example"}):
        connection = http.client.HTTPConnection(place, timeout=180.0)
        headers = {"Content-Type": "application/json", "Accept": "application/json"} | foreign
        connection.request("POST", "/mcp", b"{}", headers)
        assert connection.getresponse().status in (403, 421), foreign


def test_a_node_that_goes_away_and_no_camera(address: str, robot: Rig) -> None:
    async def talk() -> None:
        async with Client(address) as client:
            await ready(client)
            asked = asyncio.create_task(client.call_tool("find", {"instruction": "endless"}))
            await asyncio.sleep(1.0)
            next(process for process in robot.processes if process.alive).process.kill()
            gone = await asked
            assert gone.is_error and "perception node" in gone.content[0].text
            await asyncio.to_thread(robot.start, "-p", "input.warn_after:=1.0")
            robot.cut()
            while not (state := (await client.call_tool("status", {})).structured_content)[
                "camera"
            ]:
                await asyncio.sleep(0.2)
            assert state["ready"]
            seen = await client.call_tool("look", {})
            assert seen.is_error and seen.content[0].text.startswith("no image since")
            found = await client.call_tool("find", {"instruction": "the red mug"})
            answer = found.structured_content
            assert answer["status"] in ("NO_IMAGE", "STALE_IMAGE") and answer["error"]
            assert found.content[0].text == f"{answer['status']}: {answer['error']}"

    asyncio.run(talk())
    robot.film(10.0, drawn_image(160, 120))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--host", "0.0.0.0"], "it has no password: --host takes 127.0.0.1, localhost, ::1"),
        (["--port", "99999"], "cannot listen on 127.0.0.1, port 99999"),
    ],
)
def test_addresses_that_are_refused(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["mcp", "--http", *arguments]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "model", "reason"),
    [
        (["mcp"], "{folder}", "cannot configure: {folder}"),
        (["web", "--port", "0"], "{folder}", "cannot configure: {folder}"),
    ],
)
def test_a_demonstration_whose_node_cannot_be_configured_ends_with_its_reason(
    command: list[str], model: str, reason: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")  # a folder that is there, and no model
    line = [*MCP[:-1], *command, "--demo", "--model", model.format(folder=tmp_path)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)  # the agent stays
    variables = {**os.environ, "PYTHONPATH": paths()}
    with subprocess.Popen(line, env=variables, text=True, **pipes) as process:
        try:
            assert process.wait(120.0) == 2
        finally:
            process.terminate()
        said = process.stderr.read()
    assert f"lisa-ros {command[0]}: the perception node could not be started" in said
    assert reason.format(folder=tmp_path) in said and "Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_over_stdio_a_signal_ends_it_though_the_agent_stays(number: int, robot: Rig) -> None:
    variables = {**os.environ, "ROS_DOMAIN_ID": str(robot.domain), "PYTHONPATH": paths()}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(MCP, env=variables, text=True, **pipes) as process:
        try:
            hello = {"protocolVersion": "2025-06-18", "capabilities": {}}
            hello |= {"clientInfo": {"name": "test", "version": "1"}}
            request = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            assert "serverInfo" in process.stdout.readline()
            process.send_signal(number)
            assert process.wait(60.0) == 0
        finally:
            process.kill()


def test_a_server_that_raises_over_stdio_is_no_ordered_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed = []

    def broken(transport: str) -> None:
        raise RuntimeError(f"broken over {transport}")

    server = SimpleNamespace(run=broken)
    monkeypatch.setattr(mcp_server, "make_server", lambda eyes: server)
    with pytest.raises(RuntimeError, match="broken over stdio"):
        mcp_server.serve(SimpleNamespace(close=lambda: closed.append(1)), "stdio", "", 0)
    assert closed


def test_an_image_is_made_small_enough_to_be_sent() -> None:
    pixels = drawn_image(1600, 1200)  # noise: nothing takes more bytes
    jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    assert len(jpeg) > 1_000_000
    [image] = mcp_server.image_with_masks(jpeg, [])
    assert len(image.data) <= 200_000
    small = cv2.imdecode(np.frombuffer(base64.b64decode(image.data), np.uint8), cv2.IMREAD_COLOR)
    assert small.shape[1] * 3 == small.shape[0] * 4 and small.shape[1] >= 320


def test_a_port_that_is_taken(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = address.removesuffix("/mcp").rpartition(":")[2]
    assert main(["mcp", "--http", "--port", port]) == 2
    assert "choose with --host and --port" in capsys.readouterr().err


def test_without_a_node_every_tool_says_so(robot: Rig) -> None:
    async def talk() -> None:
        arguments = [*MCP[1:], "--namespace", "nobody"]
        variables = {**os.environ, "ROS_DOMAIN_ID": str(robot.domain), "PYTHONPATH": paths()}
        server = StdioServerParameters(command=MCP[0], args=arguments, env=variables)
        async with Client(server) as client:
            for name, words in (
                ("look", {}),
                ("find", {"instruction": "the red mug"}),
                ("follow", {"instruction": "the red mug"}),
            ):
                answer = await client.call_tool(name, words)
                assert answer.is_error
                assert "no perception node answers as /nobody/perception" in answer.content[0].text

    asyncio.run(talk())
