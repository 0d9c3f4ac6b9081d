"""What following costs: images a second of a real node, how late tracks are, memory of both ways.

    PYTHONPATH=test python -m benchmarks.follow_bench [--write docs/tracking.md]

A node with nano follows one drawn thing, then four, at 640x480, over DDS; the camera and the ears
are in this process. Then `lisa` with nano, and `sam2` on a small random model, look at 10,000
images each, in a process of their own; the thing goes and comes back in them.
"""

from __future__ import annotations

import argparse
import gc
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import psutil
from drawn_clip import draw, instance
from lisa_ros.action import Follow
from lisa_ros.msg import Segmentation
from node_rig import Rig, image_message, rig, wait_for
from rclpy.action import ActionClient

from benchmarks.generated_tables import page_option, show
from lisa_ros.engine.answer import Instance
from lisa_ros.text_tables import markdown_table
from lisa_ros.tracking.tracker import Tracker

FRAMES = 10_000  # images whose memory is measured
SETTLED = 1_000  # images after which memory counts
CYCLE = 60  # different images
RATES = (15.0, 60.0)  # of the camera: at which lateness is measured, and the rate of the node
SECONDS = 15.0
COLORS = ((190, 40, 40), (40, 70, 180), (40, 150, 60), (200, 160, 30))
SIDE = 46  # pixels of a thing at 320x240


