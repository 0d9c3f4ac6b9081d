"""The folders of `lisa_ros` know only those that docs/design.md lists below them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UP = {("lisa_ros/engine/load.py", "serving")}  # the page says so: an address in place of a model


def listed() -> list[str]:
    """The folders of the page's tree, the highest first."""
    page = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    tree = page.split("```")[1].split("lisa_tabletop/")[0]
    return re.findall(r"^  (\w+)/ ", tree, re.MULTILINE)


def imported(path: Path) -> Iterator[str]:
    """What of lisa_ros a file imports, wherever in the file: names of folders, or of files."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (name.split(".")[1] for name in names if name.startswith("lisa_ros."))


def test_the_page_lists_every_folder() -> None:
    folders = {path.parent.name for path in (ROOT / "lisa_ros").glob("*/__init__.py")}
    assert set(listed()) == folders


def test_a_folder_imports_only_those_below_it() -> None:
    order = listed()
    found = set()
    for folder in order:
        above = set(order[: order.index(folder)])
        for path in (ROOT / "lisa_ros" / folder).rglob("*.py"):
            name = str(path.relative_to(ROOT))
            found |= {(name, other) for other in imported(path) if other in above}
    for path in (ROOT / "lisa_ros").glob("[!_]*.py"):
        found |= {(str(path.relative_to(ROOT)), one) for one in imported(path) if one in order}
    assert found == UP
