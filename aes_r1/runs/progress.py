"""Show progress bars in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Update(Protocol):
    """Move one progress bar."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """Show `done` of `total`, with `text` behind the bar."""


@contextmanager
def progress_bars(*, shown: bool = True) -> Iterator[Callable[[str], Update]]:
    """Show progress bars for the block: `bar(name)` makes one, which is then moved by calling it.

    shown: False in all processes of a job but one, because bars of several would overwrite each other in a terminal.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns, disable=not shown) as progress:

        def bar(name: str) -> Update:
            task = progress.add_task(name, total=None, text="")

            def update(done: int, total: int, text: str) -> None:
                progress.update(task, completed=done, total=total, text=text)

            return update

        yield bar
