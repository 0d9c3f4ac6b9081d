"""The texts that are made from the code's own tables: the README's tables and the parameter file.

    python -m benchmarks.generated_tables README.md config/perception.yaml

writes them in place. In Markdown a table stands between `<!-- table: NAME -->` and
`<!-- end of table -->`; NAME is `interfaces`, `parameters` or `statuses`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from lisa_ros.node.interfaces import INTERFACES
from lisa_ros.node.parameters import PARAMETERS, Value
from lisa_ros.node.status import MEANING

CHANGE_TEXT = {
    "live": "at once",
    "unconfigured": "while unconfigured",
    "start": "at start only",
}
KIND_TEXT = {"sub": "subscribes", "pub": "publishes", "srv": "service", "action": "action"}


def parameter_file() -> str:
    """The text of `config/perception.yaml`: every parameter with its default and its meaning."""
    lines = [
        "# The parameters of the perception node with their defaults.",
        "# Copy this file, change what you need and pass it: params_file:=/path/to/copy.yaml",
        "/**:",
        "  ros__parameters:",
    ]
    group = ""
    for parameter in PARAMETERS:
        *groups, name = parameter.name.split(".")
        if groups and groups[0] != group:
            group = groups[0]
            lines.append(f"    {group}:")
        indent = "      " if groups else "    "
        allowed = f" ({parameter.allowed})" if parameter.allowed else ""
        lines.append(f"{indent}# {parameter.text}{allowed}")
        lines.append(f"{indent}{name}: {_yaml_value(parameter.default)}")
    return "\n".join(lines) + "\n"


def parameter_table() -> str:
    """Name, default, allowed values, when it can change and meaning of every parameter."""
    lines = ["| parameter | default | allowed | can change | meaning |", "|---|---|---|---|---|"]
    for parameter in PARAMETERS:
        allowed = parameter.allowed or parameter.kind
        lines.append(
            f"| `{parameter.name}` | `{_yaml_value(parameter.default)}` | {allowed} "
            f"| {CHANGE_TEXT[parameter.change]} | {parameter.text} |"
        )
    return "\n".join(lines) + "\n"


def interface_table() -> str:
    """Kind, name, type and purpose of everything on the ROS graph."""
    lines = ["| | name | type | what |", "|---|---|---|---|"]
    for one in INTERFACES:
        lines.append(f"| {KIND_TEXT[one.kind]} | `{one.name}` | `{one.type}` | {one.text} |")
    return "\n".join(lines) + "\n"


def status_table() -> str:
    """Value, name and meaning of every status of a Segmentation."""
    lines = ["| value | status | meaning |", "|---|---|---|"]
    lines += [f"| {status.value} | `{status.name}` | {text} |" for status, text in MEANING.items()]
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[], str]] = {
    "interfaces": interface_table,
    "parameters": parameter_table,
    "statuses": status_table,
}
_BLOCK = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def fill_in(text: str) -> str:
    """A Markdown text with all its marked tables made anew."""
    return _BLOCK.sub(lambda block: block[1] + "\n" + TABLES[block[2]]() + "\n" + block[3], text)


def _yaml_value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def main(paths: list[str]) -> None:
    """Bring the given files up to date: Markdown with marked tables, YAML as a whole."""
    for path in map(Path, paths):
        if path.suffix == ".yaml":
            path.write_text(parameter_file(), encoding="utf-8")
        else:
            path.write_text(fill_in(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
