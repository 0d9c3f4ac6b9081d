"""What the node costs beside the model, with bare rclpy nodes as the yardstick in the same run.

    PYTHONPATH=test python -m benchmarks.node_bench [--write docs/reliability.md]

The model is a fake one that needs no time. Every process uses the transport profile of the package.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import tempfile
import time
from array import array
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import rclpy
from node_rig import (
    BEST_EFFORT,
    RELIABLE,
    Manager,
    Process,
    Rig,
    drawn_image,
    image_message,
    wait_for,
)
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import String

from benchmarks.generated_tables import page_option, put_into_page
from lisa_ros.node.client import claimed_domain
from lisa_ros.node.status import ANSWERED
from lisa_ros.resources import use_large_image_transport
from lisa_ros.text_tables import markdown_table

SIZES = ((640, 480), (1280, 720))
ROUNDS = 40
OLD = 0.15  # seconds after which an image is too old, where the node shall wait for a new one
IDLE_SECONDS = 10.0
FRAMES = 150


def echo_image() -> None:
    """For every image a mask of its size on `mask/image`, and for every query one of the last's."""
    node = rclpy.create_node("echo", namespace="lisa")
    publisher = node.create_publisher(Image, "mask/image", 5)
    sizes = [(480, 640)]

    def answer(_: object) -> None:
        height, width = sizes[0]
        message = Image(height=height, width=width, step=width, encoding="mono8")
        message.data = array("B", bytes(height * width))
        publisher.publish(message)

    def on_image(image: Image) -> None:
        sizes[0] = image.height, image.width
        answer(image)

    node.create_subscription(Image, "image", on_image, RELIABLE)
    node.create_subscription(String, "query", answer, 10)
    rclpy.spin(node)


def bare_subscriber() -> None:
    """A subscription with an empty callback."""
    node = rclpy.create_node("bare", namespace="lisa")
    node.create_subscription(Image, "image", lambda message: None, RELIABLE)
    rclpy.spin(node)


def camera(width: int, height: int, rate: float) -> None:
    """Images with their number as stamp, reliable: both kinds of subscribers hear it."""
    node = rclpy.create_node("camera", namespace="lisa")
    publisher = node.create_publisher(Image, "image", RELIABLE)
    message = image_message(drawn_image(width, height))
    due, count = time.monotonic(), 0
    while rclpy.ok():
        count += 1
        now = time.time_ns()
        message.header.stamp.sec, message.header.stamp.nanosec = now // 10**9, now % 10**9
        message.header.frame_id = str(count)
        publisher.publish(message)
        due += 1 / rate
        time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def role(domain: int, *words: str):
    """This file in another process, as one of the nodes above."""
    process = Process([sys.executable, __file__, "--role", *words], domain)
    try:
        yield process
    finally:
        process.stop()
        process.folder.cleanup()


def round_trips(robot: Rig, width: int, height: int, ask_first: bool) -> list[float]:
    """Milliseconds from the image (`ask_first`) or from the query to the mask image."""
    masks: list[float] = []
    node = robot.node
    subscription = robot.do(
        lambda: node.create_subscription(
            Image, "mask/image", lambda message: masks.append(time.monotonic()), 5
        )
    )
    wait_for(subscription.get_publisher_count, "mask/image")
    wait_for(robot.images.get_subscription_count, "image")
    message = image_message(drawn_image(width, height))
    robot.images.publish(message)
    time.sleep(1.0)
    taken = []
    for _ in range(ROUNDS):
        masks.clear()
        if ask_first:
            time.sleep(2 * OLD)
            robot.say("the thing in the middle")
            time.sleep(0.05)
            masks.clear()
            began = time.monotonic()
            robot.images.publish(message)
        else:
            robot.images.publish(message)
            time.sleep(0.05)
            masks.clear()
            began = time.monotonic()
            robot.say("the thing in the middle")
        wait_for(lambda: masks, "the mask")
        taken.append((masks[0] - began) * 1e3)
    robot.do(lambda: node.destroy_subscription(subscription))
    return taken


def latencies() -> str:
    """From the image or the query to the mask, and what of it the node adds to a bare echo."""
    rows = []
    for what, ask_first in (("image to mask", True), ("query to mask", False)):
        times: dict[str, list[float]] = {}
        for who in ("perception node", "bare rclpy echo"):
            for width, height in SIZES:
                with claimed_domain() as domain, peer(who, domain, ask_first) as robot:
                    taken = round_trips(robot, width, height, ask_first)
                times.setdefault(who, []).append(statistics.median(taken))
        times["overhead"] = [a - b for a, b in zip(*times.values(), strict=True)]
        for who, values in times.items():
            rows.append([f"{what}, {who}", *(f"{value:.1f} ms" for value in values)])
    return markdown_table(["", *(f"{width}x{height}" for width, height in SIZES)], rows)


