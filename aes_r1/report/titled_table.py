"""Start the table of numbers that the terminal shows, the same in every section."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.table import Table


def titled_table(title: str, head: Iterable[str], *, no_wrap: bool = False) -> Table:
    """Return a table without rows, its title and first column to the left, the other columns to the right.

    head: the names of the columns. no_wrap: cells are cut rather than broken into lines.
    """
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.caption_justify = "left"
    first, *others = head
    table.add_column(first, no_wrap=no_wrap)
    for name in others:
        table.add_column(name, justify="right", no_wrap=no_wrap)
    return table
