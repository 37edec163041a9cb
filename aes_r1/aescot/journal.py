"""Write every paid answer to a file as soon as it arrives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from aes_r1.runs.files import MissingKey, row_line, rows_at
from aes_r1.settings import InputError


class Journal:
    """Append answers by key to a JSON-lines file that survives kill -9.

    A row is one write followed by fsync. A kill can leave at most a half-written last line, which is cut off when the
    file is opened again. Only keys, file offsets and the names of pictures are held in memory. pictures: (data set, id)
    of the pictures about which the file held an answer when it was opened. Raises InputError for a damaged line.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a+b")
        self._offsets: dict[str, int] = {}
        self.pictures = set[tuple[Any, Any]]()
        last: int | None = None
        number = 0  # of the last line that held a row
        try:
            for offset, row in rows_at(path):
                number += 1
                self._offsets[str(row["key"])] = last = offset
                self.pictures.add((row.get("dataset"), row.get("id")))
        except (InputError, TypeError) as error:  # damaged by something other than a kill
            # rows_at fails at the line after the last row that it gave; a row without a key is the last row itself.
            line = f"{path}:{number + (not isinstance(error, TypeError | MissingKey))}"
            raise InputError(
                f"{line}: not an answer of this program; delete the line, and it is asked again"
            ) from error
        self._file.seek(last or 0)
        end = 0 if last is None else last + len(self._file.readline())
        self._file.truncate(end)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the row that was appended under `key`, else None."""
        offset = self._offsets.get(key)
        return None if offset is None else next(rows_at(self._path, start=offset))[1]

    def append(self, key: str, row: dict[str, Any]) -> None:
        """Write `row` under `key`, and return when it is safe on disk; a number that is not finite becomes null."""
        line = row_line({"key": key, **row})
        self._file.seek(0, os.SEEK_END)
        offset = self._file.tell()
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._offsets[key] = offset

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every row, in the order in which the answers came."""
        for offset in list(self._offsets.values()):
            yield next(rows_at(self._path, start=offset))[1]

    def __len__(self) -> int:
        return len(self._offsets)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
