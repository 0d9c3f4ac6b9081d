"""A real `lisa-ros serve` with nano, one for all tests here, and robots that ask it."""

from __future__ import annotations

import asyncio
import io
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from node_rig import START, drawn_image, wait_for
from PIL import Image

from lisa_ros.demo.recorded_camera import IMAGE, read_questions, read_recording
from lisa_ros.engine import AnswerStatus, load_engine
from lisa_ros.errors import (
    BusyError,
    ImageError,
    InstructionError,
    LisaError,
    ServerError,
    ServerUnreachable,
)
from lisa_ros.node.client import NodeProcess
from lisa_ros.serving import remote, wire
from lisa_ros.serving.remote import TOKEN, RemoteEngine
from lisa_ros.serving.remote_tracker import RemoteTracker
from lisa_ros.serving.server import ServeOptions, check_options
from lisa_ros.tracking.follow import Follower
from lisa_ros.tracking.tracker import mask_iou

ROBOTS = 8
SECRET = "correct-horse-battery-staple"
MOST_PIXELS = 640 * 480


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def lisa_ros_serve(folder: Path, *options: str) -> Iterator[tuple[NodeProcess, str, int]]:
    """A server's process, its address and the port of its metrics."""
    port, metrics = free_port(), free_port()
    command = [sys.executable, "-m", "lisa_ros.cli", "serve", "--port", str(port)]
    command += ["--metrics-port", str(metrics), *options]
    log = folder / "log.txt"
    with NodeProcess(command, log, name="server", environment={TOKEN: SECRET}) as process:

        def ready() -> bool:
            process.check()
            return "stop with Ctrl-C" in process.log

        wait_for(ready, "the server", START)
        yield process, f"http{'s' * ('--tls-key' in options)}://127.0.0.1:{port}", metrics


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    """One server for most tests: its process, its address and where its metrics are."""
    options = ("--max-pixels", str(MOST_PIXELS), "--batch", "2", "--queue", "4")
    with lisa_ros_serve(tmp_path_factory.mktemp("serve"), *options) as (process, *where):
        yield process, *where
        assert process.end() == 0, f"a server that is told to stop does so\n{process.log}"


@pytest.fixture
def robot(serving, monkeypatch):
    """Makes a robot that has the token and sends images without loss."""
    monkeypatch.setenv(TOKEN, SECRET)
    return lambda: RemoteEngine(serving[1])


@pytest.fixture(scope="module")
def scenes() -> dict[int, np.ndarray]:
    """The demonstration's first images by their seed."""
    recorded = {scene.seed: scene.frames[0][IMAGE].data.tobytes() for scene in read_recording()}
    return {seed: np.asarray(Image.open(io.BytesIO(file))) for seed, file in recorded.items()}


def test_answers_equal_those_of_an_engine_of_our_own(robot, scenes):
    local, remote = load_engine("nano"), robot()
    remote.connect()
    assert remote.name == "nano"
    seen = set()
    for asked in read_questions()[:5]:
        image, before = scenes[asked.seed], remote.bytes_up
        for mode in ("auto", "mask"):
            ours = local.segment(image, asked.instruction, mode=mode, key=asked.seed)
            answer = remote.segment(image, asked.instruction, mode=mode, key=asked.seed)
            assert (answer.text, answer.status) == (ours.text, ours.status)
            assert answer.transcript == ours.transcript
            assert len(answer.instances) == len(ours.instances)
            for one, other in zip(answer.instances, ours.instances, strict=True):
                both, either = one.mask & other.mask, one.mask | other.mask
                assert both.sum() >= 0.99 * either.sum()
                assert (one.label, one.box) == (other.label, other.box)
            if asked.seed in seen:  # a further question costs words and no encoder
                assert answer.counters["clip_encodes"] == 0
                assert remote.bytes_up - before <= 1000
            seen.add(asked.seed)
            before = remote.bytes_up
    *early, _ = remote.stream(scenes[asked.seed], asked.instruction, key=asked.seed)
    assert early, "nothing came before the end of the answer"


