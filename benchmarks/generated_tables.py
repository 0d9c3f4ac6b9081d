"""Tables in Markdown, and the texts that are made from the code's own: README, parameter file.

    python -m benchmarks.generated_tables README.md config/perception.yaml

writes them in place. In a page a generated part stands between `<!-- table: NAME -->` and
`<!-- end of table -->`; NAME is one of `TABLES`, or what a benchmark calls its part.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable
from pathlib import Path

from lisa_ros.errors import WriteError
from lisa_ros.node.interfaces import INTERFACES
from lisa_ros.node.parameters import PARAMETERS, Value
from lisa_ros.node.status import MEANING
from lisa_ros.text_tables import markdown_table
from lisa_ros.writing import reason, writable_file, write_file

ROOT = Path(__file__).resolve().parents[1]
FROM_ROS = ("ros-", "numpy", "opencv", "pyyaml")  # packages that a ROS installation has its own of
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
    rows = [
        (
            f"`{one.name}`",
            f"`{_yaml_value(one.default)}`",
            one.allowed or one.kind,
            CHANGE_TEXT[one.change],
            one.text,
        )
        for one in PARAMETERS
    ]
    return markdown_table(
        ("parameter", "default", "allowed", "can change", "meaning"), rows, words=5
    )


def interface_table() -> str:
    """Kind, name, type and purpose of everything on the ROS graph."""
    rows = [(KIND_TEXT[i.kind], f"`{i.name}`", f"`{i.type}`", i.text) for i in INTERFACES]
    return markdown_table(("", "name", "type", "what"), rows, words=4)


def status_table() -> str:
    """Value, name and meaning of every status of a Segmentation."""
    rows = [(str(status.value), f"`{status.name}`", text) for status, text in MEANING.items()]
    return markdown_table(("value", "status", "meaning"), rows, words=3)


def robot_packages() -> str:
    """The pip line for a ROS installation's Python: what pyproject.toml pins, less what ROS has."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    # A list of strings with comments reads the same in TOML and in Python; 3.10 has no tomllib.
    found = re.search(r"^dependencies = (\[.*?^\])", project, re.DOTALL | re.MULTILINE)
    wanted = [one for one in ast.literal_eval(found[1]) if not one.startswith(FROM_ROS)]
    words = [one if re.fullmatch(r"[\w.=-]+", one) else f'"{one}"' for one in wanted]
    return "```\npip install " + " \\\n    ".join(words) + "\n```"


TABLES: dict[str, Callable[[], str]] = {
    "interfaces": interface_table,
    "parameters": parameter_table,
    "statuses": status_table,
    "robot packages": robot_packages,
}
_BLOCK = re.compile(r"(<!-- table: ([\w ]+) -->\n).*?(<!-- end of table -->)", re.DOTALL)


def fill_in(text: str, parts: dict[str, str] | None = None) -> str:
    """A page with its marked parts made anew: those of `TABLES`, or the ones that are given."""
    made = {name: make() for name, make in TABLES.items()} if parts is None else parts

    def part(block: re.Match[str]) -> str:
        return f"{block[1]}\n{made[block[2]]}\n\n{block[3]}" if block[2] in made else block[0]

    return _BLOCK.sub(part, text)


def find_place(page: Path, name: str) -> str:
    """What stands now where a page takes the table of that name.

    Raises:
        WriteError: the page cannot be read, or has no such place.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else error
        raise WriteError(f"cannot put a table into {page}: {why}") from error
    for block in _BLOCK.finditer(text):
        if block[2] == name:
            return block[0]
    raise WriteError(
        f"{page} has no place for this table: put the lines `<!-- table: {name} -->` and "
        "`<!-- end of table -->` where it shall stand"
    )


def page_option(parser: argparse.ArgumentParser, option: str, name: str) -> None:
    """Declare the option for a page to write to; one without a place for the table is refused."""

    def page(words: str) -> Path:
        try:
            find_place(writable_file(Path(words)), name)
        except WriteError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return Path(words)

    about = f"page whose table `{name}` is brought up to date"
    parser.add_argument(option, type=page, metavar="PAGE", help=about)


def show(text: str, page: Path | None, name: str) -> None:
    """Print a table and, where a page is given, put it there."""
    print(text)
    if page:
        put_into_page(page, name, text)


def put_into_page(page: Path, name: str, part: str, *, by_section: bool = False) -> list[str]:
    """Write one generated part into its marked place in a page.

    `by_section`: sections (`### NAME, ...`) that the part does not have stay behind it as they
    stand in the page; returns their names.
    """
    old, kept = find_place(page, name), []
    if by_section:
        sections = re.split(r"^(?=### )", old.partition("\n")[2].rpartition("\n")[0], flags=re.M)
        new = {heading.partition(",")[0] for heading in re.findall(r"^### .*", part, re.M)}
        for section in sections:
            heading = section.partition("\n")[0].partition(",")[0]
            if heading.startswith("### ") and heading not in new:
                part += f"\n\n{section.strip()}"
                kept.append(heading[4:])
    write_file(page, fill_in(page.read_text(encoding="utf-8"), {name: part}))
    return kept


def _yaml_value(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def main(arguments: list[str] | None = None) -> None:
    """Bring the given files up to date: Markdown with marked tables, YAML as a whole."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, help="Markdown pages, the parameter file")
    for path in parser.parse_args(arguments).paths:
        if path.suffix == ".yaml":
            write_file(path, parameter_file())
        else:
            write_file(path, fill_in(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