@contextmanager
def peer(who: str, domain: int, ask_first: bool):
    """A rig with the perception node or the bare echo in it."""
    age = OLD if ask_first else 60.0
    robot = Rig(domain)
    try:
        if who == "perception node":
            robot.start("-p", f"input.max_age:={age}", "-p", "input.wait:=5.0")
            yield robot
        else:
            with role(domain, "echo"):
                wait_for(robot.voice.get_subscription_count, "the echo")
                yield robot
    finally:
        robot.close()


def idle() -> str:
    """Processor time while a camera runs and nobody asks."""
    shares = {}
    for who in ("perception node", "bare subscriber"):
        with (
            claimed_domain() as domain,
            role(domain, "camera", "1280", "720", "30"),
            ExitStack() as ends,
        ):
            if who == "bare subscriber":
                process = ends.enter_context(role(domain, "bare"))
                time.sleep(2.0)
            else:
                robot = Rig(domain)
                ends.callback(robot.close)
                process = robot.start()
                time.sleep(1.0)
            shares[who] = psutil.Process(process.process.pid).cpu_percent(IDLE_SECONDS)
    ratio = shares["perception node"] / shares["bare subscriber"]
    rows = [[who, f"{share:.1f} %"] for who, share in shares.items()]
    head = ["1280x720 at 30 Hz, nobody asks", "share of a core"]
    return markdown_table(head, [*rows, ["ratio", f"{ratio:.2f}"]])


def delivery() -> str:
    """How many of our publishers' images arrive, and how late."""
    rows = []
    for name, policy in (("reliable", RELIABLE), ("best effort", BEST_EFFORT)):
        numbers, late = arrivals(QoSProfile(depth=5, reliability=policy.reliability))
        arrived = 100 * len(numbers) / (numbers[-1] - numbers[0] + 1)
        rows.append([name, f"{arrived:.1f} %", f"{statistics.median(late):.1f} ms"])
    return markdown_table(["1280x720 at 30 Hz", "arrived", "median latency"], rows)


def arrivals(
    profile: QoSProfile, frames: int = FRAMES, rate: int = 30
) -> tuple[list[int], list[float]]:
    """Numbers of the images that reach a subscriber, and their milliseconds on the way."""
    numbers: list[int] = []
    late: list[float] = []

    def on_image(message: Image) -> None:
        sent = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
        late.append((time.time() - sent) * 1e3)
        numbers.append(int(message.header.frame_id))

    with claimed_domain() as domain, role(domain, "camera", "1280", "720", str(rate)):
        robot = Rig(domain)
        robot.node.create_subscription(Image, "image", on_image, profile)
        wait_for(lambda: len(numbers) > frames, "images", 60)
        robot.close()
    return numbers, late


def memory() -> str:
    """What cleaning up gives back, with an untrained model of 0.4 GB."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, claimed_domain() as domain:
        size = write_large_model(Path(folder) / "large")
        robot = Rig(domain)
        command = [sys.executable, "-m", "lisa_ros.cli", "node", "--model", f"{folder}/large"]
        arguments = ("--ros-args", "-p", "autostart:=false")
        process = robot.start(*arguments, command=command, ready=False).process.pid
        manager = Manager(robot)
        robot.film(rate=5)
        rows.append(["before the first configuration", f"{resident(process):.0f}"])
        for turn in range(1, 4):
            for name in ("configure", "activate"):
                assert manager.change(name)
            # The weights are mapped from their file and lie in memory once they have been used.
            wait_for(lambda: robot.ask("the mug", 120).status in ANSWERED, "an answer", 120)
            used = f"{resident(process):.0f}"
            rows.append([f"{turn}. has answered, with {size:.0f} MB of weights", used])
            for name in ("deactivate", "cleanup"):
                assert manager.change(name)
            rows.append([f"{turn}. cleaned up", f"{resident(process):.0f}"])
        robot.close()
    return markdown_table(["resident memory of the node", "MB"], rows)


def write_large_model(folder: Path) -> float:
    """An untrained checkpoint; returns the MB of its weights."""
    from model_samples import small_lisa

    from lisa_ros.model.checkpoint import Lisa, save
    from lisa_ros.model.network import LisaNetwork

    small = small_lisa()
    wide = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 8}
    config = dataclasses.replace(small.config, llama={**small.config.llama, **wide})
    save(Lisa(LisaNetwork(config).eval(), small.tokenizer, small.processor, config), folder)
    return (folder / "model.safetensors").stat().st_size / 2**20


def resident(process: int) -> float:
    """MB of a process that lie in RAM."""
    return psutil.Process(process).memory_info().rss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    page_option(parser, "--write", "node bench")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    use_large_image_transport()
    if args.role:
        rclpy.init()
        name, *numbers = args.role
        roles = {"echo": echo_image, "bare": bare_subscriber, "camera": camera}
        try:
            roles[name](*map(int, numbers))
        except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
            return
        return
    parts = []
    for measure in (latencies, idle, delivery, memory):
        parts.append(measure())
        print(parts[-1], end="\n\n", flush=True)
    if args.write:
        put_into_page(args.write, "node bench", "\n\n".join(parts))


if __name__ == "__main__":
    main()
