"""How many planted faults the tests notice: a random sample of cosmic-ray's mutations.

In a clone without changes, for mutations are made in place, with `pip install cosmic-ray`:

    cosmic-ray init benchmarks/mutation.toml build/mutation.sqlite
    python -m benchmarks.mutation sample build/mutation.sqlite --count 200 --seed 0
    cosmic-ray exec benchmarks/mutation.toml build/mutation.sqlite    # hours; can be resumed
    python -m benchmarks.mutation report build/mutation.sqlite --write docs/reliability.md

A mutation that changes annotations or log lines alone cannot be noticed and is not drawn.
"""

from __future__ import annotations

import argparse
import ast
import random
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks.generated_tables import markdown_table, put_into_page

# Fast files first: most faults are noticed there.
TESTS = {
    "geometry": ["test/geometry"],
    "recordings": ["test/recordings"],
    "engine": ["test/engine/test_answers.py", "test/engine/test_text.py", "test/engine"],
    "node": [
        *("test/node/test_image.py", "test/node/test_depth_partner.py"),
        *("test/node/test_parameters.py", "test/node/test_queries.py", "test/node"),
    ],
}
# Faults that a person makes. Of the rest most change nothing: `is` for `==`, `+` for `|` of masks.
OPERATORS = re.compile(
    r"core/(NumberReplacer|AddNot|ReplaceAndWithOr|ReplaceOrWithAnd|ReplaceTrueWithFalse|"
    r"ReplaceFalseWithTrue|ReplaceBreakWithContinue|ReplaceContinueWithBreak|ExceptionReplacer|"
    r"ZeroIterationForLoop|RemoveDecorator|ReplaceUnaryOperator\w+|"
    r"ReplaceBinaryOperator_(Add|Sub|Mul|Div)_(Add|Sub|Mul|Div)|"
    r"ReplaceComparisonOperator_(?!Is)\w+?_(?!Is)\w+)"
)
LOGGING = {"debug", "info", "warning", "warn", "error"}


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


def sample(session: Path, count: int, seed: int) -> None:
    """Keep so many mutations of a session, drawn at random among those that have an effect."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator
    from cosmic_ray.work_db import WorkDB, use_db

    with use_db(session, WorkDB.Mode.open) as database:
        # The database has its own order; a mutation is known by where it is and what it does.
        items = sorted(database.work_items, key=lambda item: repr(_place(item)))
        random.Random(seed).shuffle(items)
        chosen = []
        for item in items:
            [mutation] = item.mutations
            if not OPERATORS.fullmatch(mutation.operator_name):
                continue
            code = Path(mutation.module_path).read_text(encoding="utf-8")
            operator = get_operator(mutation.operator_name)(**mutation.operator_args)
            try:
                mutated = mutate_code(code, operator, mutation.occurrence)
            except AttributeError:  # cosmic-ray 8.7 cannot replace a dotted exception
                continue
            if mutated is not None and effect(mutated) not in ("", effect(code)):
                chosen.append(item)
            if len(chosen) == count:
                break
        database.clear()
        database.add_work_items(chosen)
    print(f"{len(chosen)} of {len(items)} mutations are to be tried")


def _place(item) -> tuple:
    [mutation] = item.mutations
    return str(mutation.module_path), mutation.operator_name, mutation.occurrence


def test() -> int:
    """Run the tests of the folder whose file is changed; the exit code of pytest."""
    names = ["git", "diff", "--name-only", "--", "lisa_ros"]
    changed = subprocess.run(names, capture_output=True, text=True, check=True).stdout.split()
    tests = [test for name in changed for test in TESTS[name.split("/")[1]]]
    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "--timeout", "300"]
    return subprocess.run([sys.executable, "-m", "pytest", *options, *tests]).returncode


def report(session: Path) -> str:
    """Noticed and unnoticed mutations by folder, and the unnoticed ones by line."""
    from cosmic_ray.work_db import WorkDB, use_db

    counts: Counter[tuple[str, bool]] = Counter()
    survivors = []
    with use_db(session, WorkDB.Mode.open) as database:
        for item, result in database.completed_work_items:
            [mutation] = item.mutations
            folder = Path(mutation.module_path).parts[1]
            counts[folder, result.is_killed] += 1
            if not result.is_killed:
                lines = [line for line in result.diff.splitlines() if line[:2] in ("- ", "+ ")]
                where = f"`{mutation.module_path}:{mutation.start_pos[0]}`"
                what = " → ".join(f"`{line[1:].strip()}`" for line in lines)
                survivors.append((where, what.replace("|", "\\|")))
    rows = []
    for folder in (*TESTS, "together"):
        killed, lived = (
            sum(counts[name, is_killed] for name in TESTS if folder in (name, "together"))
            for is_killed in (True, False)
        )
        share = f"{100 * killed / (killed + lived):.0f} %" if killed + lived else "–"
        rows.append([folder, str(killed + lived), str(killed), share])
    table = markdown_table(["folder", "planted", "noticed", "share"], rows)
    return table + "\n\n" + markdown_table(["unnoticed", "change"], sorted(survivors), words=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("sample")
    drawing.add_argument("session", type=Path)
    drawing.add_argument("--count", type=int, default=200)
    drawing.add_argument("--seed", type=int, default=0)
    commands.add_parser("test")
    reporting = commands.add_parser("report")
    reporting.add_argument("session", type=Path)
    reporting.add_argument(
        "--write", type=Path, help="a page with a place for the table `mutation`"
    )
    args = parser.parse_args()
    if args.command == "test":
        return test()
    if args.command == "sample":
        sample(args.session, args.count, args.seed)
        return 0
    text = report(args.session)
    print(text)
    if args.write:
        put_into_page(args.write, "mutation", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