@cache
def moving_things(things: int, away: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Images uint8 (480, 640, 3) of so many things that go to and fro, with masks (N, 480, 640).

    The first thing is out of the last `away` of them.
    """
    found = []
    for step in range(CYCLE):
        swing = 40 * np.sin(2 * np.pi * step / CYCLE)
        places = [(60 + 65 * n + swing / 2, 80 + 60 * (n % 2) - swing / 2) for n in range(things)]
        if step >= CYCLE - away:
            places[0] = (-100.0, 80.0)
        image, masks = draw([(COLORS[n], *place) for n, place in enumerate(places)])
        large = cv2.resize(image, (640, 480), interpolation=cv2.INTER_NEAREST)
        found.append((large, np.kron(masks, np.ones((1, 2, 2), bool))))
    return found


def resident() -> float:
    """Megabytes of this process."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


# memory


def small_tracker(way: str) -> tuple[Tracker, Instance]:
    """A tracker and what it begins with: of nano with the embedding of an answer, or of SAM 2."""
    image, masks = moving_things(1, CYCLE // 4)[0]
    thing = instance(masks[0], "the red thing")
    if way == "sam2":
        import torch
        from sam2_samples import small_sam2

        from lisa_ros.tracking.sam2 import Sam2Tracker

        torch.manual_seed(0)
        return Sam2Tracker(small_sam2().eval()), thing
    from lisa_ros.engine import load_engine
    from lisa_ros.tracking.lisa import LisaTracker

    engine = load_engine("nano")
    answer = engine.segment(image, thing.label, mode="mask")
    if not answer.instances:
        raise RuntimeError("nano finds nothing in the drawn image")
    return LisaTracker(engine), replace(thing, seg_embedding=answer.instances[0].seg_embedding)


def watch(way: str) -> None:
    """Print resident memory every thousand images, and at the end what the tracker has counted."""
    tracker, thing = small_tracker(way)
    images = [image for image, _ in moving_things(1, CYCLE // 4)]
    tracker.start(images[0], [thing], stamp=0.0, key=0)
    states: dict[str, int] = {}
    for number in range(1, FRAMES + 1):
        # a key for each image, as a node has them
        (track,) = tracker.update(images[number % CYCLE], stamp=number / 15, key=number)
        states[track.state.value] = states.get(track.state.value, 0) + 1
        if number % SETTLED == 0:
            print("memory", number, f"{resident():.1f}", flush=True)
    print("counted", {**states, **tracker.counters}, flush=True)


def memory_row(way: str) -> tuple[str, str]:
    """Both cells of a row."""
    command = [sys.executable, "-m", "benchmarks.follow_bench", "--watch", way]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    seen = [float(line[2]) for line in lines if line[0] == "memory"]
    print(done.stdout, file=sys.stderr)
    return (
        f"memory of `{way}` over {FRAMES:,} images: after the first {SETTLED:,}, most, at the end",
        f"{seen[0]:.0f}, {max(seen):.0f}, {seen[-1]:.0f} MB",
    )


# processor time, which other work on the machine changes little


def milliseconds(things: int, goals: int) -> float:
    """Processor time of an image for trackers of so many goals, in which the things are shared."""
    from lisa_ros.tracking.lisa import LisaTracker
    from lisa_ros.tracking.motion import SharedMotion

    frames, shared = moving_things(things), SharedMotion()
    found = [instance(mask) for mask in frames[0][1]]
    trackers = [LisaTracker(None, shared=shared) for _ in range(goals)]
    for number, tracker in enumerate(trackers):
        tracker.start(frames[0][0], found[number::goals], stamp=0.0, key=0)
    spent = 0.0
    for number in range(1, 2 * CYCLE):
        began = time.process_time()
        for tracker in trackers:
            tracker.update(frames[number % CYCLE][0], stamp=number / 15, key=number)
        spent += time.process_time() - began
    return 1e3 * spent / (2 * CYCLE - 1)


def processor_rows() -> list[tuple[str, str]]:
    """Of one thing, of four in one goal, and of four goals."""
    cases = {"one thing": (1, 1), "four things of one goal": (4, 1), "four goals": (4, 4)}
    return [
        (f"{name}: processor time of the tracker for an image", f"{milliseconds(*case):.0f} ms")
        for name, case in cases.items()
    ]


# the node


class Node:
    """A node with nano, its camera, and the moments at which images went out and tracks came in."""

    def __init__(self, robot: Rig, things: int) -> None:
        self.robot, self.things = robot, things
        self.messages = [image_message(image) for image, _ in moving_things(things)]
        self.stamp = 0
        self.sent: dict[int, float] = {}
        self.heard: dict[int, float] = {}
        robot.start(command=[sys.executable, "-m", "lisa_ros.cli", "node", "--model", "nano"])
        self.client = ActionClient(robot.node, Follow, "follow")
        wait_for(self.client.server_is_ready, "the action")
        ears = robot.do(
            lambda: robot.node.create_subscription(Segmentation, "tracks", self._hear, 50)
        )
        wait_for(ears.get_publisher_count, "the topic")

    def _hear(self, message: Segmentation) -> None:
        # of several goals the last one counts
        self.heard[message.header.stamp.sec] = time.monotonic()

    def film(self, seconds: float, rate: float) -> None:
        """Show images at a rate, each with its number as stamp."""
        due = time.monotonic()
        end = due + seconds
        while due < end:
            self.stamp += 1
            message = self.messages[self.stamp % CYCLE]
            message.header.stamp.sec = self.stamp
            self.sent[self.stamp] = time.monotonic()
            self.robot.images.publish(message)
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))

    def follow(self, number: int) -> None:
        """A goal for the thing of that number, which begins with its box."""
        self.film(1.0, RATES[0])
        mask = moving_things(self.things)[self.stamp % CYCLE][1][number]
        y, x = (int(axis.min()) for axis in np.nonzero(mask))
        box = [max(0, x - 10), max(0, y - 10), 2 * SIDE + 20, 2 * SIDE + 20]
        goal = Follow.Goal(box=box, lost_timeout=100.0, masks="none")
        sent = self.robot.do(lambda: self.client.send_goal_async(goal))
        assert wait_for(sent.result, "the goal").accepted
        self.heard.clear()
        self.film(1.0, RATES[0])
        wait_for(lambda: self.heard, "its tracks")

    def late(self, rate: float) -> tuple[list[float], float]:
        """Seconds from an image to its tracks, and the share of images that had any."""
        self.sent.clear()
        self.heard.clear()
        self.film(SECONDS, rate)
        time.sleep(1.0)
        late = [self.heard[n] - moment for n, moment in self.sent.items() if n in self.heard]
        return late, len(late) / len(self.sent)


def measure_node(things: int) -> list[tuple[str, str]]:
    """Rows about a node that follows so many things, each by a goal of its own: the worst case."""
    name = "one thing" if things == 1 else f"{things} things, a goal each"
    with rig() as robot:
        node = Node(robot, things)
        for number in range(things):
            node.follow(number)
        late, share = node.late(RATES[0])
        periods = np.percentile(late, [50, 95, 99]) * RATES[0]
        most, _ = node.late(RATES[1])
    return [
        (f"{name}: images a second at most", f"{len(most) / SECONDS:.1f}"),
        (f"{name}, camera of {RATES[0]:g} Hz: images followed", f"{100 * share:.1f} %"),
        (f"{name}: late, in frame periods, p50, p95, p99", ", ".join(f"{p:.2f}" for p in periods)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    page_option(parser, "--write", "following")
    parser.add_argument("--watch", choices=("lisa", "sam2"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.watch:
        watch(args.watch)
        return
    load = os.getloadavg()[0]
    rows = [*processor_rows(), *measure_node(1), *measure_node(4)]
    rows += [memory_row(way) for way in ("lisa", "sam2")]
    rows.append(
        ("load average of the machine before and after", f"{load:.1f}, {os.getloadavg()[0]:.1f}")
    )
    table = markdown_table(("following", ""), rows, words=2)
    show(table, args.write, "following")


if __name__ == "__main__":
    main()
