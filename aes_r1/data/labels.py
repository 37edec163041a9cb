"""Label files as they are published, read into rows of (picture, opinion); one reader per format."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aes_r1.settings import InputError


@dataclass(frozen=True)
class Label:
    """One row of a label file: picture path relative to the set's root, opinion on the scale that was published.

    fault: why the row cannot be used, where the label files themselves say so.
    """

    image: str
    mos: float | None
    mos_std: float | None = None
    n_raters: int | None = None
    split: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None


def first_there(root: Path, *names: str) -> Path:
    """The first of `names` below `root` that exists: copies of a set differ in where they keep a file."""
    for name in names:
        if (root / name).exists():
            return root / name
    raise InputError(f"{root}: no {' or '.join(names)} in it; check data.root")


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """(row number from 1, stripped text) of every line that is not empty; BOM, CRLF, no last newline are all fine."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # not splitlines: a name may hold U+2028
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such label file; check data.root") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as text ({error})") from error
    if not text.strip():
        raise InputError(f"{path}: the label file is empty")
    for row, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield row, line.strip()


def table(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV with a header; a byte-order mark, CRLF and a missing last newline are all fine."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if not rows.fieldnames:
                raise InputError(f"{path}: the label file is empty")
            rows.fieldnames = [name.strip() for name in rows.fieldnames]
            yield from rows
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such label file; check data.root") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error


def number(value: str | float | None, path: Path, row: int, column: str) -> float:
    """`value` as a finite number; InputError that names file, row and column where it is none."""
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{path}, row {row}: {column}={value!r} is not a number") from None
    if not math.isfinite(result):
        raise InputError(f"{path}, row {row}: {column}={value!r} is not finite")
    return result


def column(row: dict[str, str], name: str, path: Path) -> str:
    """The cell `name` of `row`; InputError that names the columns of the file where it is missing."""
    if row.get(name) is None:
        raise InputError(f"{path}: no column {name}; it has {', '.join(str(key) for key in row)}")
    return row[name]


def folder_labels(root: Path) -> list[Label]:
    """Your own pictures: ROOT/labels.csv or ROOT/labels.jsonl with `image` (path below ROOT) and `mos` in [0, 1].

    Optional: `mos_std`, `n_raters`, `split` (train, validation, test); further columns are kept as attributes.
    """
    for name in ("labels.csv", "labels.jsonl"):
        path = root / name
        if path.exists():
            break
    else:
        raise InputError(f"data.root={root}: no labels.csv or labels.jsonl in it (columns image, mos in [0, 1])")
    labels = []
    for place, row in enumerate(table(path) if path.suffix == ".csv" else _json_rows(path), 1):
        mos = number(column(row, "mos", path), path, place, "mos")
        if not 0 <= mos <= 1:
            raise InputError(f"{path}, row {place}: mos={mos} is outside [0, 1]; divide by the scale's range first")
        split = row.get("split") or None
        if split not in (None, "train", "validation", "test"):
            raise InputError(f"{path}, row {place}: split={split} must be train, validation or test")
        std, raters = row.get("mos_std"), row.get("n_raters")
        known = ("image", "mos", "mos_std", "n_raters", "split")
        labels.append(
            Label(
                column(row, "image", path),
                mos,
                number(std, path, place, "mos_std") if std not in (None, "") else None,
                int(number(raters, path, place, "n_raters")) if raters not in (None, "") else None,
                split,
                {key: value for key, value in row.items() if key not in known and key is not None},
            )
        )
    return labels


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    for place, line in lines(path):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, row {place}: not a JSON object ({error.msg})") from error


def avt_ai_labels(root: Path) -> list[Label]:
    """AVT-AI (Goering et al. 2023): ROOT/avtai224.csv, ROOT/images; mos01 in [0, 1], source names who made it."""
    path = root / "avtai224.csv"
    return [
        Label(
            f"images/{column(row, 'image_id', path)}",
            number(row["mos01"], path, place, "mos01"),
            number(row["mos_std01"], path, place, "mos_std01"),
            attributes={"source": row["source"]},
        )
        for place, row in enumerate(table(path), 1)
    ]
