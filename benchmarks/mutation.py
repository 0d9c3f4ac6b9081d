"""How many planted faults the tests notice: a random sample of cosmic-ray's mutations.

In a clone without changes, for mutations are made in place, with `pip install cosmic-ray coverage`:

    python -m benchmarks.mutation cover                       # which test runs which line
    python -m benchmarks.mutation run --count 200 --seed 0    # can be broken off, and goes on
    python -m benchmarks.mutation report --write docs/reliability.md

A fault meets the tests that run its line, as with mutmut: the quickest first, until one fails. Of
what runs when a file is imported, and of the rig that tests of a file share, these are the tests
that run the function, class or file around it. A fault in a line that no test runs is not noticed.
A mutation that changes annotations or log lines alone cannot be noticed and is not drawn.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

FOLDERS = ("geometry", "node", "engine", "recordings")
ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / "build" / "mutation"
COVERED, SECONDS, RESULTS = WORK / "coverage", WORK / "seconds.json", WORK / "results.jsonl"
NOW = WORK / "now"  # the test that runs, for the processes that it has started
MOST = 40.0  # seconds of tests, as `cover` took them, that one fault meets
LIMIT = 300.0  # seconds after which a fault that makes the tests hang is noticed
OPTIONS = ["-q", "--no-header", "-p", "no:cacheprovider", "--timeout", "60"]
# Imported once, before a process of its own is forked for each fault.
HEAVY = (
    *("cv2", "hypothesis", "rclpy", "rosbags.highlevel", "torch"),
    *(f"transformers.models.{name}.modeling_{name}" for name in ("clip", "llama", "sam")),
)
# Faults that a person makes. Of the rest most change nothing: `is` for `==`, `+` for `|` of masks.
OPERATORS = re.compile(
    r"core/(NumberReplacer|AddNot|ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceTrueWithFalse|"
    r"ReplaceFalseWithTrue|ReplaceBreakWithContinue|ReplaceContinueWithBreak|ExceptionReplacer|"
    r"ZeroIterationForLoop|RemoveDecorator|ReplaceUnaryOperator\w+|"
    r"ReplaceBinaryOperator_(Add|Sub|Mul|Div)_(Add|Sub|Mul|Div)|"
    r"ReplaceComparisonOperator_(?!Is)\w+?_(?!Is)\w+)"
)
LOGGING = {"debug", "info", "warning", "warn", "error"}
MEASURE = f"""[run]
parallel = true
data_file = {COVERED}
source = {ROOT / "lisa_ros"}
patch = _exit
sigterm = true
"""
# Python imports it in every process that a test starts.
SITE = """
import threading, time
import coverage

def follow(measured, name=""):
    while True:
        time.sleep(0.005)
        before, name = name, open({now!r}, encoding="utf-8").read()
        if name != before:
            try:
                measured.switch_context(name)
            except coverage.CoverageException:
                return  # the process ends

coverage.process_startup()
threading.Thread(target=follow, args=[coverage.Coverage.current()], daemon=True).start()
"""


@dataclass(frozen=True)
class Mutation:
    """One change of one place; `occurrence` counts the places of an operator in a module."""

    module: str
    operator: str
    occurrence: int
    line: int

    def code(self) -> tuple[str, str]:
        """The module's text before and after; the latter is empty if that is no Python."""
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator

        before = (ROOT / self.module).read_text(encoding="utf-8")
        try:
            after = mutate_code(before, get_operator(self.operator)(), self.occurrence)
        except AttributeError:  # cosmic-ray 8.7 cannot replace a dotted exception
            after = None
        return before, after or ""


class _Effective(ast.NodeTransformer):
    """Drops what has no effect when the code runs: annotations, docstrings, words of the log."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        self.generic_visit(node)
        node.annotation = ast.Constant(None)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        self.generic_visit(node)
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr in LOGGING:
            node.args = []
        return node


def effect(code: str) -> str:
    """What of a module's text has an effect when it runs, to compare; empty if it is no Python."""
    try:
        return ast.dump(_Effective().visit(ast.parse(code)))
    except SyntaxError:  # such as `a > not b`, which any test notices
        return ""


