"""The demonstration: recorded camera and perception node as processes, questions, a table."""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import cv2
import numpy as np
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import CompressedImage, Image

from lisa_ros.action import Follow
from lisa_ros.demo.recorded_camera import IMAGE, TRUTH, DemoQuestion, read_questions
from lisa_ros.errors import counted
from lisa_ros.image_files import write_image
from lisa_ros.msg import Segmentation
from lisa_ros.node.client import (
    ANSWER_LIMIT,
    NoAnswer,
    NodeProcess,
    PerceptionClient,
    SentGoal,
    nanoseconds,
    own_domain,
)
from lisa_ros.node.inputs.image_conversion import to_rgb
from lisa_ros.node.results.messages import full_mask
from lisa_ros.node.results.overlay import mark_masks
from lisa_ros.node.status import ANSWERED, Status

OVERLAY_LIMIT = 10.0  # seconds from the answer to its overlay
KEPT = 100  # images of the truth: an answer must not come later than so many frames
RIGHT = 0.5  # overlap above which a mask is right, as AP50 and the scores count it
SETTLE = 0.4  # seconds after a change of scene until the node's newest image surely shows it
STAGES = ("convert", "clip", "sam", "prefill", "decode", "mask", "total")
FOLLOWED = 36  # images through which one thing is followed
TILES, COLUMNS, TILE = 12, 4, (320, 240)  # of the contact sheet of them, pixels
LONGEST_ANSWER = 140  # characters shown in the table
LOOK_PERIOD = 0.5  # seconds between two looks whether node and camera still run
LEAVE_LIMIT = 3.0  # seconds in which we leave, if what ended them (Ctrl-C) was meant for us too


@dataclass(frozen=True)
class DemoReply:
    """What came back for one question."""

    question: DemoQuestion
    message: Segmentation
    overlay: np.ndarray
    """uint8 (H, W, 3) RGB, as the node has drawn it"""
    overlap: float | None
    """intersection over union of all masks with the meant objects; None where no mask is meant"""

    @property
    def status(self) -> str:
        return Status(self.message.status).name

    @property
    def fault(self) -> str:
        """Why this is not the answer that was expected; empty if it is."""
        if self.status != self.question.status:
            reason = f" ({self.message.error})" if self.message.error else ""
            return f"status {self.status} instead of {self.question.status}{reason}"
        if self.overlap is not None and self.overlap <= RIGHT:
            return "the mask is not on the object that was meant"
        return ""

    @property
    def answered(self) -> bool:
        """Whether it is an answer at all, right or wrong."""
        return Status(self.message.status) in ANSWERED