def test_two_robots_with_equal_keys_never_share_an_image(robot, scenes):
    one, other = robot(), robot()
    first, second = list(scenes.values())[:2]
    local = load_engine("nano")
    for engine, image in ((one, first), (other, second), (one, first)):
        answer = engine.segment(image, "what is this?", mode="text", key="camera 0 0")
        assert answer.text == local.segment(image, "what is this?", mode="text").text
        mask = engine.segment(image, "the mug", key="camera 0 0").instances
        ours = local.segment(image, "the mug").instances
        assert [i.area for i in mask] == [i.area for i in ours]


def test_a_thing_is_followed_on_the_server(robot, scenes):
    """By the embedding that came with the answer; the robot's side knows no SAM."""
    engine, local = robot(), load_engine("nano")
    image = next(iter(scenes.values()))
    [one, *_] = engine.segment(image, "the mug", mode="mask").instances
    [ours, *_] = local.segment(image, "the mug", mode="mask").instances
    assert np.allclose(one.seg_embedding, ours.seg_embedding, rtol=1e-2, atol=1e-3)
    follower = Follower(engine, RemoteTracker(engine))
    follower.begin(image, stamp=0.0, instances=[one])
    moved = np.roll(image, 4, axis=1)
    [track] = follower.update(moved, stamp=1 / 15)
    assert track.state == "visible"
    assert mask_iou(track.mask, np.roll(one.mask, 4, axis=1)) > 0.7
    # upside down and after gaps it is looked for, by SAM on the server
    for step in range(2, 12):
        [track] = follower.update(np.roll(moved[::-1], step, axis=0), stamp=3.0 + step)
    assert follower.tracker.counters["sam_encodes"] > 0


def test_encoding_ahead_sends_the_image_once(robot, scenes):
    engine, image = robot(), next(iter(scenes.values()))[:200]
    engine.prepare(image, "ahead")
    before = engine.bytes_up
    counters = engine.segment(image, "the mug", key="ahead").counters
    assert (counters["clip_encodes"], counters["sam_encodes"]) == (0, 0)
    assert engine.bytes_up - before <= 1000


def test_a_wrong_token_is_refused_with_a_sentence(serving, monkeypatch):
    for token in ("", "wrong", "correct-horse"):
        monkeypatch.setenv(TOKEN, token)
        for ask in (RemoteEngine.connect, lambda e: e.segment(drawn_image(), "the mug")):
            with pytest.raises(ServerError, match="wrong token"):
                ask(RemoteEngine(serving[1]))


def test_what_cannot_be_asked_is_refused_and_the_next_one_answered(robot):
    engine = robot()
    with pytest.raises(ImageError, match=f"at most {MOST_PIXELS}"):
        engine.segment(drawn_image(800, 600), "the mug")
    with pytest.raises(InstructionError, match="not trained for"):
        engine.segment(drawn_image(), "the mug", mode="chain_of_thought")
    with pytest.raises(InstructionError, match="too long for this model"):
        engine.segment(drawn_image(), "the mug", history=[("mug " * 400, "mug " * 400)] * 20)
    assert engine.segment(drawn_image(), "the mug").status in AnswerStatus


def test_requests_that_are_none_do_no_harm(serving, robot):
    host, port = serving[1].removeprefix("http://").split(":")
    head = f"POST /v1/segment HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {SECRET}\r\n"

    def say(text: str, read: bool = True) -> str:
        with socket.create_connection((host, int(port)), 20) as connection:
            connection.sendall(text.encode())
            return connection.recv(4096).decode() if read else ""

    say(head + "content-length: 100000\r\n\r\n{", read=False)  # ends early
    assert " 413 " in say(head + f"content-length: {2**40}\r\n\r\n")
    assert " 400 " in say(head + "content-length: 0\r\n\r\n")
    assert " 400 " in say(head + "content-length: 3\r\n\r\nabc")
    assert " 404 " in say(head.replace("segment", "nothing") + "content-length: 0\r\n\r\n")
    file = wire.encode_image(drawn_image(), wire.LOSSLESS)
    question = wire.write_question(wire.WireQuestion("the mug", file=file))
    half_a_letter = wire.write_question(wire.WireQuestion("the \ud800 mug", file=file))
    request = urllib.request.Request(
        serving[1] + wire.SEGMENT, half_a_letter, {"authorization": f"Bearer {SECRET}"}
    )
    with pytest.raises(urllib.error.HTTPError, match="422"):
        urllib.request.urlopen(request, timeout=120)
    with (
        socket.create_connection((host, int(port)), 20) as half,  # sends nothing more
        socket.create_connection((host, int(port)), 20) as slow,  # reads byte after byte
    ):
        half.sendall((head + "content-length: 100000\r\n\r\n{").encode())
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        told = f"connection: close\r\ncontent-length: {len(question)}\r\n\r\n"
        slow.sendall((head + told).encode() + question)
        assert robot().segment(drawn_image(), "the mug").status in AnswerStatus
        assert b'{"answer": ' in b"".join(iter(lambda: slow.recv(1), b""))


