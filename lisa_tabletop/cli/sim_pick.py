"""`lisa-ros sim-pick`: a simulated gripper lifts what instructions mean; a table, a video."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lisa_ros.cli import check_model, refuse_given
from lisa_ros.errors import check_number
from lisa_ros.writing import writable_folder

if TYPE_CHECKING:
    from rich.console import Console

    from lisa_tabletop.pick.trial import Perception, Trial

# kept in pick.json
SETTINGS = ("trials", "seed", "model", "perfect", "uncluttered", "split", "disturb")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--trials", type=int, default=20, help="number of trials (default: 20)")
    add("--seed", type=int, default=0, help="which series of scenes (default: 0)")
    add("--model", help="shipped model, folder or server's address (default: nano)")
    add(
        "--perfect",
        action="store_true",
        help="take the simulator's own masks instead of asking the perception node",
    )
    add("--uncluttered", action="store_true", help="only a few objects, well apart from each other")
    add(
        "--disturb",
        action="store_true",
        help="push the thing by 8 cm while the hand is on its way; each scene three times: "
        "undisturbed, with a hand that follows `tracks`, and with one that does not",
    )
    add(
        "--split",
        choices=("train", "test"),
        default="test",
        help="instructions in sentences that training used, or never used (default: test)",
    )
    add(
        "--filmed",
        type=int,
        default=6,
        help="trials in the video, from the first; four of them are in the GIF (default: 6)",
    )
    add("--output", type=Path, default=Path("sim_pick_output"), help="folder for what is written")


def run(args: argparse.Namespace) -> int:
    """Do the trials, show the table; write video, contact sheet, JSON and the node's log."""
    from lisa_tabletop.pick.scene import RUNS

    check_number("--trials", args.trials, 1)
    check_number("--seed", args.seed, 0, RUNS - 1)
    check_number("--filmed", args.filmed, 0)
    if args.perfect:
        refuse_given(args, ["model"], "with --perfect")
    args.model = args.model or "nano"
    check_model(args.model)
    writable_folder(args.output).mkdir(parents=True, exist_ok=True)
    from rich.console import Console

    console = Console(width=None if os.isatty(1) else 100, soft_wrap=not os.isatty(1))
    with _perception(args, console) as perception:
        _run(args, perception, console)
    names = ("pick.mp4", "pick.gif") * bool(args.filmed) + ("pick.jpg", "pick.json")
    console.print(f"Written to {args.output}: {', '.join(names)}")
    return 0


@contextmanager
def _perception(args: argparse.Namespace, console: Console) -> Iterator[Perception]:
    """The simulator's own masks, or the perception node with its process."""
    from lisa_tabletop.pick.trial import TrueMasks

    if args.perfect:
        yield TrueMasks()
        return
    from lisa_ros.node.client import NodeProcess, own_domain
    from lisa_tabletop.ros.robot import SimRobot, perception_command

    log = args.output / "perception_node.log"
    with own_domain(), NodeProcess(perception_command(args.model), log) as node:
        robot = SimRobot(node.check)
        with node.telling_why():
            with console.status("starting the perception node ..."):
                robot.wait_for_node()
            yield robot
        robot.destroy_node()


def _run(args: argparse.Namespace, perception: Perception, console: Console) -> None:
    """The trials with a progress bar; what was done is shown and saved even if one breaks off."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from lisa_tabletop.pick.disturb import HANDS
    from lisa_tabletop.pick.film import Film, save_contact_sheet, verdict
    from lisa_tabletop.pick.series import Series, by_hand, run_trials, save, table

    film = Film(args.output, args.filmed)
    trials: list[Trial] = []
    masks = "the simulator's own masks" if args.perfect else f"masks of {args.model}"
    text = TextColumn("{task.description}")
    series = Series(
        args.seed,
        args.uncluttered,
        # what is not there cannot be pushed
        absent=not (args.perfect or args.disturb),
        split=args.split,
        disturb=args.disturb,
    )
    try:
        columns = (text, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            times = len(HANDS) if args.disturb else 1
            task = progress.add_task(masks, total=args.trials * times)
            for trial in run_trials(series, args.trials, perception, film):
                trials.append(trial)
                progress.advance(task)
                style = "green" if trial.right else "red" if trial.can_be_held else "dim"
                said = f"[{style}]{verdict(trial)}[/]"
                if trial.hand:
                    said += f" ({trial.hand}, pushed by {100 * trial.pushed:.0f} cm)"
                console.print(f"{trial.instruction} {said}", highlight=False)
    finally:
        film.close()
        if trials:
            for hand, group in by_hand(trials).items():
                title = f"Simulated picks with {masks}" + (f", {hand}" if hand else "")
                console.print(table(group, title), soft_wrap=False)
            save_contact_sheet(args.output / "pick.jpg", film.tiles)
            save(args.output / "pick.json", trials, {key: getattr(args, key) for key in SETTINGS})
