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
    """One row of a label file: picture path relative to the set's picture folder, opinion on the 0..1 scale."""

    image: str
    mos: float | None
    mos_std: float | None = None
    n_raters: int | None = None
    split: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)


def table(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a CSV with a header; a byte-order mark, CRLF and a missing last newline are all fine."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such label file; check data.root") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as CSV ({error})") from error


def number(value: str | float | None, path: Path, row: int, column: str) -> float:
    try:
        result = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{path}, row {row}: {column}={value!r} is not a number") from None
    if not math.isfinite(result):
        raise InputError(f"{path}, row {row}: {column}={value!r} is not finite")
    return result


def column(row: dict[str, str], name: str, path: Path) -> str:
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
    for place, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if line.strip():
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


def para_labels(root: Path) -> list[Label]:
    """PARA: ROOT/annotation/PARA-Giaa{Train,Test}.csv, ROOT/imgs/sessionN/*.jpg; means of ratings 1..5."""
    labels = []
    for split, name in (("train", "PARA-GiaaTrain.csv"), ("test", "PARA-GiaaTest.csv")):
        path = root / "annotation" / name
        for place, row in enumerate(table(path), 1):
            mean = number(column(row, "aestheticScore_mean", path), path, place, "aestheticScore_mean")
            std = row.get("aestheticScore_std")
            labels.append(
                Label(
                    f"imgs/{column(row, 'sessionId', path)}/{column(row, 'imageName', path)}",
                    (mean - 1) / 4,
                    number(std, path, place, "aestheticScore_std") / 4 if std else None,
                    split=split,
                    attributes={"semantic": row.get("semantic")},
                )
            )
    return labels
