"""Balance levels and data sets: read how many critiques of each are wanted, and draw pictures for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aes_r1.data.sample import Sample
from aes_r1.prompts import LEVELS, level_of
from aes_r1.settings import InputError

ANY = "*"  # any data set
Cell = tuple[str, str]  # data set or ANY, level


def read_quotas(entries: Mapping[str, Any]) -> dict[Cell, int]:
    """Read {level: n}, or {data set: {level: n}}, as counts per cell; InputError names a wrong entry."""
    wanted: dict[Cell, int] = {}
    for key, value in entries.items():
        rows = (
            {(ANY, key): value} if not isinstance(value, Mapping) else {(key, level): n for level, n in value.items()}
        )
        for (dataset, level), count in rows.items():
            where = f"quotas.{level}" if dataset == ANY else f"quotas.{dataset}.{level}"
            if level not in LEVELS:
                raise InputError(
                    f"{where}: no such level; levels are {', '.join(LEVELS)}, or give quotas.DATASET.LEVEL"
                )
            if isinstance(count, bool) or not isinstance(count, int) or count < 0:
                raise InputError(f"{where}={count}: must be a whole number, 0 or more")
            wanted[dataset, level] = count
    if any(dataset == ANY for dataset, _ in wanted) and any(dataset != ANY for dataset, _ in wanted):
        raise InputError("quotas: give counts per level, or per data set and level, not both")
    return wanted


class QuotaSampler:
    """Give out pictures in rounds.

    Without quotas there is one round with every picture once, in the given order. With quotas the order is seeded, and
    a round holds, for every cell, as many new pictures as critiques are still missing; rounds go on until every cell is
    full or its pictures are used up. So no more is bought than is needed, and the same seed and answers give the same
    set. listed: `samples` and the pictures that were left out because they cannot be read; the order is drawn over this
    list, so that it does not depend on which pictures are left out.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        quotas: Mapping[Cell, int],
        seed: int,
        *,
        listed: Sequence[Sample] | None = None,
    ) -> None:
        listed = samples if listed is None else listed
        self._quotas = dict(quotas)
        self._kept = dict.fromkeys(self._quotas, 0)
        self._all: list[Sample] | None = None if self._quotas else list(samples)
        self._pools: dict[Cell, deque[Sample]] = {cell: deque() for cell in self._quotas}
        if self._quotas:
            given = {(sample.dataset, sample.id, sample.image) for sample in samples}
            for index in np.random.default_rng(seed).permutation(len(listed)):
                sample = listed[int(index)]
                cell = self.cell_of(sample)
                if cell is not None and (sample.dataset, sample.id, sample.image) in given:
                    self._pools[cell].append(sample)

    def cell_of(self, sample: Sample) -> Cell | None:
        """Return the cell that a sample counts for, or None where nothing of its kind is wanted."""
        level = level_of(sample.mos) if sample.mos is not None else ""
        return next((cell for cell in ((sample.dataset, level), (ANY, level)) if cell in self._quotas), None)

    def next_round(self) -> list[Sample]:
        """Return the pictures to ask about next; empty when every cell is full or no picture is left."""
        if not self._quotas:
            drawn, self._all = self._all or [], []
            return drawn
        drawn = []
        for cell, pool in self._pools.items():
            missing = self._quotas[cell] - self._kept[cell]
            drawn += [pool.popleft() for _ in range(min(missing, len(pool)))]
        return drawn

    def keep(self, sample: Sample) -> None:
        """Count `sample` as kept in its cell."""
        cell = self.cell_of(sample)
        if cell is not None:
            self._kept[cell] += 1

    def shortfalls(self) -> dict[str, dict[str, int]]:
        """Return the cells that could not be filled, with the numbers wanted and kept."""
        return {
            level if dataset == ANY else f"{dataset}/{level}": {"wanted": wanted, "kept": self._kept[dataset, level]}
            for (dataset, level), wanted in self._quotas.items()
            if self._kept[dataset, level] < wanted
        }
