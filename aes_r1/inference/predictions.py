"""Store prediction rows on disk as they are made, so that a killed evaluation resumes where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.data.pairs import Pair
from aes_r1.data.sample import Sample
from aes_r1.runs.files import append_rows, iter_rows, row_in, write_rows
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.processes import Processes
from aes_r1.runs.progress import progress_bars
from aes_r1.settings import InputError

Row = Mapping[str, Any]
Predictor = Callable[[Iterable[Any]], Iterator[dict[str, Any]]]  # yields rows of samples, or of pairs, in their order
Sets = Mapping[str, Sequence[Sample]]  # {NAME-SPLIT: its pictures}
GROUNDED = ("greedy", "sample")  # protocols whose critiques are measured in every stage
READ = 2000  # critiques per stage and set that are measured, drawn uniformly
ALONE = Processes()


def record_stage(
    run: RunFolder,
    stage: str,
    sets: Mapping[str, Sequence[Sample] | Sequence[Pair]],
    predictor: Predictor,
    *,
    rows_per_picture: int,
    process: Processes = ALONE,
    file: Path | None = None,
) -> int:
    """Write the rows of `stage` on every set to `file`, resuming after a kill; return their number on rank 0, else 0.

    file: None for the run's predictions. Every process asks about every size-th picture or pair. The rows of each
    process stay in the run's folder until the caller has marked the stage as done. Raises Stopped in all processes if
    one was asked to stop.
    """
    rank, size = process.rank, process.size
    with progress_bars(shown=rank == 0) as bar:
        for name, samples in sets.items():
            update, share = bar(f"{stage} on {name}"), samples[rank::size]
            append_predictions(
                run.part(stage, name, rank, size),
                share,
                predictor,
                rows_per_picture=rows_per_picture,
                progress=partial(update, total=len(share), text=""),
            )
    process.wait_or_leave()
    if rank != 0:
        return 0
    written = [[run.part(stage, name, process_rank, size) for process_rank in range(size)] for name in sets]
    return merge(file or run.predictions_file, stage, written, rows_per_picture=rows_per_picture)


def append_predictions(
    path: Path,
    samples: Iterable[Sample | Pair],
    predictor: Predictor,
    *,
    rows_per_picture: int,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """Append to `path` the rows of the samples that are missing there; return how many pictures it held before.

    `samples` come in the same order every time, and predictor(samples) yields `rows_per_picture` rows for each, in
    order. If a kill left only some rows of the last picture, these are cut off and the picture is asked about again, so
    no row is lost or repeated. progress(count) gets the number of pictures in `path`. Raises InputError where it holds
    the rows of other pictures.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before, last_id = _whole_pictures(path, rows_per_picture)
    remaining = iter(samples)
    for sample in islice(remaining, before):
        expected = sample.id
    if before and last_id != expected:
        raise InputError(
            f"{path}: ends with picture {last_id}, not {expected}; it was written of other pictures: remove it"
        )
    rows, count = predictor(remaining), before
    progress(count)
    while picture := list(islice(rows, rows_per_picture)):
        append_rows(path, picture)
        count += 1
        progress(count)
    return before


def _whole_pictures(path: Path, rows_per_picture: int) -> tuple[int, str | None]:
    """Return how many pictures have all their rows in `path`, and the id of the last; cut off what follows them."""
    if not path.exists():
        return 0, None
    rows = pictures = offset = end = 0
    last = b""
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            rows, offset = rows + 1, offset + len(line)
            if rows % rows_per_picture == 0:
                pictures, end, last = pictures + 1, offset, line
        file.truncate(end)
    return pictures, row_in(path, last, pictures * rows_per_picture)["id"] if pictures else None


def merge(path: Path, stage: str, sets: Sequence[Sequence[Path]], *, rows_per_picture: int) -> int:
    """Replace the rows of `stage` in the predictions file `path`; return how many there are.

    sets: for each data set the partial file of each of n processes, which holds every n-th picture. The file is
    replaced atomically.
    """
    number_of_other_stages = sum(row["stage"] != stage for row in iter_rows(path))
    of_other_stages = (row for row in iter_rows(path) if row["stage"] != stage)
    of_stage = ({"stage": stage, **row} for parts in sets for row in _in_turn(parts, rows_per_picture))
    return write_rows(path, chain(of_other_stages, of_stage)) - number_of_other_stages


def _in_turn(parts: Sequence[Path], rows_per_picture: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of one picture from each part in turn, until all parts end."""
    waiting = [iter_rows(part) for part in parts]
    while rows := [row for part in waiting for row in islice(part, rows_per_picture)]:
        yield from rows


class Chosen:
    """Draw a reservoir sample: at most `most` rows of a stream, each with the same chance, in their order."""

    def __init__(self, most: int, seed: int) -> None:
        self._most, self._rng, self._seen = most, np.random.default_rng(seed), 0
        self._rows: list[tuple[int, Row]] = []

    def add(self, row: Row) -> None:
        """Offer `row` to the sample."""
        self._seen += 1
        if len(self._rows) < self._most:
            self._rows.append((self._seen, row))
        elif (slot := int(self._rng.integers(self._seen))) < self._most:
            self._rows[slot] = (self._seen, row)

    def rows(self) -> list[Row]:
        """Return the chosen rows, in the order in which they came."""
        return [row for _, row in sorted(self._rows, key=itemgetter(0))]


def chosen_critiques(rows: Iterable[Row], *, most: int = READ, seed: int = 0) -> dict[tuple[str, str], list[Row]]:
    """Return {(stage, DATASET/SPLIT): rows with critique and score} for the first protocol that writes critiques."""
    reservoirs: dict[tuple[str, str], tuple[str, Chosen]] = {}
    for row in rows:
        key = (row["stage"], f"{row['dataset']}/{row['split']}")
        if row["critique"] and row["score"] is not None:
            protocol, reservoir = reservoirs.setdefault(key, (row["protocol"], Chosen(most, seed)))
            if row["protocol"] == protocol:
                reservoir.add(row)
    return {key: reservoir.rows() for key, (_, reservoir) in reservoirs.items()}


def rows_by_protocol(
    rows: Iterable[Row], *, readable: bool, most: int = READ, seed: int = 0
) -> dict[tuple[str, str, str], list[Row]]:
    """Return {(stage, DATASET/SPLIT, protocol): rows} of the protocols GROUNDED.

    With `readable`, only rows with a critique and a score.
    """
    reservoirs: dict[tuple[str, str, str], Chosen] = {}
    for row in rows:
        if row["protocol"] in GROUNDED and (not readable or (row["critique"] and row["score"] is not None)):
            key = (row["stage"], f"{row['dataset']}/{row['split']}", row["protocol"])
            reservoirs.setdefault(key, Chosen(most, seed)).add(row)
    return {key: reservoir.rows() for key, reservoir in reservoirs.items()}
