"""Show progress: as bars in a terminal, as occasional lines in a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger("aes_r1")
EVERY_S = 60.0  # interval between the lines of one task where stderr is no terminal

Row = TypeVar("Row")


class ProgressUpdate(Protocol):
    """The type of a function that moves one progress bar."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """Show `done` of `total`, with `text` behind the bar."""


@contextmanager
def progress_bars(*, shown: bool = True) -> Iterator[Callable[[str], ProgressUpdate]]:
    """Show progress for the block: the yielded function makes a bar of a given name, and returns its ProgressUpdate.

    Where stderr is not a terminal, as under nohup or a scheduler, each bar is a line in the log every EVERY_S seconds.
    shown: true in one process of a job alone, because bars of several would overwrite each other in a terminal.
    """
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", markup=False),
    )
    console = Console(stderr=True, markup=False, emoji=False)
    in_terminal = console.is_terminal or console.is_jupyter
    with Progress(*columns, console=console, disable=not (shown and in_terminal)) as progress:

        def bar(name: str) -> ProgressUpdate:
            task = progress.add_task(name, total=None, text="")
            lines = _lines(name)

            def update(done: int, total: int, text: str) -> None:
                progress.update(task, completed=done, total=total, text=text)
                if shown and not in_terminal:
                    lines(done, total, text)

            return update

        yield bar


def with_progress(rows: Iterable[Row], update: ProgressUpdate, *, total: int) -> Iterator[Row]:
    """Yield `rows`, of which there are `total`, and move a bar by one after each."""
    update(0, total, "")
    for done, row in enumerate(rows, 1):
        yield row
        update(done, total, "")


def _lines(name: str) -> ProgressUpdate:
    """Return a function that logs where a task stands, and how long it will take, every EVERY_S seconds."""
    start = last = time.monotonic()
    # What was done at the first update, and its time: the rate counts from there, since a resume begins above 0.
    first: tuple[int, float] | None = None

    def update(done: int, total: int, text: str) -> None:
        nonlocal last, first
        now = time.monotonic()
        first = (done, now) if first is None else first
        if now - last < EVERY_S or done >= total:
            return
        last, (before, since) = now, first
        remaining = f", about {clock((now - since) / (done - before) * (total - done))} left" if done > before else ""
        log.info("%s: %d of %d after %s%s%s", name, done, total, clock(now - start), remaining, text and f", {text}")

    return update


def clock(seconds: float) -> str:
    """Return a duration as M:SS, or H:MM:SS from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