class DemoClient(PerceptionClient):
    """Also hears the overlay, and the truth about every image."""

    def __init__(self, *processes: NodeProcess) -> None:
        super().__init__(lambda: [process.check() for process in processes], "demo")
        self._overlays: OrderedDict[int, Image] = OrderedDict()
        self._truths: OrderedDict[int, CompressedImage] = OrderedDict()
        self._images: OrderedDict[int, CompressedImage] = OrderedDict()
        self._tracks: list[Segmentation] = []
        self._follow = ActionClient(self, Follow, "follow")
        self.create_subscription(Image, "overlay", partial(_keep_image, self._overlays), 5)
        for topic, kept in ((TRUTH, self._truths), (IMAGE, self._images)):
            self.create_subscription(CompressedImage, topic, partial(_keep_image, kept), 20)
        self.create_subscription(Segmentation, "tracks", self._tracks.append, 20)

    def reply_to(self, question: DemoQuestion, shown_since: int) -> DemoReply:
        """Ask a question about the scene that is on show since this stamp (nanoseconds)."""
        message = self.ask(question.instruction, newer_than=shown_since)
        stamp, overlay = nanoseconds(message.header.stamp), np.zeros((1, 1, 3), np.uint8)
        if message.status in ANSWERED:
            if not self.wait(lambda: stamp in self._overlays, OVERLAY_LIMIT):
                raise NoAnswer(f"no overlay of the answer to '{question.instruction}'")
            overlay = to_rgb(self._overlays[stamp])
        self._overlays.clear()
        return DemoReply(question, message, overlay, self.overlap(question, message))

    def follow(self, instruction: str, count: int) -> tuple[str, list[Segmentation]]:
        """Have the node follow what is meant through `count` images; why it ended, and its tracks.

        Raises:
            NoAnswer: the node takes no goal, or does not end it.
        """
        self._tracks.clear()
        goal = SentGoal(self._follow, Follow.Goal(instruction=instruction))
        self.wait(lambda: goal.ended or len(self._tracks) >= count, ANSWER_LIMIT)
        goal.cancel()
        self.wait(lambda: goal.ended, ANSWER_LIMIT)
        if goal.result is None:
            does = "takes no goal" if goal.refused else "does not end a goal"
            raise NoAnswer(f"the perception node {does} of the action follow")
        return goal.result.reason, self._tracks[:count]

    def image_of(self, message: Segmentation) -> np.ndarray | None:
        """The image that a message is about, uint8 (H, W, 3) RGB; None if it did not come."""
        recorded = self._images.get(nanoseconds(message.header.stamp))
        return None if recorded is None else to_rgb(recorded)

    def overlap(self, question: DemoQuestion, message: Segmentation) -> float | None:
        if not question.objects or not message.instances:
            return 0.0 if question.objects else None
        recorded = self._truths.get(nanoseconds(message.header.stamp))
        if recorded is None:
            raise NoAnswer("an answer is about an image that the camera did not send")
        truth = cv2.imdecode(np.frombuffer(recorded.data, np.uint8), cv2.IMREAD_UNCHANGED)
        masks = [full_mask(message, instance) for instance in message.instances]
        meant, given = np.isin(truth, question.objects), np.any(masks, axis=0)
        return float((meant & given).sum() / (meant | given).sum())


def _keep_image(kept: OrderedDict[int, Any], message: Image | CompressedImage) -> None:
    kept[nanoseconds(message.header.stamp)] = message
    if len(kept) > KEPT:
        kept.popitem(last=False)


@contextmanager
def started(
    model: str, folder: Path, namespace: str = "lisa"
) -> Iterator[tuple[int, NodeProcess, NodeProcess]]:
    """The number of a ROS domain, and in it the perception node and its camera, until the end.

    Args:
        folder: for their logs.
    """
    node = ["lisa_ros.cli", "node", "--image", IMAGE, "--namespace", namespace, "--model", model]
    camera = ["lisa_ros.demo.recorded_camera"]
    with (
        own_domain() as domain,
        NodeProcess([sys.executable, "-m", *node], folder / "perception_node.log") as perception,
        NodeProcess(
            [sys.executable, "-m", *camera],
            folder / "recorded_camera.log",
            name="recorded camera",
            talks=True,
        ) as player,
    ):
        yield domain, perception, player


@contextmanager
def ended_with(node: NodeProcess, camera: NodeProcess, namespace: str) -> Iterator[None]:
    """A block that SIGTERM ends when the node cannot be configured, or one of the two has ended.

    SIGTERM must raise KeyboardInterrupt; SIGINT is ignored in the background of a script.

    Raises:
        NoAnswer: the reason, in place of the KeyboardInterrupt.
    """
    leaving, faults = threading.Event(), []

    def check() -> None:
        if leaving.is_set():
            raise NoAnswer("nobody waits for it any more")
        node.check()
        camera.check()

    client = PerceptionClient(check, "demo", namespace)

    def watch() -> None:
        try:
            with suppress(ExternalShutdownException), node.telling_why():
                client.wait_for_node()
            client.destroy_node()  # from here on nobody need be told of every answer
            while not leaving.wait(LOOK_PERIOD):
                check()
        except NoAnswer as error:
            if not leaving.wait(LEAVE_LIMIT):
                faults.append(error)
                os.kill(os.getpid(), signal.SIGTERM)

    watching = threading.Thread(target=watch, name="demo", daemon=True)
    watching.start()
    try:
        yield
    finally:
        leaving.set()
        watching.join()
        if faults:
            raise faults[0]


