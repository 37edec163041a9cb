"""Hold prediction rows as columns of numbers, which take some 80 bytes of memory per picture."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aes_r1.data.opinions import rater_shares
from aes_r1.evaluation.opinions import NOT_KNOWN, distances
from aes_r1.runs.cells import DISTANCES

ORIGINS = ("photograph", "ai")
Array = NDArray[np.float64]
Key = tuple[str, str, str]  # stage, DATASET/SPLIT, protocol


@dataclass(frozen=True)
class Column:
    """Hold the predictions of one stage, set and protocol, one entry per picture.

    ids [n] int64; scores, mos, mos_std, std [n], NaN where there is none: std is the standard deviation of a picture's
    readable outputs and count [n] their number; origins [n]: index into ORIGINS or -1; to_raters [n, 4]: distances of
    the outputs from the raters' opinions (evaluation.opinions), NaN where there are none; outputs, out_of_range:
    totals; sub_scores: {dimension: [n, 2]}, sub-score and rating, NaN where there is none.
    """

    ids: NDArray[np.int64]
    scores: Array
    mos: Array
    mos_std: Array
    std: Array
    count: NDArray[np.int64]
    origins: NDArray[np.int64]
    to_raters: Array
    outputs: int
    out_of_range: int
    sub_scores: dict[str, Array]


@dataclass
class _ColumnBuilder:
    """Collect the rows of a column in arrays that grow."""

    ids: array = field(default_factory=lambda: array("q"))
    numbers: array = field(default_factory=lambda: array("d"))  # score, mos, mos_std, std, then DISTANCES
    counts: array = field(default_factory=lambda: array("h"))  # readable, outputs, out of range, origin
    dimensions: tuple[str, ...] | None = None  # of the first row's sub-scores; all rows have the same
    rated: array = field(default_factory=lambda: array("d"))  # sub-score and rating of each dimension

    def add(self, row: Mapping[str, Any]) -> None:
        outputs = row.get("scores") or [row["score"]]
        readable = [score for score in outputs if score is not None]
        std = float(np.std(readable, ddof=1)) if len(readable) > 1 else None
        shares = rater_shares(row.get("votes"), row["mos"], row.get("mos_std"))
        known = distances(readable, shares).values() if readable and shares else NOT_KNOWN
        numbers = (row["score"], row["mos"], row.get("mos_std"), std, *known)
        self.ids.append(_digest(row["id"]))
        self.numbers.extend(np.nan if number is None else number for number in numbers)
        origin = ORIGINS.index(row["origin"]) if row.get("origin") in ORIGINS else -1
        self.counts.extend((len(readable), len(outputs), row.get("out_of_range", 0), origin))
        if self.dimensions is None:
            self.dimensions = tuple(row.get("sub_scores", ()))
        for name in self.dimensions:
            pair = (row.get(key, {}).get(name) for key in ("sub_scores", "ratings"))
            self.rated.extend(np.nan if number is None else number for number in pair)

    def column(self) -> Column:
        ids = np.frombuffer(self.ids, dtype=np.int64)
        numbers = np.frombuffer(self.numbers, dtype=np.float64).reshape(-1, 4 + len(DISTANCES))
        counts = np.frombuffer(self.counts, dtype=np.int16).reshape(-1, 4).astype(np.int64)
        _, first = np.unique(ids, return_index=True)
        _, last_from_end = np.unique(ids[::-1], return_index=True)
        rows = (len(ids) - 1 - last_from_end)[np.argsort(first)]  # the last row of each id, ordered by its first
        score, mos, mos_std, std = numbers[rows, :4].T
        to_raters = numbers[rows, 4:]
        readable, outputs, out_of_range, origins = counts[rows].T
        totals = int(outputs.sum()), int(out_of_range.sum())
        dimensions = self.dimensions or ()
        rated = np.array(self.rated, dtype=np.float64).reshape(len(ids), len(dimensions), 2)[rows]
        sub_scores = dict(zip(dimensions, rated.swapaxes(0, 1), strict=True))
        return Column(ids[rows], score, mos, mos_std, std, readable, origins, to_raters, *totals, sub_scores)


def columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[Key, Column]:
    """Collect prediction rows into columns, reading each row once.

    A picture without MOS is left out; of several rows with one id the last counts.

    Rows need stage, protocol, id, dataset, split, mos and score; scores, out_of_range, mos_std, votes, origin,
    sub_scores and ratings are optional.
    """
    builders: dict[Key, _ColumnBuilder] = {}
    for row in rows:
        if row["mos"] is not None:
            key = (row["stage"], f"{row['dataset']}/{row['split']}", row["protocol"])
            builders.setdefault(key, _ColumnBuilder()).add(row)
    return {key: builder.column() for key, builder in builders.items()}


def shared(before: Column, after: Column) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices in `before` and in `after` of the pictures that both have, in the order of `after`."""
    order = np.argsort(before.ids)
    positions = np.minimum(np.searchsorted(before.ids, after.ids, sorter=order), len(order) - 1)
    is_shared = before.ids[order[positions]] == after.ids
    return order[positions[is_shared]], np.flatnonzero(is_shared)


def _digest(identity: str) -> int:
    """Hash an id to 64 bits: among a million pictures, two ids collide with probability 3e-8."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little", signed=True)
