"""The MCP server beside a node, by the official client."""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from mcp import Client, StdioServerParameters
from node_rig import ROOT, Process, Rig, picture, rig, wait_for


def paths() -> str:
    """For a process of ours: what a ROS installation or the user has put there stays reachable."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


MCP = [sys.executable, "-m", "lisa_ros.cli", "mcp"]
QUEUE = 10  # query.queue_size
TOOLS = {"look", "find", "describe", "follow", "stop", "status"}


@pytest.fixture(scope="module")
def robot() -> Iterator[Rig]:
    with rig() as made:
        made.start("-p", f"query.queue_size:={QUEUE}")
        made.film(10.0, picture(160, 120))
        yield made


@pytest.fixture(scope="module")
def address(robot: Rig) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = Process([*MCP, "--http", "--port", str(port)], robot.domain)

    def listens() -> bool:
        assert process.alive, process.log
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens, "the server to listen", 120.0)
    yield f"http://127.0.0.1:{port}/mcp"
    process.stop()
    assert "Traceback" not in process.log, process.log


async def ready(client: Client) -> None:
    """Until the server has found the node."""
    for _ in range(200):
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
    one = answer["instances"][0]
    assert one["score"] > 0 and len(one["box"]) == 4 and "mask" not in one
    assert "pose_reason" in one
    assert found.content[0].text.startswith("OK")
    shown = found.content[1]
    assert len(shown.data) <= 200_000
    assert base64.b64decode(shown.data)[:2] == b"\xff\xd8"
    assert shown.data != seen.content[1].data, "the masks are drawn in"

    described = await client.call_tool("describe", {"question": "what is this?"})
    assert described.structured_content["mode"] == "text"

    followed = await client.call_tool("follow", {"instruction": "the red mug", "seconds": 1.0})
    assert not followed.is_error, followed
    assert followed.structured_content["images"] > 0

    assert (await client.call_tool("stop", {})).structured_content == {"stopped": 0}

    for wrong in ({}, {"instruction": 7}, {"instruction": ""}, {"instruction": "x" * 2000}):
        assert (await client.call_tool("find", wrong)).is_error, wrong
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