def test_of_too_many_at_once_each_is_answered_or_refused(robot):
    ends: Counter[str] = Counter()

    def ask(engine: RemoteEngine, seed: int) -> None:
        try:
            engine.segment(drawn_image(160, 120, seed), "the mug")
            ends["answered"] += 1
        except BusyError:
            ends["refused"] += 1

    robots = [threading.Thread(target=ask, args=(robot(), seed)) for seed in range(40)]
    for one in robots:
        one.start()
    for one in robots:
        one.join()
    assert ends["answered"] + ends["refused"] == 40
    assert ends["answered"] and ends["refused"]


@pytest.mark.slow  # a minute
def test_of_ten_thousand_at_once_each_is_answered_or_refused(serving):
    """All connections are opened before the first is read; then each ends, whatever it is told."""
    host, port = serving[1].removeprefix("http://").split(":")
    resource.setrlimit(resource.RLIMIT_NOFILE, (12_000, 12_000))
    bodies = [
        wire.write_question(wire.WireQuestion("the mug", file=wire.encode_image(image, 90)))
        for image in (drawn_image(seed=seed) for seed in range(100))
    ]

    async def ask(number: int) -> str:
        body = bodies[number % 100]
        reader, writer = await asyncio.open_connection(host, port)
        head = (
            f"POST /v1/segment HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{wire.SESSION_HEADER}: "
        )
        head += f"{number}\r\nauthorization: Bearer {SECRET}\r\ncontent-length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        said = await reader.read()
        writer.close()
        code = said[9:12].decode()
        if code == "200":
            assert b'{"answer": ' in said
        return code

    async def ask_all() -> Counter[str]:
        return Counter(await asyncio.gather(*(ask(number) for number in range(10_000))))

    codes = asyncio.run(ask_all())
    assert set(codes) == {"200", "503"} and codes.total() == 10_000


def test_metrics_count_questions(serving, robot):
    robot().segment(drawn_image(), "the mug")

    def counted() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{serving[2]}/metrics", timeout=120) as page:
            return re.search(r"lisa_questions\S* [1-9]", page.read().decode()) is not None

    wait_for(counted, "the count of questions among Ray's metrics", START)


def test_rays_own_ports_refuse_who_has_not_its_token(serving):
    address = re.search(r"head is at (\S+);", serving[0].log)[1]
    code = f"import ray; ray.init(address={address!r}, log_to_driver=False); print(ray.nodes())"
    ours = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    environment = os.environ | ours | {"RAY_AUTH_TOKEN": "a" * 32}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode != 0 and "uthenticat" in done.stderr


def test_all_but_the_replicas_own_port_is_on_the_loopback(serving):
    import ray  # noqa: F401  brings psutil along
    import psutil  # isort: skip

    server = psutil.Process(serving[0].process.pid)
    heard = [
        (process.name(), place.laddr.ip)
        for process in (server, *server.children(recursive=True))
        for place in process.net_connections("inet")
        if place.status == psutil.CONN_LISTEN
    ]
    assert len(heard) > 10
    outside = {name for name, ip in heard if "127.0.0.1" not in ip}
    assert all(name.startswith("ray::ServeReplica") for name in outside), outside


