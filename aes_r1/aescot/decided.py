"""Write a distillation's files of decided pictures; each start of it replaces them as a whole at its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1.runs.files import append_rows, delete_left_drafts, draft_of, put_in_place, read_json, rows_at, write_json

DECIDED = ("aescot.jsonl", "rejected.jsonl")  # every decided picture is in one of these files


class DecidedFiles:
    """Write the files of decided pictures in `out`, each as a draft until it replaces the file of an earlier start.

    The files and the report on them are replaced together: `replacing.json` holds that report from before the first
    rename until after the last, and a start that finds it finishes a replacement that was killed.
    """

    def __init__(self, out: Path, names: Sequence[str]) -> None:
        self._paths = {name: out / name for name in names}
        self._report, self._replacing = out / "distill_report.json", out / "replacing.json"
        if self._replacing.exists():
            self._finish_replacing()
        delete_left_drafts(self._replacing)
        for path in self._paths.values():
            draft_of(path).write_bytes(b"")

    def append(self, name: str, row: Mapping[str, Any]) -> None:
        """Append a row to the file `name`, by one write."""
        append_rows(draft_of(self._paths[name]), [row])

    def hold_as_many_as_before(self) -> bool:
        """Return whether this start decided at least as many pictures as the earlier files in the folder hold."""
        paths = [self._paths[name] for name in DECIDED]
        return len(decided_pictures(map(draft_of, paths))) >= len(decided_pictures(paths))

    def put_in_place(self, report: Mapping[str, Any]) -> None:
        """Put the new files and the report on them into the places of the old ones."""
        write_json(self._replacing, report)
        self._finish_replacing()

    def _finish_replacing(self) -> None:
        report = read_json(self._replacing)
        for path in self._paths.values():
            if draft_of(path).exists():  # else a start that was killed had renamed it
                put_in_place(path)
        write_json(self._report, report)
        self._replacing.unlink()

    def drop(self) -> None:
        """Delete the new files; the old ones stay."""
        for path in self._paths.values():
            draft_of(path).unlink()


def decided_pictures(paths: Iterable[Path]) -> set[tuple[Any, Any]]:
    """Return the distinct (data set, id) of the pictures in files of records; a missing file holds none."""
    return {(row.get("dataset"), row.get("id")) for path in paths for _, row in rows_at(path, skip_broken=True)}