def sample(count: int, seed: int) -> list[Mutation]:
    """So many mutations, drawn at random among those that have an effect."""
    from cosmic_ray.ast import ast_nodes, get_ast_from_path
    from cosmic_ray.plugins import get_operator, operator_names

    found = []
    for path in sorted(p for name in FOLDERS for p in (ROOT / "lisa_ros" / name).rglob("*.py")):
        nodes = list(ast_nodes(get_ast_from_path(path)))
        for name in filter(OPERATORS.fullmatch, sorted(operator_names())):
            operator = get_operator(name)()
            places = (start for node in nodes for start, _ in operator.mutation_positions(node))
            for occurrence, (line, _) in enumerate(places):
                found.append(Mutation(str(path.relative_to(ROOT)), name, occurrence, line))
    random.Random(seed).shuffle(found)
    chosen = []
    for mutation in found:
        before, after = mutation.code()
        if effect(after) not in ("", effect(before)):
            chosen.append(mutation)
        if len(chosen) == count:
            break
    return chosen


class _Recorder:
    """Tells coverage which test runs; what a test file's fixtures run belongs to the file."""

    def __init__(self, measured) -> None:
        self._measured = measured
        self.seconds: Counter[str] = Counter()
        self.failed: set[str] = set()

    def _switch(self, name: str) -> None:
        self._measured.switch_context(name)
        beside = NOW.with_suffix(".new")
        beside.write_text(name, encoding="utf-8")
        beside.replace(NOW)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        self._switch(item.nodeid.split("::")[0])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        self._switch(item.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        self._switch(item.nodeid.split("::")[0])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.seconds[report.nodeid] = report.duration
        elif report.failed:
            self.failed.add(report.nodeid)


def cover() -> int:
    """Run the tests and note which runs which line; the exit code of pytest."""
    import coverage

    site = WORK / "site"
    site.mkdir(parents=True, exist_ok=True)
    (site / "sitecustomize.py").write_text(SITE.format(now=str(NOW)), encoding="utf-8")
    (WORK / "coveragerc").write_text(MEASURE, encoding="utf-8")
    NOW.write_text("", encoding="utf-8")
    os.environ["COVERAGE_PROCESS_START"] = str(WORK / "coveragerc")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    measured = coverage.Coverage(config_file=str(WORK / "coveragerc"))
    measured.start()
    recorder = _Recorder(measured)
    code = pytest.main([*OPTIONS, *(f"test/{name}" for name in FOLDERS)], plugins=[recorder])
    measured.stop()
    measured.save()
    whole = coverage.Coverage(data_file=str(COVERED), config_file=False)
    whole.combine([str(WORK)])
    whole.save()
    for name in recorder.failed:
        recorder.seconds.pop(name, None)
    SECONDS.write_text(json.dumps(recorder.seconds, indent=1), encoding="utf-8")
    print(f"{len(recorder.seconds)} tests; left out, for they failed: {sorted(recorder.failed)}")
    return code


def around(code: str, line: int) -> tuple[set[int], list[set[int]]]:
    """The lines of the statement at a line, without what it contains; and of what it lies in, from
    the function out to the file, those that a call runs: the first alone, if a call runs the line.
    """
    functions, inside = [], []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.stmt):
            first = min(one.lineno for one in (node, *getattr(node, "decorator_list", ())))
            body = getattr(node, "body", None)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                functions.append(set(range(body[0].lineno, node.end_lineno + 1)))
            if first <= line <= node.end_lineno:
                end = max(line, body[0].lineno - 1) if body else node.end_lineno
                inside.append((first, end, node.end_lineno))
    inside.sort(key=lambda one: one[2] - one[0])
    first, end, _ = inside[0] if inside else (line, line, line)
    statement = set(range(first, end + 1))
    if any(line in body for body in functions):
        return statement, [statement]
    called = set().union(*functions)
    wider = [called & set(range(first, last + 1)) for first, _, last in inside]
    return statement, [*wider, called]


def selected(
    code: str, line: int, contexts: Mapping[int, Sequence[str]], seconds: Mapping[str, float]
) -> list[str]:
    """The tests that can notice a fault in a line, file by file, the quickest first.

    Args:
        code, line: of the module.
        contexts: by line, the tests and test files that run it; "" for its import.
        seconds: that each test takes.
    """
    statement, wider = around(code, line)
    ran = {name for number in statement for name in contexts.get(number, ())}
    if not ran:
        return []
    for lines in wider:
        found = {name for number in lines for name in contexts.get(number, ())} - {""}
        if found:
            break
    files = found - seconds.keys()
    found &= seconds.keys()
    later = {name for name in seconds if name.split("::")[0] in files} - found
    chosen: list[str] = []
    for group in (found, later):
        by_file = defaultdict(list)
        for name in sorted(group, key=seconds.__getitem__):
            by_file[name.split("::")[0]].append(name)
        for names in sorted(by_file.values(), key=lambda names: sum(seconds[n] for n in names)):
            chosen += names
    spent = 0.0
    for count, name in enumerate(chosen):
        spent += seconds[name]
        if spent > MOST:
            return chosen[: max(1, count)]
    return chosen


