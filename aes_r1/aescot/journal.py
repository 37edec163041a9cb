"""A file that keeps every answer that was paid for from the moment it arrives."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from aes_r1.settings import InputError


class Journal:
    """An append-only JSON-lines file of answers by key, which survives kill -9.

    A row is one write followed by fsync. A kill can leave at most a half-written last line, which is cut off when the
    file is opened again. Only keys and file offsets are held in memory.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")
        self._offsets: dict[str, int] = {}
        self._file.seek(0)
        end = 0
        while line := self._file.readline():
            if not line.endswith(b"\n"):
                break
            self._offsets[_key_of(line, f"{path}:{len(self._offsets) + 1}")] = end
            end += len(line)
        self._file.truncate(end)
        self._file.seek(end)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the row that was appended under `key`, else None."""
        offset = self._offsets.get(key)
        if offset is None:
            return None
        self._file.seek(offset)
        return json.loads(self._file.readline())

    def append(self, key: str, row: dict[str, Any]) -> None:
        """Write `row` under `key`, and return when it is safe on disk."""
        line = json.dumps({"key": key, **row}).encode() + b"\n"
        self._file.seek(0, os.SEEK_END)
        offset = self._file.tell()
        self._file.write(line)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._offsets[key] = offset

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield every row, in the order in which the answers came."""
        for key in list(self._offsets):
            row = self.get(key)
            assert row is not None
            yield row

    def __len__(self) -> int:
        return len(self._offsets)

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _key_of(line: bytes, location: str) -> str:
    """Return the key of a row; raises InputError when the file was damaged by anything but a kill."""
    try:
        return str(json.loads(line)["key"])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{location}: not an answer of this program; delete the line, and it is asked again"
        ) from error
