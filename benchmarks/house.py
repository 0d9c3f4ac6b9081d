"""Counts what docs/design.md promises about the code, and fails where a ceiling is passed.

    python -m benchmarks.house

Lines and files of each package, the files that one query passes in a real node with the shipped
model, import circles (those for types and inside functions too), names that stand twice, comments
of the engine's dense files, the time of `lisa-ros --help`. Of lines and files the aim is shown as
well, which they have not reached; their ceilings hold what stands: who passes one takes away as
much elsewhere, or says in the commit what the lines are for.
"""

from __future__ import annotations

import ast
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tokenize
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from lisa_ros.text_tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("lisa_ros", "lisa_tabletop", "benchmarks")
AIMS = {"files of lisa_ros": 95, "lines of lisa_ros": 11_500, "lines together": 19_500}
CEILINGS = {"files of lisa_ros": 135, "lines of lisa_ros": 26_050, "lines together": 40_550}
MOST_FILES_OF_A_QUERY = 25
LEAST_COMMENTS = 8.0  # per 100 lines of each of these
DENSE = ("decoder", "generation", "speculative", "engine")  # files of lisa_ros/engine
MOST_SECONDS = 0.3  # of `lisa-ros --help`
NAMES_BY_FOLDER = {"camera", "depth"}  # modules that their folder tells apart: geometry, inputs
ABOVE = ("lisa_tabletop", "mujoco", "trimesh", "peft", "accelerate", "matplotlib", "tensorboard")
"""what no module of lisa_ros imports when it is imported"""
TRAINING = ("lisa_ros/training/", "lisa_ros/evaluation/plots.py")
"""but these may import what the extra `train` brings: only the commands that need it import them"""
ROUNDS = 6  # queries that are followed; files in all rounds are those of the query


def sources(*packages: str) -> dict[str, str]:
    """Path below the checkout and text of every Python file."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in paths}


def sizes(files: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Files and lines of each package and of each folder directly below it."""
    counted: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for path, text in files.items():
        package, *below = path.split("/")
        for name in {package, "/".join([package, below[0]]) if len(below) > 1 else package}:
            counted[name][0] += 1
            counted[name][1] += len(text.splitlines())
    return {name: (count, lines) for name, (count, lines) in sorted(counted.items())}


def module_of(path: str) -> str:
    """The dotted name of a file."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(path: str, text: str, modules: set[str]) -> set[str]:
    """The modules among `modules` that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # `from package import module` names the module, `from module import name` its module.
            names = [
                inner if (inner := f"{node.module}.{alias.name}") in modules else node.module
                for alias in node.names
            ]
        found.update(name for name in names if name in modules)
    return found - {module_of(path)}


def circles(files: Mapping[str, str]) -> list[list[str]]:
    """Groups of modules that import each other, directly or around."""
    modules = {module_of(path) for path in files}
    graph = {module_of(path): imports(path, text, modules) for path, text in files.items()}

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(graph[start])
        while waiting:
            module = waiting.pop()
            if module not in seen:
                seen.add(module)
                waiting.extend(graph[module])
        return seen

    reach = {module: reached(module) for module in graph}
    groups = {
        tuple(sorted(other for other in reach[module] if module in reach[other]))
        for module in graph
        if module in reach[module]
    }
    return [list(group) for group in sorted(groups)]


def upward(files: Mapping[str, str]) -> dict[str, list[str]]:
    """The modules of lisa_ros that, on import, import something that a robot does not have."""
    found: dict[str, list[str]] = {}
    for path, text in files.items():
        if path.startswith("lisa_ros/"):
            unwanted = set(ABOVE[:3] if path.startswith(TRAINING) else ABOVE)
            waiting: list[ast.AST] = [ast.parse(text)]
            while waiting:
                node = waiting.pop()
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = [a.name for a in node.names] + [getattr(node, "module", None) or ""]
                    taken = {name.partition(".")[0] for name in names} & unwanted
                    if taken:
                        found[path] = sorted({*found.get(path, []), *taken})
                elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                    waiting.extend(node.orelse)  # types alone are not imported
                elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    waiting.extend(ast.iter_child_nodes(node))
    return found