def run(count: int, seed: int) -> None:
    """Plant the faults of a sample one by one and write down which test notices each."""
    import coverage

    if subprocess.run(["git", "diff", "--quiet", "--", "lisa_ros"], cwd=ROOT).returncode:
        sys.exit("lisa_ros has changes: `git checkout lisa_ros` first, in a clone of its own")
    covered = coverage.CoverageData(str(COVERED))
    covered.read()
    seconds = json.loads(SECONDS.read_text(encoding="utf-8"))
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"  # a file may change twice within a second
    for name in HEAVY:
        importlib.import_module(name)
    done = {tuple(one["mutation"].values()) for one in results()}
    for mutation in sample(count, seed):
        if tuple(asdict(mutation).values()) in done:
            continue
        before, after = mutation.code()
        path = ROOT / mutation.module
        contexts = covered.contexts_by_lineno(str(path))
        tests = selected(before, mutation.line, contexts, seconds)
        began = time.monotonic()
        try:
            path.write_text(after, encoding="utf-8")
            noticed = _noticed(tests) if tests else ""
        finally:
            path.write_text(before, encoding="utf-8")
        changed = [
            f"{a.strip()} → {b.strip()}"
            for a, b in zip(before.splitlines(), after.splitlines(), strict=False)
            if a != b
        ]
        result = {"mutation": asdict(mutation), "change": changed[0], "tests": len(tests)}
        result |= {"noticed": noticed, "seconds": round(time.monotonic() - began, 1)}
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result, ensure_ascii=False) + "\n")
        print(f"{mutation.module}:{mutation.line}", changed[0], noticed or "NOT NOTICED", sep="  ")


def _noticed(tests: Sequence[str]) -> str:
    """The test that fails, or why none could run to its end; empty if all pass."""
    log = WORK / "tests.log"
    child = os.fork()
    if child == 0:
        os.setsid()
        for stream in (1, 2):
            os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
        os._exit(pytest.main([*OPTIONS, "-x", *tests]))
    end = time.monotonic() + LIMIT
    ended = 0
    while not ended and time.monotonic() < end:
        time.sleep(0.02)
        ended, status = os.waitpid(child, os.WNOHANG)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # the nodes of a test that broke off, too
    if not ended:
        os.waitpid(child, 0)
        return f"not through after {LIMIT:g} s"
    if status == 0:
        return ""
    said = log.read_text(encoding="utf-8", errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
    return failed[1] if failed else f"pytest ended with {os.waitstatus_to_exitcode(status)}"


def results() -> list[dict]:
    """What has been tried so far; of a mutation that was tried twice the later."""
    if not RESULTS.exists():
        return []
    lines = map(json.loads, RESULTS.read_text(encoding="utf-8").splitlines())
    return list({tuple(one["mutation"].values()): one for one in lines}.values())


def report() -> tuple[str, str]:
    """Noticed and unnoticed mutations by folder, and the unnoticed ones by line, as tables."""
    from lisa_ros.text_tables import markdown_table

    counts: Counter[tuple[str, bool]] = Counter()
    survivors = []
    for one in results():
        module, line = one["mutation"]["module"], one["mutation"]["line"]
        counts[module.split("/")[1], bool(one["noticed"])] += 1
        if not one["noticed"]:
            change = one["change"].replace("|", "\\|")
            survivors.append([f"`{module}:{line}`", f"`{change}`".replace(" → ", "` → `")])
    rows = []
    for folder in (*FOLDERS, "together"):
        killed, lived = (
            sum(counts[name, is_killed] for name in FOLDERS if folder in (name, "together"))
            for is_killed in (True, False)
        )
        share = f"{100 * killed / (killed + lived):.0f} %" if killed + lived else "–"
        rows.append([folder, str(killed + lived), str(killed), share])
    table = markdown_table(["folder", "planted", "noticed", "share"], rows)
    return table, markdown_table(["unnoticed", "change"], sorted(survivors), words=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("cover")
    running = commands.add_parser("run")
    running.add_argument("--count", type=int, default=200)
    running.add_argument("--seed", type=int, default=0)
    reporting = commands.add_parser("report")
    reporting.add_argument("--write", type=Path, help="a page with a place for `mutation`")
    args = parser.parse_args()
    if args.command == "cover":
        return cover()
    if args.command == "run":
        run(args.count, args.seed)
        return 0
    text, survivors = report()  # the latter are for a person to judge
    print(text, survivors, sep="\n\n")
    if args.write:
        from benchmarks.generated_tables import put_into_page

        put_into_page(args.write, "mutation", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
