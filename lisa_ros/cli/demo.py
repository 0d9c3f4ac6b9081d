"""`lisa-ros demo`: the recorded camera, the node and some questions, over real ROS 2 topics."""

from __future__ import annotations

import argparse
import os
import random
import shutil
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from lisa_ros.errors import LisaError

if TYPE_CHECKING:
    from rich.console import Console

    from lisa_ros.demo.asking import Reply

STAGES = ("convert", "clip", "sam", "prefill", "decode", "mask", "total")
LONGEST_ANSWER = 140  # characters shown in the table
SETTLE = 0.4  # seconds after a change of scene until the node's newest image surely shows it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="nano", help="shipped model or folder (default: nano)")
    parser.add_argument(
        "--output", type=Path, default=Path("demo_output"), help="folder for pictures and logs"
    )


def run(args: argparse.Namespace) -> int:
    """Ask everything, show a table; 1 where an answer is not what it should be."""
    prepare_environment()
    from rich.console import Console

    args.output.mkdir(parents=True, exist_ok=True)
    for old in args.output.glob("*.png"):
        old.unlink()
    console = Console(width=None if os.isatty(1) else 150)
    replies = ask_all(args.model, args.output, console)
    show(replies, console)
    console.print(f"Pictures of the answers: {args.output}/*.png")
    faults = [f"{r.question.instruction}: {r.fault}" for r in replies if r.fault]
    for fault in faults:
        console.print(f"[red]not as it should be:[/] {fault}")
    return 1 if faults else 0


def prepare_environment() -> None:
    """A ROS domain of our own on this machine alone, so that no robot nearby hears the demo."""
    from lisa_ros.dds import use_large_image_transport

    use_large_image_transport()
    os.environ.setdefault("ROS_DOMAIN_ID", str(random.SystemRandom().randint(1, 100)))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


def ask_all(model: str, folder: Path, console: Console) -> list[Reply]:
    """Start the processes and put all questions; the pictures are written as they come."""
    import rclpy

    from lisa_ros.demo.asking import Asker, DemoError
    from lisa_ros.demo.processes import Processes
    from lisa_ros.demo.recording import read_questions

    questions = read_questions()
    rclpy.init()
    try:
        with Processes(model, folder) as processes:
            asker = Asker(processes.check)
            with console.status("starting the recorded camera and the perception node ..."):
                try:
                    asker.wait_for_node()
                except DemoError as error:
                    log = processes.tail_of("perception node")
                    raise DemoError(f"{error}\n{log}") from None
            console.print("The perception node is active, the recorded camera plays.")
            replies: list[Reply] = []
            shown = stamp = 0
            for number, question in enumerate(questions, 1):
                if question.seed != shown:
                    shown, stamp = question.seed, processes.show(question.seed)
                    asker.spin(SETTLE)
                with console.status(f"[{number}/{len(questions)}] {question.instruction}"):
                    reply = asker.ask(question, stamp)
                save_picture(folder / f"{number:02d}_{slug(question.instruction)}.png", reply)
                replies.append(reply)
                seconds = reply.message.timings.total / 1000
                console.print(
                    f"\\[{number}/{len(questions)}] {question.instruction} → {reply.status}, "
                    f"{seconds:.2f} s",
                    highlight=False,
                )
            asker.destroy_node()
            return replies
    finally:
        rclpy.try_shutdown()


def slug(text: str) -> str:
    """A file name's part from an instruction."""
    words = "".join(letter if letter.isalnum() else " " for letter in text.lower()).split()
    return "_".join(words)[:50].rstrip("_")


def save_picture(path: Path, reply: Reply) -> None:
    """Write the overlay that the node has drawn.

    Raises:
        LisaError: it cannot be written.
    """
    import cv2

    if not cv2.imwrite(str(path), cv2.cvtColor(reply.overlay, cv2.COLOR_RGB2BGR)):
        free = shutil.disk_usage(path.parent).free // 2**20
        raise LisaError(f"cannot write {path} ({free} MB are free there)")


def show(replies: list[Reply], console: Console) -> None:
    """The table of all answers."""
    from rich.table import Table

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
        overlap = "" if reply.overlap is None else f"{reply.overlap:.2f}"
        table.add_row(
            reply.question.instruction,
            reply.question.kind,
            shorten(message.answer or message.error, LONGEST_ANSWER, placeholder=" …"),
            f"[{'red' if reply.fault else 'green'}]{reply.status}[/]",
            f"{area:,}" if area else "",
            overlap,
            *(f"{getattr(message.timings, stage):.0f}" for stage in STAGES),
        )
    console.print(table)
