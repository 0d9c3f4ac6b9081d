"""A node whose model was fetched from a hub answers, and asks no hub for anything."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("lisa_ros.msg", reason="the ROS messages are not built")

from node_rig import rig, wait_for
from official_layout import TOWER, write_official
from small_hub import VARIABLES, fetch, small_hub

from lisa_ros.node.status import Status

WATCHED = """
import sys
CALLS = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
def watch(event, arguments):
    if event in CALLS:
        print("NETWORK", event, arguments[1:], file=sys.stderr, flush=True)
sys.addaudithook(watch)
from lisa_ros.cli import main
short = ["--ros-args", "-p", "query.max_new_tokens:=8"]
sys.exit(main(["node", "--model", "lab/lisa", "--device", "cpu", *short]))
"""


def tcp_sockets(pid: int) -> set[str]:
    """The TCP sockets of a process, by their inode."""
    own = {path.readlink().name for path in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        found |= {row.split()[9] for row in rows}
    return {inode for inode in found if f"socket:[{inode}]" in own}


def test_a_model_of_the_hub_answers_and_the_node_asks_no_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dict.fromkeys(("vision_tower", "mm_vision_tower"), "lab/clip")
    lisa = write_official(tmp_path / "lisa", settings=settings)
    with small_hub(lab__lisa=lisa, lab__clip=TOWER) as hub, rig() as robot:
        assert fetch(hub, tmp_path / "home", "lab/lisa")[0] == 0
        hub.requests.clear()
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        node = robot.start(command=[sys.executable, "-c", WATCHED])
        robot.film()
        answered = {Status.OK, Status.NOT_FOUND, Status.TEXT_ONLY}
        wait_for(lambda: robot.ask("the mug").status in answered, "an answer", 400)
        assert hub.requests == [] and tcp_sockets(node.process.pid) == set()
        assert "NETWORK" not in node.log