def ask_all(model: str, folder: Path, console: Console) -> list[DemoReply]:
    """Start both processes and put all questions; overlays are written as they come.

    Raises:
        NoAnswer: a process has ended, or an answer did not come.
    """
    questions = read_questions()
    with started(model, folder) as (domain, perception, player):
        client = DemoClient(perception, player)
        starting = console.status("starting the recorded camera and the perception node ...")
        with starting, perception.telling_why():
            client.wait_for_node()
        console.print(
            "The perception node is active, the recorded camera plays; look on with "
            f"ROS_DOMAIN_ID={domain}."
        )
        replies: list[DemoReply] = []
        scene = stamp = 0
        for number, question in enumerate(questions, 1):
            if question.seed != scene:
                scene, stamp = question.seed, show_scene(player, question.seed)
                client.wait(lambda: False, SETTLE)
            progress = f"\\[{number}/{len(questions)}] {question.instruction}"
            with console.status(progress):
                reply = client.reply_to(question, stamp)
            words = re.sub(r"[\W_]+", "_", question.instruction.lower()).strip("_")
            name = f"{number:02d}_{words[:50].rstrip('_')}.png"
            write_image(folder / name, reply.overlay)
            replies.append(reply)
            seconds = reply.message.timings.total / 1000
            console.print(f"{progress} → {reply.status}, {seconds:.2f} s", highlight=False)
        with console.status("following one thing through the moving camera ..."):
            console.print(follow_one(client, player, questions, folder), highlight=False)
        client.destroy_node()
        return replies


def follow_one(
    client: DemoClient, player: NodeProcess, questions: list[DemoQuestion], folder: Path
) -> str:
    """Follow the first thing that is asked for; writes a contact sheet, returns what came of it."""
    question = next(one for one in questions if one.objects)
    show_scene(player, question.seed)
    client.wait(lambda: False, SETTLE)
    reason, tracks = client.follow(question.instruction, FOLLOWED)
    if not tracks:
        return f"'{question.instruction}' was not followed: {reason}"
    overlaps = [client.overlap(question, message) for message in tracks]
    images = [client.image_of(message) for message in tracks]
    shown = [
        mark_masks(image, [full_mask(message, one) for one in message.instances])
        for image, message in zip(images, tracks, strict=True)
        if image is not None
    ]
    tiles = [cv2.resize(shown[i], TILE) for i in np.linspace(0, len(shown) - 1, TILES).astype(int)]
    rows = [np.hstack(tiles[i : i + COLUMNS]) for i in range(0, TILES, COLUMNS)]
    write_image(folder / "follow.jpg", np.vstack(rows))
    return (
        f"'{question.instruction}' was followed through {counted(len(tracks), 'image')}, its "
        f"median overlap with the simulator's own mask {np.median(overlaps):.2f}; {TILES} of them: "
        f"{folder / 'follow.jpg'}"
    )


def show_scene(player: NodeProcess, seed: int) -> int:
    """Let the recorded camera show a scene; returns the stamp of its first image, nanoseconds."""
    player.tell(str(seed))
    for line in player.process.stdout:
        shown, stamp = line.split()
        if int(shown) == seed:
            return int(stamp)
    player.process.wait()
    player.check()
    raise AssertionError("check raises, as the camera has ended")


def table_of(replies: list[DemoReply]) -> Table:
    """All answers, with the time that each stage took."""
    table = Table(title="Milliseconds per stage; overlap = with the simulator's own mask")
    table.add_column("instruction", ratio=4)
    table.add_column("kind", max_width=9)
    table.add_column("answer", ratio=4)
    table.add_column("status", no_wrap=True)
    for name in ("area", "overlap", *STAGES):
        table.add_column(name, justify="right")
    for reply in replies:
        message = reply.message
        area = sum(instance.area for instance in message.instances)
        table.add_row(
            reply.question.instruction,
            reply.question.kind,
            shorten(message.answer or message.error, LONGEST_ANSWER, placeholder=" …"),
            f"[{'red' if reply.fault else 'green'}]{reply.status}[/]",
            f"{area:,}" if area else "",
            "" if reply.overlap is None else f"{reply.overlap:.2f}",
            *(f"{getattr(message.timings, stage):.0f}" for stage in STAGES),
        )
    return table
