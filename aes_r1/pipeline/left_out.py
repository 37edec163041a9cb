"""Say which pictures a list leaves out, in a few lines however many there are."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from aes_r1.data.loader import root_of
from aes_r1.data.names import way_to_picture
from aes_r1.data.sample import Sample
from aes_r1.runs.files import write_rows
from aes_r1.settings import DataSettings, printable

log = logging.getLogger("aes_r1")

_NAMED = 5  # pictures that have a line of their own


def say_left_out(dropped: Sequence[Mapping[str, str]], manifest: Path) -> None:
    """Warn of `dropped`, the rows of check_pictures; where they are many, name the first ones and write all to a file.

    manifest: the list that they are left out of, beside which that file is written.
    """
    for row in dropped[:_NAMED]:
        log.warning("left out %s: %s", printable(row["path"]), row["reason"])
    if dropped[_NAMED:]:
        path = manifest.with_name(f"left_out-{manifest.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_rows(path, dropped)
        log.warning("left out: and %d more; %s lists all", len(dropped) - _NAMED, path)


def none_readable(data: DataSettings, split: str, samples: Sequence[Sample], first: Mapping[str, str]) -> str:
    """Say that no picture of the split can be read, with the `first` row of check_pictures and the nearest way out."""
    count = len(samples)
    fault = f"data={data.name}: none of {count} picture{'s' * (count != 1)} of the {split} split can be read"
    way_out = "mend the set, or give the folder that it is in"
    root = None if data.root is None else root_of(data)
    if root is not None and root.is_dir() and Path(first["path"]).is_relative_to(root):
        way_out = way_to_picture(root, Path(first["path"]).relative_to(root).as_posix())
    elif root is not None:
        way_out = f"mend the pictures that {root} names, or make it anew"
    return f"{fault}, such as {first['path']}: {first['reason']}; {way_out}"
