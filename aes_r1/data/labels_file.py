"""Find a label file by its names, and name the tables that a folder holds instead of one."""

from __future__ import annotations

import os
from pathlib import Path

from aes_r1.data.names import is_hidden
from aes_r1.settings import InputError

_FILES = ("labels.csv", "labels.tsv", "labels.jsonl", "labels.json", "labels.xlsx")
_TABLES = (".csv", ".tsv", ".xlsx", ".xlsm", ".xls", ".ods", ".jsonl", ".json", ".parquet")


def first_existing(root: Path, *names: str) -> Path:
    """Return the first of `names` below `root` that exists: copies of a set differ in where they keep a file."""
    for name in names:
        if (root / name).exists():
            return root / name
    raise InputError(f"{root}: no {' or '.join(names)} in it; check data.root")


def labels_file(root: Path) -> Path:
    """Find the one label file in `root`; InputError where there is none, or more than one."""
    existing = [root / name for name in _FILES if os.path.lexists(root / name)]  # also a link to a missing file
    if len(existing) > 1:
        raise InputError(
            f"data.root={root}: {' and '.join(path.name for path in existing)}; keep the one that is meant"
        )
    if existing:
        return existing[0]
    if not root.is_dir():
        raise InputError(f"data.root={root}: a file; give the folder in which labels.csv and the pictures lie")
    raise InputError(
        f"data.root={root}: no {' or '.join(_FILES)} in it (columns image, mos in [0, 1]){_other_tables(root)}"
    )


def _other_tables(root: Path) -> str:
    """Return what to do about the tables in `root` that have other names than label files; empty without one.

    Those whose name begins like that of a label file come first, and are tables whatever their suffix.
    """
    names = sorted(file.name for file in root.iterdir() if not is_hidden(file.name) and not file.name.startswith("~"))
    begun = [name for name in names if name.strip().lower().startswith("label") and (root / name).is_file()]
    tables = begun or [name for name in names if name.lower().endswith(_TABLES)]
    if len(tables) > 1:
        return f"; if one of {', '.join(tables[:3])} holds them, rename or save it as labels.csv"
    if not tables:
        return ""
    suffix = Path(tables[0].strip()).suffix.lower()
    if suffix in (".xls", ".ods", ".numbers", ".parquet"):
        return f"; save {tables[0]} as labels.csv (CSV UTF-8)"
    if suffix in (".xlsx", ".xlsm", ".jsonl", ".json"):
        return f"; rename {tables[0]} to labels{suffix.replace('xlsm', 'xlsx')}"
    return f"; rename or save {tables[0]} as labels.csv"
