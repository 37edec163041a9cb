"""Know the columns of a user's own labels, and refuse those that would be passed over although they are meant."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1.settings import InputError

COLUMNS = ("image", "mos", "mos_std", "n_raters", "split")
COUNT = re.compile(r"count_-?[0-9]+(?:[.,][0-9]+)?", re.IGNORECASE)
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
SPLITS |= dict.fromkeys(("validation", "val", "valid", "dev"), "validation")
# What other tools and people call two of our columns, without case, spaces and punctuation.
_CALLED = {
    **dict.fromkeys(
        ("std", "sd", "stdev", "stddev", "mossd", "mosstdev", "scorestd", "ratingstd", "ratingsd"), "mos_std"
    ),
    **dict.fromkeys(("nratings", "numratings", "numraters", "raters", "nvotes", "numvotes"), "n_raters"),
}
_SHOWN_COLUMNS = 20  # in a message


def column(row: dict[str, Any], name: str, path: Path, location: str | None = None) -> Any:
    """Return the cell `name` of `row`; where it is missing, the InputError names the columns that there are.

    location: the row's place, which the message names unless the file is a CSV, whose rows all have the same columns.
    """
    if row.get(name) is None:
        where = str(path) if location is None or path.suffix in (".csv", ".tsv") else f"{path}, {location}"
        if name in row:
            raise InputError(f"{where}: no {name} ({name}={row[name]}); fill it in, or take the row out")
        names = [str(key)[:60] for key in row]
        names = [*names[:_SHOWN_COLUMNS], f".., {len(names)} in all"] if len(names) > _SHOWN_COLUMNS else names
        rule = f"the first line must name the columns, {name} among them"
        if path.suffix in (".json", ".jsonl"):
            rule = f'every row needs {name}, as in [{{"image": "a.jpg", "mos": 0.63}}, ..]'
        elif len(row) == 1 and name in re.findall(r"\w+", str(next(iter(row))).casefold()):
            rule = "put commas between the columns, as write.csv of R and to_csv of pandas do"
        raise InputError(f"{where}: no column {name}; it has {', '.join(names)}; {rule}")
    return row[name]


def refuse_other_spellings(names: Collection[str], path: Path) -> None:
    """Raise InputError for a column that has one of our names but for its punctuation, or another name for the same."""
    ours = {name.replace("_", ""): name for name in COLUMNS} | {
        other: name for other, name in _CALLED.items() if name not in names
    }
    for name in sorted(names):
        if name in COLUMNS or COUNT.fullmatch(name):
            continue
        plain = re.sub(r"[\W_]+", "_", name.strip().casefold())
        meant = ours.get(plain if plain.startswith("_") else plain.replace("_", ""))
        meant = meant or re.sub("^(count)_?(?=[0-9]+$)", r"\1_", plain)
        if meant in COLUMNS or COUNT.fullmatch(meant):
            raise InputError(
                f"{path}: the column {name} would not be read as {meant}; give it this name, or another one"
            )


def refuse_unread_splits(rows: Sequence[tuple[str, Mapping[str, Any]]], path: Path) -> None:
    """Raise InputError for a column of nothing but splits beside which there is no column split.

    It would not be read, and the test pictures that it names would be trained on.
    """
    if not rows or any("split" in row for _, row in rows):
        return
    for name in rows[0][1]:
        cells = {str(row.get(name) or "").strip().casefold() for _, row in rows} - {""}
        if name and len(cells) > 1 and cells <= SPLITS.keys():
            raise InputError(
                f"{path}: the column {name} holds splits ({', '.join(sorted(cells))}), which are read from a column "
                "split alone; name it so, or take it out"
            )
