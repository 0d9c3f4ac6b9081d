"""Tables for people, by rich: on a terminal, and in Markdown for pages."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence

from rich.box import MARKDOWN, SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def plain_table(head: Iterable[str]) -> Table:
    """A table without lines, the first column on the left and the others on the right."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    return table


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: int = 1) -> str:
    """A table in Markdown; the first `words` columns are text, the others numbers."""
    table = Table(box=MARKDOWN)
    for index, name in enumerate(head):
        justify = "left" if index < words else "right"
        table.add_column(Text(name), justify=justify, no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(file=io.StringIO(), width=100_000, color_system=None)
    console.print(table)
    lines = "\n".join(line.strip() for line in console.file.getvalue().splitlines()).strip("\n")
    # Sentences padded to the longest of them would make lines of hundreds of blanks.
    return lines if words < len(head) else re.sub("-{4,}", "---", re.sub(" {2,}", " ", lines))