def descendant(pid: int, name: str) -> int:
    """The process below another whose command line begins with a name; 0 if there is none."""
    parents, found = {}, 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            status = (folder / "status").read_text()
            parents[int(folder.name)] = int(re.search(r"^PPid:\s*(\d+)", status, re.M)[1])
    for one in parents:
        above = one
        while above in parents and above != pid:
            above = parents[above]
        with suppress(OSError):
            if above == pid and name in Path(f"/proc/{one}/cmdline").read_text():
                found = one
    return found


def test_who_asks_a_server_that_dies_is_told_at_once(certificate, tmp_path, monkeypatch):
    """By TLS; first its replica is killed, and replaced by Ray, then the server itself."""
    monkeypatch.setenv(TOKEN, SECRET)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    monkeypatch.setattr(remote, "SILENCE_LIMIT", 1000.0)  # no silence ends a question
    answered: Counter[int] = Counter()
    lost: Counter[int] = Counter()
    stopping = threading.Event()

    def ask(number: int) -> None:
        engine = RemoteEngine(address)
        while not stopping.is_set():
            try:
                engine.segment(drawn_image(seed=number), "the mug")
                answered[number] += 1
            except ServerUnreachable:
                lost[number] += 1
                time.sleep(0.1)

    tls = ("--tls-cert", str(certificate[0]), "--tls-key", str(certificate[1]))
    with lisa_ros_serve(tmp_path, *tls) as (process, address, _):
        with pytest.raises(ServerError, match="TLS does so"):
            RemoteEngine(address.replace("https:", "http:")).segment(drawn_image(), "the mug")
        robots = [threading.Thread(target=ask, args=(n,), daemon=True) for n in range(ROBOTS)]
        for one in robots:
            one.start()
        wait_for(lambda: len(answered) == ROBOTS, "an answer for every robot", START)
        replica = descendant(process.process.pid, "ServeReplica")
        assert replica
        os.kill(replica, signal.SIGKILL)
        wait_for(lambda: lost, "a robot whose question was lost", START)
        answered.clear()
        wait_for(lambda: len(answered) == ROBOTS, "answers of another replica", START)
        lost.clear()
        process.process.kill()
        wait_for(lambda: len(lost) == ROBOTS, "all robots to be told", START)
        stopping.set()
        for one in robots:
            one.join(START)
        assert not any(one.is_alive() for one in robots)


OPTIONS = {"model": {"device": "cpu"}, "port": free_port(), "metrics_port": free_port()}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"host": "0.0.0.0"}, "loopback alone, and not on 0.0.0.0"),
        ({"replicas": 0}, "--replicas must be from 1"),
        ({"replicas": 3, "max_replicas": 2}, "--max-replicas must be from 3"),
        ({"max_replicas": -1}, "--max-replicas must be from 1 .* or be left out: it is -1"),
        ({"batch": 0}, "--batch must be from 1"),
        ({"window": float("nan")}, "--window must be from 0"),
        ({"queue": -1}, "--queue must be from 1"),
        ({"tls_cert": Path("a.pem")}, "both files"),
        ({"tls_cert": Path("a.pem"), "tls_key": Path("b.pem")}, "there is no file a.pem"),
        ({"tls_cert": Path(__file__), "tls_key": Path(__file__)}, "no certificate with its key"),
    ],
)
def test_a_server_that_must_not_start(options, sentence):
    with pytest.raises(LisaError, match=sentence):
        check_options(ServeOptions(**OPTIONS, **options), "")


def test_a_port_that_is_none():
    for port in (0, -1, 70_000):
        with pytest.raises(LisaError, match="--port must be from 1 to 65535"):
            check_options(ServeOptions(**OPTIONS | {"port": port}), "")


def test_a_port_that_is_taken():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(LisaError, match=f"port {port}: .*in use"):
            check_options(ServeOptions(**OPTIONS | {"port": port}), "")


def test_a_home_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / ".ray").write_text("")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(LisaError, match=r"HOME.*RAY_AUTH_TOKEN"):
        check_options(ServeOptions(**OPTIONS), "")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a-long-random-text")
    check_options(ServeOptions(**OPTIONS), "")
