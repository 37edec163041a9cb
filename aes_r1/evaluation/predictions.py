"""Prediction rows on disk: appended as they come, so that a killed evaluation goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from aes_r1.data.sample import Sample
from aes_r1.settings import InputError

Rows = Callable[[Iterable[Sample]], Iterator[dict[str, Any]]]


def record(path: Path, samples: Iterable[Sample], rows_of: Rows, *, rows_per_picture: int) -> int:
    """Append to `path` the rows of every sample that it lacks; returns how many pictures it held before.

    `samples` come in the same order every time and rows_of(samples) gives `rows_per_picture` rows for each, in order.
    Whatever a kill left of the last picture is cut off and asked again: no row is lost, none stands twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    done, last = _whole_pictures(path, rows_per_picture)
    rest = iter(samples)
    for one in islice(rest, done):
        expected = one.id
    if done and last != expected:
        raise InputError(
            f"{path}: ends with picture {last}, not {expected}; it was written of other pictures: remove it"
        )
    with path.open("a", encoding="utf-8") as file:
        for place, row in enumerate(rows_of(rest), 1):
            file.write(json.dumps(row) + "\n")
            if place % rows_per_picture == 0:
                file.flush()
    return done


def _whole_pictures(path: Path, rows_per_picture: int) -> tuple[int, str | None]:
    """How many pictures `path` holds whole, and the id of the last; what follows them is cut off."""
    if not path.exists():
        return 0, None
    rows = pictures = place = whole = 0
    last = b""
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            rows, place = rows + 1, place + len(line)
            if rows % rows_per_picture == 0:
                pictures, whole, last = pictures + 1, place, line
        file.truncate(whole)
    return pictures, json.loads(last)["id"] if pictures else None


def merge(path: Path, stage: str, sets: Sequence[Sequence[Path]], *, rows_per_picture: int) -> int:
    """Put the rows of `stage` into the predictions file `path` in place of older ones; returns how many there are.

    sets: per data set the part of each process, which holds every n-th picture. The file is replaced when it is whole.
    """
    beside, count = path.with_suffix(".partial"), 0
    with beside.open("w", encoding="utf-8") as file:
        for row in read(path):
            if row["stage"] != stage:
                file.write(json.dumps(row) + "\n")
        for parts in sets:
            for row in _in_turn(parts, rows_per_picture):
                file.write(json.dumps({"stage": stage, **row}) + "\n")
                count += 1
    beside.replace(path)
    return count


def _in_turn(parts: Sequence[Path], rows_per_picture: int) -> Iterator[dict[str, Any]]:
    """A picture's rows of each part in turn, until all are at their end."""
    waiting = [read(part) for part in parts]
    while rows := [row for part in waiting for row in islice(part, rows_per_picture)]:
        yield from rows


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON-lines file, one at a time; none when there is no file."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)
