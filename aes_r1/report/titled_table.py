"""Start the table of numbers that the terminal shows, the same in every section."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text


class _PlainTable(Table):
    """A table that shows texts as they are on every console: a bracket in the name of a set is no markup of rich."""

    def add_column(self, header: RenderableType = "", *more: Any, **how: Any) -> None:
        super().add_column(_plain(header), *more, **how)

    def add_row(self, *cells: RenderableType | None, **how: Any) -> None:
        super().add_row(*map(_plain, cells), **how)


def titled_table(title: str, head: Iterable[str], *, no_wrap: bool = False) -> Table:
    """Return a table without rows, its title and first column to the left, the other columns to the right.

    head: the names of the columns. no_wrap: cells are cut rather than broken into lines.
    """
    table = _PlainTable(title=Text(title, "bold"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.caption_justify = "left"
    first, *further = head
    table.add_column(first, no_wrap=no_wrap)
    for name in further:
        table.add_column(name, justify="right", no_wrap=no_wrap)
    return table


def _plain(cell: Any) -> Any:
    return Text(cell) if isinstance(cell, str) else cell
