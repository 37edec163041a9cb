"""Prediction rows on disk: appended as they come, so that a killed evaluation goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.data.sample import Sample
from aes_r1.inference.predict import predict
from aes_r1.model.backbone import Backbone
from aes_r1.settings import InputError

Row = Mapping[str, Any]
Rows = Callable[[Iterable[Sample]], Iterator[dict[str, Any]]]
Sets = Mapping[str, Callable[[], Iterable[Sample]]]  # NAME-SPLIT: its pictures, from the first, every time it is called
GROUNDED = ("greedy", "sample")  # protocols whose critiques are followed from stage to stage
READ = 2000  # critiques per stage and set that are measured, drawn evenly


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


def record_stage(
    folder: Path,
    stage: str,
    sets: Sets,
    rows_of: Callable[[str], Rows],
    *,
    rows_per_picture: int,
    rank: int = 0,
    size: int = 1,
    wait: Callable[[], None] = lambda: None,
) -> int:
    """Put the rows of `stage` on every set into FOLDER/predictions.jsonl, going on after a kill; returns their number.

    Process `rank` of `size` asks about every size-th picture; `wait` is a barrier of them. rows_of(name) makes rows.
    The parts stay in FOLDER/parts/STAGE until the caller has noted that the stage is done.
    """
    parts = folder / "parts" / stage
    for name, samples in sets.items():
        record(
            _part(parts, name, rank, size),
            islice(samples(), rank, None, size),
            rows_of(name),
            rows_per_picture=rows_per_picture,
        )
    wait()
    if rank != 0:
        return 0
    written = [[_part(parts, name, other, size) for other in range(size)] for name in sets]
    return merge(folder / "predictions.jsonl", stage, written, rows_per_picture=rows_per_picture)


def _part(parts: Path, name: str, rank: int, size: int) -> Path:
    return parts / f"{name}.{rank}-of-{size}.jsonl"


def asking(backbone: Backbone, progress: Callable[[int], None] = lambda done: None, **how: Any) -> Rows:
    """`predict` of one model as a function of samples; `how` are its keywords."""

    def rows_of(samples: Iterable[Sample]) -> Iterator[dict[str, Any]]:
        return predict(backbone, samples, progress=progress, **how)

    return rows_of


class Chosen:
    """At most `most` rows out of a stream of unknown length, each with the same chance (reservoir), in their order."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._rng, self._seen = most, np.random.default_rng(seed), 0
        self._rows: list[tuple[int, Row]] = []

    def add(self, row: Row) -> None:
        self._seen += 1
        if len(self._rows) < self._most:
            self._rows.append((self._seen, row))
        elif (place := int(self._rng.integers(self._seen))) < self._most:
            self._rows[place] = (self._seen, row)

    def rows(self) -> list[Row]:
        return [row for _, row in sorted(self._rows, key=lambda one: one[0])]


def chosen_critiques(rows: Iterable[Row], *, most: int = READ, seed: int = 0) -> dict[tuple[str, str], list[Row]]:
    """{(stage, DATASET/SPLIT): rows with a critique and a score} of the first protocol that writes critiques there."""
    found: dict[tuple[str, str], tuple[str, Chosen]] = {}
    for row in rows:
        key = (row["stage"], f"{row['dataset']}/{row['split']}")
        if row["critique"] and row["score"] is not None:
            protocol, chosen = found.setdefault(key, (row["protocol"], Chosen(most, seed)))
            if row["protocol"] == protocol:
                chosen.add(row)
    return {key: chosen.rows() for key, (_, chosen) in found.items()}


def rows_by_protocol(
    rows: Iterable[Row], *, readable: bool, most: int = READ, seed: int = 0
) -> dict[tuple[str, str, str], list[Row]]:
    """{(stage, DATASET/SPLIT, protocol): rows} of the protocols GROUNDED; `readable`: with a critique and a score."""
    found: dict[tuple[str, str, str], Chosen] = {}
    for row in rows:
        if row["protocol"] in GROUNDED and (not readable or (row["critique"] and row["score"] is not None)):
            key = (row["stage"], f"{row['dataset']}/{row['split']}", row["protocol"])
            found.setdefault(key, Chosen(most, seed)).add(row)
    return {key: chosen.rows() for key, chosen in found.items()}