def doubled(names: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The names that stand in several places, with the places."""
    places: dict[str, list[str]] = defaultdict(list)
    for name, place in names:
        places[name].append(place)
    return {name: where for name, where in sorted(places.items()) if len(where) > 1}


def doubled_modules(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Module names that stand twice, but for those that their folder tells apart."""
    return doubled(
        (stem, path)
        for path in files
        if not (stem := Path(path).stem).startswith("__") and stem not in NAMES_BY_FOLDER
    )


def doubled_classes(files: Mapping[str, str]) -> dict[str, list[str]]:
    """Class names that stand twice."""
    return doubled(
        (node.name, path)
        for path, text in files.items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
    )


def comments(text: str) -> float:
    """Comments per 100 lines; directives to tools are none."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    found = [t.string for t in tokens if t.type == tokenize.COMMENT]
    own = [one for one in found if not one.startswith(("# noqa", "# ruff", "# type", "#!"))]
    return 100 * len(own) / max(1, len(text.splitlines()))


def help_seconds() -> float:
    """Wall time of `lisa-ros --help`, the best of some."""
    # The ROS wheels restart Python once; a child of a restarted one would be spared that.
    fresh = {k: v for k, v in os.environ.items() if k != "_ROS_WHEELS_BOOTSTRAP_COMPLETE"}

    def once() -> float:
        began = time.perf_counter()
        command = [sys.executable, "-m", "lisa_ros.cli", "--help"]
        subprocess.run(command, env=fresh, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    return min(once() for _ in range(7))


def watched_node(record: Path, ros_arguments: list[str]) -> int:
    """Run the perception node; at SIGUSR1 append the files passed since the last one to a file.

    What a timer calls is left out: on a slow machine each query lasts until the next one is due.
    """
    from rclpy.node import Node

    passed: set[str] = set()
    own = f"{ROOT}/lisa_ros/"
    timed = threading.local()
    create_timer = Node.create_timer

    def create_marked(node: Node, period: float, callback: Callable[[], None], **options: Any):
        def run() -> None:
            timed.now = True
            try:
                callback()
            finally:
                timed.now = False

        return create_timer(node, period, run, **options)

    Node.create_timer = create_marked

    def enter(frame: FrameType, event: str, _: object) -> None:
        file = frame.f_code.co_filename
        if event == "call" and file.startswith(own) and not getattr(timed, "now", False):
            passed.add(file.removeprefix(f"{ROOT}/"))

    threading.setprofile(enter)
    sys.setprofile(enter)

    def write(*_: object) -> None:
        with record.open("a") as file:
            file.write(json.dumps(sorted(passed)) + "\n")
        passed.clear()

    signal.signal(signal.SIGUSR1, write)
    from lisa_ros.node.run import run

    return run(ros_arguments)


def files_of_a_query() -> list[str]:
    """The files of lisa_ros that a query passes, from the image's callback to the mask.

    A node in a process of its own has the shipped model and is asked on its topic about new
    frames; what comes in beside a query by chance is left out, as it is not there in every round.
    """
    import cv2
    from sensor_msgs.msg import Image

    from lisa_ros.demo.recorded_camera import IMAGE, read_questions, read_recording
    from lisa_ros.node.client import NodeProcess, PerceptionClient, own_domain
    from lisa_ros.node.status import Status

    frame = read_recording()[0].frames[0][IMAGE]
    pixels = cv2.cvtColor(cv2.imdecode(frame.data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    height, width, _ = pixels.shape
    image = Image(height=height, width=width, step=3 * width, encoding="rgb8")
    image.data = array("B", pixels.tobytes())
    with own_domain(), tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "passed"
        command = [sys.executable, "-m", "benchmarks.house", "--node", str(record)]
        with NodeProcess(command, Path(folder) / "log") as node:
            client = PerceptionClient(node.check)
            camera = client.create_publisher(Image, "image", 1)
            client.wait_for_node()
            rounds: list[set[str]] = []
            for number in range(2 * (ROUNDS + 1)):
                if number % 2:  # the record begins after one signal and ends with the next
                    image.header.stamp = client.get_clock().now().to_msg()
                    client.wait(lambda: camera.get_subscription_count() > 0, 30.0)
                    camera.publish(image)
                    client.wait(lambda: False, 0.2)
                    answer = client.ask(read_questions()[0].instruction)
                    assert answer.status in (Status.OK, Status.NOT_FOUND), answer.error
                    # the last that a query does; a signal before it would cut the rest off
                    client.wait(lambda n=number: node.log.count("]: query ") > n // 2, 10.0)
                node.process.send_signal(signal.SIGUSR1)
                client.wait(lambda n=number: len(lines(record)) > n, 10.0)
            # The first of all loads what is loaded late.
            rounds = [set(json.loads(line)) for line in lines(record)[3::2]]
            client.destroy_node()
    return sorted(set.intersection(*rounds))


def lines(path: Path) -> list[str]:
    """The whole lines of a file that another process writes."""
    return path.read_text().splitlines() if path.exists() else []


def main(arguments: list[str]) -> int:
    """Print everything; 1 where a ceiling or limit is passed."""
    if arguments[:1] == ["--node"]:
        return watched_node(Path(arguments[1]), ["--ros-args", *arguments[2:]])
    files, faults = sources(*PACKAGES), []

    def check(what: str, value: float, limit: float, *, least: bool = False) -> list[str]:
        if value < limit if least else value > limit:
            faults.append(f"{what}: {value:g}, {'at least' if least else 'at most'} {limit:g}")
        shown = f"{value:,.4g}" if value < 100 else f"{value:,}"
        return [what, shown, f"{AIMS.get(what, limit):,}", f"{limit:,}"]

    sized = sizes(files)
    print(
        markdown_table(["folder", "files", "lines"], [[n, *map(str, s)] for n, s in sized.items()])
    )
    for title, found in (
        ("imports of what lies above", upward(files)),
        ("import circles", circles(files)),
        ("modules of one name", doubled_modules(files)),
        ("classes of one name", doubled_classes(files)),
    ):
        print(f"\n{title}: {len(found) or 'none'}")
        for one in found:
            where = f": {', '.join(found[one])}" if isinstance(found, dict) else ""
            print(f"  {one if where else ' ↔ '.join(one)}{where}")
        if found:
            faults.append(f"{title}: {len(found)}")
    passed = files_of_a_query()
    print("\nfiles that a query passes:", *passed, sep="\n  ")
    together = sum(sized[name][1] for name in PACKAGES)
    rows = [
        check(what, value, CEILINGS[what])
        for what, value in zip(CEILINGS, (*sized["lisa_ros"], together), strict=True)
    ]
    rows += [
        check("files that a query passes", len(passed), MOST_FILES_OF_A_QUERY),
        check("seconds of lisa-ros --help", help_seconds(), MOST_SECONDS),
    ]
    for name in DENSE:
        path = f"lisa_ros/engine/{name}.py"
        what = f"comments per 100 lines of {path}"
        rows.append(check(what, comments(files[path]), LEAST_COMMENTS, least=True))
    print("\n" + markdown_table(["what", "value", "aim", "ceiling or limit"], rows))
    for fault in faults:
        print(f"beyond the ceiling or limit: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
