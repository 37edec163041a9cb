"""Present the rows of a memory-mapped table as a sequence of samples; only those that are read are in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from aes_r1.data.sample import Sample


class Samples(Sequence[Sample]):
    """Present rows on disk as a sequence of samples; slices and selections share the file."""

    def __init__(self, table: Any, folder: Path, indices: np.ndarray | None = None) -> None:
        """Wrap `table`, a datasets.Dataset.

        Relative paths start at `folder`; `indices` are rows of the table, [n] int.
        """
        self._table, self._folder = table, folder
        self._indices = np.arange(len(table)) if indices is None else indices

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return self.select(np.arange(len(self))[index])
        return self._sample(self._table[int(self._indices[index])])

    def __iter__(self) -> Iterator[Sample]:
        for start in range(0, len(self), 1000):
            rows = self._table[self._indices[start : start + 1000]]
            for values in zip(*rows.values(), strict=True):
                yield self._sample(dict(zip(rows, values, strict=True)))

    def _sample(self, row: dict[str, Any]) -> Sample:
        attributes = json.loads(row.pop("attributes"))
        return Sample(**{**row, "image": str(self._folder / row["image"]), "attributes": attributes})

    def select(self, indices: np.ndarray) -> Samples:
        """Return the samples at `indices` into this list, [n]."""
        return Samples(self._table, self._folder, self._indices[indices])

    def column(self, name: str) -> np.ndarray:
        """Return one field of every sample, [n]."""
        return self._table.data.column(name).to_numpy()[self._indices]
