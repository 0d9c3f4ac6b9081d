"""The pages speak of what is there: links, files, modules, commands, generated parts."""

from __future__ import annotations

import argparse
import importlib.util
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from benchmarks.generated_tables import fill_in
from lisa_ros import cli
from lisa_ros.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
FOLDERS = ("lisa_ros", "lisa_tabletop", "benchmarks", "test", "docs", "config", "launch", "msg")
FOLDERS += (".ci", ".devcontainer", ".github")
KINDS = "py|md|yaml|msg|action|xml|rviz|mcap|sh"
PLACES = {str(path.relative_to(ROOT)) for folder in FOLDERS for path in (ROOT / folder).rglob("*")}
PLACES |= {path.name for path in ROOT.iterdir()} | {
    str(path.relative_to(ROOT)) for path in (ROOT / "action").iterdir()
}
# Files that a reader makes or that others bring, not ours.
FOREIGN = {"views.yaml", "drive.mcap", "results.md", "inference.py", "policy.xml"}

pytestmark = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_files_that_are_named_exist(page: Path) -> None:
    """By their path from the root or from a folder above them, or by their name alone."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for name in re.findall(rf"[`\s]((?:[\w.-]+/)*[\w.-]+\.(?:{KINDS}))\b", text):
        if Path(name).name not in FOREIGN:
            found = any(place == name or place.endswith(f"/{name}") for place in PLACES)
            assert found, f"{name} is not there"


def test_modules_and_commands_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for module in re.findall(r"python3? -m ((?:lisa_ros|lisa_tabletop|benchmarks)[\w.]*)", text):
        assert importlib.util.find_spec(module.rstrip(".")), module
    for command in re.findall(r"[`\s]lisa-ros ([a-z][\w-]*)(?=[` \n])", text):
        assert command in COMMANDS or command in ("command", "and", "is"), command
    for module in re.findall(r"from (lisa_(?:ros|tabletop)[\w.]*) import", text):
        assert importlib.util.find_spec(module), module


def test_tables_are_read_as_tables_and_lose_no_cell(page: Path) -> None:
    """A row that an empty line or a word cuts off is shown as it stands; a cell too many is not."""
    text = page.read_text(encoding="utf-8")
    lines, tokens = text.splitlines(), MarkdownIt("commonmark").enable("table").parse(text)
    for before, token in pairwise(tokens):
        if before.type == "paragraph_open":
            assert not re.search(r"^\s*\|", token.content, re.MULTILINE), token.content
    for token in tokens:
        if token.type == "table_open":
            first, last = token.map
            rows = lines[first:last]
            cells = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
            odd = [row for row, count in zip(rows, cells, strict=True) if count != cells[0]]
            assert not odd, odd[0]


@cache
def options_of(command: str) -> frozenset[str]:
    parser = argparse.ArgumentParser()
    cli._command(command)[0](parser)
    return frozenset(parser._option_string_actions)


def test_options_that_are_named_exist(page: Path) -> None:
    """Of our commands, and of the modules in benchmarks/ that a page tells to run."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    option = re.compile(r"(?<![\w-])--[a-z][\w-]*")
    for command, words in re.findall(r"[`\s]lisa-ros ([a-z][\w-]*)([^`\n|#;)]*)", text):
        if command in COMMANDS:
            own = re.sub(r"'[^']*'|\"[^\"]*\"", "", words).partition("--ros-args")[0]
            unknown = set(option.findall(own)) - options_of(command)
            assert not unknown, f"lisa-ros {command} has no {unknown}"
    for module, words in re.findall(r"python3? -m benchmarks\.(\w+)([^`\n|#;)]*)", text):
        source = (ROOT / "benchmarks" / f"{module}.py").read_text(encoding="utf-8")
        for one in option.findall(words):
            assert f'"{one}"' in source, f"benchmarks.{module} has no {one}"


def test_generated_parts_are_current(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    name = page.relative_to(ROOT)
    assert fill_in(text) == text, f"run: python -m benchmarks.generated_tables {name}"
