"""A fleet of robots with one server, which is killed in the middle and comes back.

    python -m benchmarks.fleet [--questions 1000] [--robots 8] [--write docs/serving.md]

Every robot is a perception node in a process of its own with `model.path` of the server, and sees
the recorded tabletop, a new image every second; here are its camera, its questions and its ears.
Before that the server alone is measured, with batches and with batches of one, and beside an engine
in this process. Times depend on the machine and on its load.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from lisa_ros.msg import Segmentation
from PIL import Image
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String

from benchmarks.generated_tables import page_option, show
from lisa_ros.demo.recorded_camera import (
    IMAGE,
    RecordedScene,
    compressed,
    read_questions,
    read_recording,
)
from lisa_ros.engine import load_engine
from lisa_ros.node.client import NodeProcess, own_domain
from lisa_ros.node.status import Status
from lisa_ros.serving.remote import RemoteEngine
from lisa_ros.text_tables import markdown_table

PERIOD = 0.25  # seconds from one question of a robot to its next, or until the answer is there
BACK_OFF = 2.0  # seconds that a robot whose server is away waits until it asks again
CAMERA_PERIOD = 1.0  # seconds between two images of a robot
CALLERS = 16  # that ask the server alone, each as soon as he has his answer
CALLS = 320
PAIRS = 20  # of questions about new images, to the server and to an engine of our own
COLD = 3  # of them that are not counted
OPEN_LOOP = 0.6  # of the measured capacity, at which answers come late at random
START_LIMIT = 240.0  # seconds for a process to be ready, on a busy machine too
RESULT_LIMIT = 60.0  # seconds without any result after which robots count as silent
RIGHT = (Status.OK, Status.NOT_FOUND, Status.TEXT_ONLY)


@dataclass
class Fleet:
    """What the robots have seen."""

    asked: int = 0
    results: list[tuple[float, Status, float]] = field(default_factory=list)
    """moment, status and latency in milliseconds of every result"""
    unasked: int = 0
    """results that no question was waiting for"""


class RobotSide(Node):
    """Camera, questions and ears of one robot."""

    def __init__(self, number: int, fleet: Fleet, questions: int, scene: RecordedScene) -> None:
        super().__init__("side", namespace=f"robot{number}")
        self.fleet, self.left, self.frames = fleet, questions, scene.frames
        asked = [one.instruction for one in read_questions() if one.seed == scene.seed]
        self.instructions = asked or ["the red mug"]
        self.waiting: tuple[str, float] | None = None
        self.not_before, self.shown = 0.0, 0
        self.images = self.create_publisher(CompressedImage, "image/compressed", 1)
        self.query = self.create_publisher(String, "query", 10)
        self.mask = self.create_subscription(Segmentation, "mask", self._on_result, 50)
        self.create_timer(CAMERA_PERIOD, self._show)

    @property
    def connected(self) -> bool:
        return bool(self.query.get_subscription_count() and self.mask.get_publisher_count())

    def go(self) -> None:
        """Begin to ask."""
        self.create_timer(PERIOD, self._ask)

    def _show(self) -> None:
        frame = self.frames[self.shown % len(self.frames)][IMAGE]
        self.shown += 1
        self.images.publish(compressed(frame, self.get_clock().now()))

    def _ask(self) -> None:
        if self.waiting is None and self.left and time.monotonic() >= self.not_before:
            self.left -= 1
            self.fleet.asked += 1
            words = self.instructions[self.left % len(self.instructions)]
            self.waiting = words, time.monotonic()
            self.query.publish(String(data=words))

    def _on_result(self, message: Segmentation) -> None:
        if self.waiting is None or self.waiting[0] != message.query:
            self.fleet.unasked += 1
            return
        now = time.monotonic()
        self.fleet.results.append((now, Status(message.status), 1e3 * (now - self.waiting[1])))
        self.waiting = None
        if message.status not in RIGHT:
            self.not_before = now + BACK_OFF


@contextmanager
def server(folder: Path, port: int, *options: str) -> Iterator[NodeProcess]:
    """A server with nano until the end of the block."""
    command = [sys.executable, "-m", "lisa_ros.cli", "serve", "--port", str(port)]
    command += ["--metrics-port", str(free_port()), *options]
    with NodeProcess(command, folder / f"server_{time.monotonic_ns()}.txt", name="server") as one:
        end = time.monotonic() + START_LIMIT
        while "stop with" not in one.log:
            one.check()
            if time.monotonic() > end:
                raise TimeoutError(f"the server does not start:\n{one.tail()}")
            time.sleep(0.1)
        yield one


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def scene_images(scenes: list[RecordedScene]) -> list[np.ndarray]:
    """The first image of every scene."""
    files = [scene.frames[0][IMAGE].data.tobytes() for scene in scenes]
    return [np.asarray(Image.open(io.BytesIO(file))) for file in files]


def capacity(address: str, images: list[np.ndarray]) -> float:
    """Questions about known images that the server answers in a second."""
    done = threading.Semaphore(CALLS)

    def call(number: int) -> None:
        engine, image = RemoteEngine(address, jpeg_quality=90), images[number % len(images)]
        engine.segment(image, "the red mug", key="known")
        ready.wait()
        while done.acquire(blocking=False):
            engine.segment(image, "the red mug", key="known")

    ready = threading.Barrier(CALLERS + 1)
    callers = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for one in callers:
        one.start()
    ready.wait()
    began = time.monotonic()
    for one in callers:
        one.join()
    return CALLS / (time.monotonic() - began)


def latencies(address: str, image: np.ndarray, rate: float | None) -> np.ndarray:
    """Milliseconds (n, 2) in all and outside of the engine, about an image that the server knows.

    Of a robot alone, or of many that ask `rate` questions a second together, at random moments.
    """
    engines, found = [RemoteEngine(address, jpeg_quality=90) for _ in range(CALLERS)], []
    for engine in engines:
        engine.segment(image, "the red mug", key="known")

    def call(number: int, due: float) -> None:
        engine = engines[number % CALLERS]
        answer = engine.segment(image, "the red mug", key="known")
        found.append((1e3 * (time.monotonic() - due), answer.timings["network"]))

    draw, due, callers = random.Random(0), time.monotonic(), []
    for number in range(CALLS // 2):
        if rate is None:
            call(0, time.monotonic())
            continue
        due += draw.expovariate(rate)
        time.sleep(max(0.0, due - time.monotonic()))
        callers.append(threading.Thread(target=call, args=(number, due)))
        callers[-1].start()
    for one in callers:
        one.join()
    return np.array(found)


def beside_local(address: str, images: list[np.ndarray]) -> dict[str, np.ndarray]:
    """Milliseconds of answers of an engine in this process, and of the server by JPEG and by PNG.

    Each is asked about the same new image in turn, then about the known one: what else the machine
    does, it does to all of them.
    """
    engines = {
        "local": load_engine("nano"),
        "JPEG": RemoteEngine(address, jpeg_quality=90),
        "PNG": RemoteEngine(address),
    }
    found: dict[str, list[float]] = {}
    for number in range(PAIRS):
        image = images[number % len(images)].copy()
        image[:8, :8] = 12 * number  # a block of JPEG's: the server has not seen it either
        for kind in ("new", "known"):
            for name, engine in engines.items():
                began = time.monotonic()
                engine.segment(image, "the red mug", key=number)
                found.setdefault(f"{kind} {name}", []).append(1e3 * (time.monotonic() - began))
    return {name: np.array(times[COLD:]) for name, times in found.items()}


def drive(sides: list[RobotSide], fleet: Fleet, outage: threading.Event, questions: int) -> None:
    """Spin until every question has its result; `outage` is set at half of them."""
    executor = SingleThreadedExecutor()
    for side in sides:
        executor.add_node(side)
    end = time.monotonic() + START_LIMIT
    while not all(side.connected for side in sides):
        executor.spin_once(timeout_sec=0.05)
        if time.monotonic() > end:
            raise TimeoutError("not all robots' nodes have started")
    for side in sides:
        side.go()
    last = time.monotonic()
    while len(fleet.results) < questions and time.monotonic() - last < RESULT_LIMIT:
        before = len(fleet.results)
        executor.spin_once(timeout_sec=0.05)
        if len(fleet.results) > before:
            last = time.monotonic()
        if len(fleet.results) >= questions // 2:
            outage.set()
    executor.shutdown()


def kill_and_restart(
    folder: Path, port: int, first: NodeProcess, begin: threading.Event, stack: ExitStack
) -> tuple[float, float]:
    """Wait for `begin`; the moments when the server was killed and when it was back."""
    begin.wait()
    killed = time.monotonic()
    first.process.kill()
    first.process.wait()
    while True:  # Ray's processes end by themselves when their parent is gone
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                break
        time.sleep(0.1)
    stack.enter_context(server(folder, port))
    return killed, time.monotonic()


def run(robots: int, questions: int, folder: Path, stack: ExitStack) -> list[list[str]]:
    """All measurements; rows of the table."""
    scenes, port = read_recording(), free_port()
    address, images = f"http://127.0.0.1:{port}", scene_images(scenes)

    # 1. the server alone, with batches of one
    with server(folder, port, "--batch", "1") as process:
        single = capacity(address, images)

    # 2. with its own batches; a robot alone; many at random
    process = stack.enter_context(server(folder, port))
    batched = capacity(address, images)
    alone = latencies(address, images[0], None)
    crowd = latencies(address, images[0], OPEN_LOOP * batched)
    beside = beside_local(address, images)
    probe = RemoteEngine(address, jpeg_quality=90)
    probe.segment(images[0], "the red mug", key="known")
    first_bytes = probe.bytes_up
    counters = probe.segment(images[0], "the blue cup", key="known").counters
    second_bytes, encodes = probe.bytes_up - first_bytes, counters["clip_encodes"]

    # 3. the fleet, with one kill and one restart
    domain = stack.enter_context(own_domain())
    nodes = []
    for name in (f"robot{number}" for number in range(robots)):
        command = [sys.executable, "-m", "lisa_ros.cli", "node", "--model", address]
        command += ["--namespace", name, "--image", f"/{name}/image/compressed"]
        environment = {"ROS_DOMAIN_ID": str(domain)}
        node = NodeProcess(command, folder / f"{name}.txt", environment=environment)
        nodes.append(stack.enter_context(node))
    fleet, outage, moments = Fleet(), threading.Event(), []
    shares = [questions // robots + (number < questions % robots) for number in range(robots)]
    sides = [
        RobotSide(number, fleet, share, scenes[number % len(scenes)])
        for number, share in enumerate(shares)
    ]
    mischief = threading.Thread(
        target=lambda: moments.extend(kill_and_restart(folder, port, process, outage, stack))
    )
    mischief.start()
    began = time.monotonic()
    drive(sides, fleet, outage, questions)
    took = time.monotonic() - began
    outage.set()
    mischief.join()
    memory = max(psutil.Process(node.process.pid).memory_info().rss for node in nodes) / 1e6

    # 4. what came of it
    killed, back = moments
    good = [moment for moment, status, _ in fleet.results if status in RIGHT]
    recovery = min((moment for moment in good if moment > back), default=np.inf) - back
    outside = [s for moment, s, _ in fleet.results if not killed <= moment <= back + recovery]
    right = sum(status in RIGHT for status in outside)
    times = np.array([ms for _, status, ms in fleet.results if status in RIGHT])
    statuses = Counter(status.name for _, status, _ in fleet.results)
    p50, p95, p99 = np.percentile(times, (50, 95, 99))
    alone_p95, crowd_p95 = (np.percentile(one[:, 0], 95) for one in (alone, crowd))
    return [
        ["asked, and results", f"{fleet.asked}, {len(fleet.results)}"],
        ["results that nobody had asked for", str(fleet.unasked)],
        ["by status", ", ".join(f"{name} {count}" for name, count in statuses.most_common())],
        ["answered outside the outage", f"{right} of {len(outside)}"],
        ["server away, by our doing", f"{back - killed:.1f} s"],
        ["first answer after its return", f"{recovery:.1f} s"],
        ["latency at the robots, p50, p95, p99", f"{p50:.0f}, {p95:.0f}, {p99:.0f} ms"],
        ["questions of the fleet", f"{len(fleet.results) / took:.1f} a second"],
        ["known images, batches of one", f"{single:.1f} a second"],
        ["known images, batches of up to 8", f"{batched:.1f} a second ({batched / single:.2f}x)"],
        ["a robot alone, known image, p50, p95", _two(alone[:, 0])],
        ["of it network and Ray Serve", _two(alone[:, 1])],
        [
            f"at {OPEN_LOOP:.0%} of that capacity, p50, p95",
            f"{_two(crowd[:, 0])} (p95 {crowd_p95 / alone_p95:.1f}x)",
        ],
        *(
            [
                f"{kind} image of 640x480: local engine, added by JPEG, by PNG (medians)",
                _added(kind, beside),
            ]
            for kind in ("new", "known")
        ),
        ["first question about an image, up", f"{first_bytes} bytes"],
        ["second question, up", f"{second_bytes} bytes, {encodes} encoder runs"],
        ["most memory of a robot's node", f"{memory:.0f} MB"],
    ]


def _added(kind: str, beside: dict[str, np.ndarray]) -> str:
    local, jpeg, png = (np.median(beside[f"{kind} {name}"]) for name in ("local", "JPEG", "PNG"))
    return f"{local:.0f}, {jpeg - local:+.0f}, {png - local:+.0f} ms"


def _two(milliseconds: np.ndarray) -> str:
    p50, p95 = np.percentile(milliseconds, (50, 95))
    return f"{p50:.0f}, {p95:.0f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robots", type=int, default=8)
    parser.add_argument("--questions", type=int, default=1000)
    page_option(parser, "--write", "fleet")
    args = parser.parse_args()
    began, load = time.monotonic(), os.getloadavg()[0]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lisa_fleet_")))
        rows = run(args.robots, args.questions, folder, stack)
    after = os.getloadavg()[0]
    rows.append(["load of the machine before and after", f"{load:.1f}, {after:.1f}"])
    rows.append(["all of it took", f"{time.monotonic() - began:.0f} s"])
    table = markdown_table((f"{args.robots} robots, one server with nano", ""), rows, words=2)
    show(table, args.write, "fleet")
    return 0 if rows[0][1] == f"{args.questions}, {args.questions}" else 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
