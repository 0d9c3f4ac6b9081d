"""Many queries with faults at random: is every one answered, and does nothing pile up?

    PYTHONPATH=test python -m benchmarks.soak --queries 100000 --write docs/reliability.md

The node runs in a process of its own around the fake engine and is asked over DDS; broken images,
a camera that stops, cancelled goals and the life cycle come in between. Progress goes to stderr,
the report to stdout or into the marked place of the given file.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import psutil
from lisa_ros.action import Segment
from node_rig import Manager, Rig, drawn_image, image_message, rig, wait_for
from rclpy.action import ActionClient

from benchmarks.generated_tables import page_option, show
from lisa_ros.node.status import Status
from lisa_ros.text_tables import markdown_table

# How often each kind of query comes, in parts of the whole.
KINDS = {
    "the thing in the middle": 50,
    "several": 10,
    "nothing": 5,
    "words": 5,
    "exception": 5,
    "oom": 4,
    "nan": 4,
    "shape": 3,
    "label": 2,
    "mute": 3,
    "image": 3,
    "encoder": 3,
    "": 1,
    "x" * 2000: 1,
    "[SEG] <image> </s> \x00\x07 {0} %s": 1,
    "endless": 0.1,
    "endless deaf": 0.05,
    "stall:0.1": 0.2,
}
AHEAD = 6  # queries that are on their way at the same time
CHECK = 1000  # queries between two measurements, and between two interludes
TIMEOUT = 0.5  # seconds, of a query


@dataclass
class Report:
    """What a run has shown."""

    queries: int = 0
    goals: int = 0
    results: int = 0
    duplicates: int = 0
    statuses: Counter = field(default_factory=Counter)
    memory: list[tuple[int, float]] = field(default_factory=list)
    """queries so far, resident memory of the node in MB"""
    threads: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def slope(self) -> tuple[float, float]:
        """Growth of the memory in MB per 100,000 queries after the first fifth, and its error."""
        settled = self.memory[len(self.memory) // 5 :]
        if len(settled) < 4:
            return 0.0, float("inf")
        x, y = (np.array(column, float) for column in zip(*settled, strict=True))
        x = x - x.mean()
        slope = (x * y).sum() / (x**2).sum()
        rest = y - y.mean() - slope * x
        error = np.sqrt((rest**2).sum() / (len(x) - 2) / (x**2).sum())
        return slope * 1e5, error * 1e5

    def markdown(self) -> str:
        """The report as it stands in docs/reliability.md."""
        slope, error = self.slope()
        missing = self.queries + self.goals - self.results
        counts = ", ".join(f"{count} {name}" for name, count in self.statuses.most_common())
        ends = "at the first and the last measurement"
        rows = [
            ("queries on the topic, goals of the action", f"{self.queries}, {self.goals}"),
            ("results", f"{self.results} ({missing} missing, {self.duplicates} twice)"),
            ("statuses", counts),
            (f"resident memory {ends}", f"{self.memory[0][1]:.1f} MB, {self.memory[-1][1]:.1f} MB"),
            (
                "growth after the first fifth",
                f"{slope:+.2f} ± {error:.2f} MB per 100,000 queries",
            ),
            (f"threads {ends}", f"{self.threads[0]}, {self.threads[-1]}"),
            (f"open files {ends}", f"{self.files[0]}, {self.files[-1]}"),
            ("duration", f"{self.seconds:.0f} s"),
        ]
        return markdown_table(("what", "measured"), rows, words=2)


def soak(queries: int, seed: int = 0, tell=lambda report: None) -> Report:
    """Ask so many queries, over DDS, and count what comes back."""
    random = np.random.default_rng(seed)
    kinds, weights = list(KINDS), np.array(list(KINDS.values()), float)
    report = Report()
    began = time.monotonic()
    with rig() as robot:
        process = robot.start("-p", f"query.timeout:={TIMEOUT}")
        program = Program(robot)
        robot.film(rate=20)
        wait_for(lambda: robot.ask("ready").status == Status.OK, "the first image")
        time.sleep(0.2)
        robot.results.clear()
        measure(report, process.process.pid)
        for kind in random.choice(len(kinds), queries, p=weights / weights.sum()):
            robot.say(kinds[kind])
            report.queries += 1
            limit = report.queries + report.goals - AHEAD
            wait_for(lambda n=limit: total(report, robot) >= n, "results to keep up", 60)
            if report.queries % CHECK == 0:
                interlude(robot, program, report, random)
                measure(report, process.process.pid)
                tell(report)
        wait_for(lambda: total(report, robot) >= report.queries + report.goals, "the last results")
        time.sleep(1.0)
        count(report, robot)
        measure(report, process.process.pid)
        assert process.alive
    report.seconds = time.monotonic() - began
    return report


def total(report: Report, robot: Rig) -> int:
    """Results so far, counted or not."""
    return report.results + report.duplicates + len(robot.results)


def count(report: Report, robot: Rig) -> None:
    """Take the results that have arrived into the report and forget them."""
    taken, robot.results[:] = list(robot.results), []
    robot.answers.clear()
    unique = {one.query_id: one for one in taken}
    report.results += len(unique)
    report.duplicates += len(taken) - len(unique)
    report.statuses.update(Status(one.status).name for one in unique.values())


def measure(report: Report, process: int) -> None:
    """Memory, threads and open files of the node."""
    node = psutil.Process(process)
    report.memory.append((report.queries, node.memory_info().rss / 2**20))
    report.threads.append(node.num_threads())
    report.files.append(node.num_fds())


class Program:
    """A lifecycle manager and an action client beside the voice."""

    def __init__(self, robot: Rig) -> None:
        self._manager = Manager(robot)
        self._do = robot.do
        self._action = ActionClient(robot.node, Segment, "segment")
        assert self._action.wait_for_server(20)

    def change_state(self, *names: str) -> None:
        for name in names:
            assert self._manager.change(name)

    def cancel_goals(self, report: Report, random: np.random.Generator) -> None:
        for _ in range(5):
            goal = Segment.Goal(instruction="long:5", dialogue=str(random.integers(100)))
            handle = wait_for(
                self._do(lambda g=goal: self._action.send_goal_async(g)).result, "acceptance", 60
            )
            report.goals += 1
            time.sleep(float(random.uniform(0, 0.06)))
            wait_for(self._do(handle.cancel_goal_async).result, "the cancel response", 60)
            wait_for(self._do(handle.get_result_async).result, "the goal's result", 60)


def interlude(robot: Rig, program: Program, report: Report, random: np.random.Generator) -> None:
    """Something else than a query on the topic."""
    wait_for(lambda: total(report, robot) >= report.queries + report.goals, "quiet", 60)
    count(report, robot)
    choice = random.integers(4)
    if choice == 0:
        program.change_state("deactivate", "activate")
    elif choice == 1:
        program.change_state("deactivate", "cleanup", "configure", "activate")
    elif choice == 2:
        broken = image_message(drawn_image())
        broken.step = int(random.integers(0, 100))
        for _ in range(3):
            robot.images.publish(broken)
    else:
        program.cancel_goals(report, random)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    page_option(parser, "--write", "soak")
    args = parser.parse_args()

    def tell(report: Report) -> None:
        print(
            f"\r{report.queries} of {args.queries} queries, {report.results} results, "
            f"{report.memory[-1][1]:.1f} MB",
            end="",
            file=sys.stderr,
            flush=True,
        )

    report = soak(args.queries, args.seed, tell)
    print(file=sys.stderr)
    show(report.markdown(), args.write, "soak")
    whole = report.results == report.queries + report.goals and not report.duplicates
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
