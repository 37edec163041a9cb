"""Read label files into rows of (picture, opinion): your own files, and what readers of published files share."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aes_r1.data.names import DRIVE, is_remote, local_name, name_on_disk
from aes_r1.data.spreadsheet import json_rows, sheet, table, table_in
from aes_r1.settings import InputError


@dataclass(frozen=True)
class Label:
    """One row of a label file: picture path relative to the set's root, opinion on the published scale.

    fault: why the row cannot be used, where the label files themselves show it. id: the picture's name in the row,
    where the disk spells its accents differently.
    """

    image: str
    mos: float | None
    mos_std: float | None = None
    n_raters: int | None = None
    split: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None
    id: str | None = None


def first_there(root: Path, *names: str) -> Path:
    """Return the first of `names` below `root` that exists: copies of a set differ in where they keep a file."""
    for name in names:
        if (root / name).exists():
            return root / name
    raise InputError(f"{root}: no {' or '.join(names)} in it; check data.root")


_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")


def number(
    value: str | float | None, path: Path, place: str, column: str, within: tuple[float, float] | None = None
) -> float:
    """Return the finite number at `place` of `path`; text may have a decimal comma.

    "1,234" may mean 1.234 or 1234: where only one of them lies `within` the range, it is that one.
    """
    where = f"{path}, {place}: {column}={repr(value)[:60]}"
    if isinstance(value, str):
        text = value.strip().removeprefix("\ufeff")
        if _THOUSANDS.fullmatch(text):
            low, high = within or (-math.inf, math.inf)
            readings = [float(text.replace(",", mark)) for mark in (".", "")]
            possible = [reading for reading in readings if low <= reading <= high]
            if len(possible) > 1:
                raise InputError(f"{where} may be {' or '.join(f'{one:g}' for one in possible)}; write it with a point")
            return (possible or readings)[0]
        if _COMMA.fullmatch(text):
            text = text.replace(",", ".")
        result = float(text) if _DECIMAL.fullmatch(text) else None
        if result is None and text.lower().strip("+-") in ("nan", "inf", "infinity"):
            result = math.nan
    else:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        try:
            result = float(value) if plain and value is not None else None
        except OverflowError:
            result = math.inf
    if result is None:
        raise InputError(f"{where} is not a number; write it as 0.63, or take the row out")
    if not math.isfinite(result):
        raise InputError(f"{where} is not finite; mend it, or take the row out")
    return result


def column(row: dict[str, Any], name: str, path: Path) -> Any:
    """Give the cell `name` of `row`; InputError that names the columns of the file where it is missing."""
    if row.get(name) is None:
        has = ", ".join(str(key) for key in row)
        raise InputError(
            f"{path}: no column {name}; it has {has}; the first line must name the columns, {name} among them"
        )
    return row[name]


_FILES = ("labels.csv", "labels.tsv", "labels.jsonl", "labels.json", "labels.xlsx")
_COUNT = re.compile(r"count_[0-9]+(?:\.[0-9]+)?")
_MOST_RATERS = 10**9  # of one level; sums stay exact
_OWN = ("image", "mos", "mos_std", "n_raters", "split")
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= dict.fromkeys(("validation", "val", "valid", "dev"), "validation")


def folder_labels(root: Path, scale: tuple[float, float] = (0.0, 1.0)) -> list[Label]:
    """Read your own pictures: ROOT/labels.csv (or .tsv, .jsonl, .json, .xlsx) with `image` and `mos` in `scale`.

    `image` is a path below ROOT. Optional: `mos_std`, `n_raters`, `split` (train, validation, test), and `count_LEVEL`
    for every level of the scale, how many raters chose it; further columns are kept as attributes.
    """
    path = labels_file(root)
    labels = [_own_label(row, path, place, root, scale) for place, row in own_rows(path)]
    if not labels:
        raise InputError(f"{path}: no row below the header; every picture needs one")
    return labels


def labels_file(root: Path) -> Path:
    """Find the one label file of your own pictures in `root`; InputError where there is none, or more than one."""
    there = [root / name for name in _FILES if (root / name).exists()]
    if len(there) > 1:
        raise InputError(f"data.root={root}: {' and '.join(path.name for path in there)}; keep the one that is meant")
    if there:
        return there[0]
    like = [one.name for one in root.iterdir() if one.name.lower().startswith("labels.")] if root.is_dir() else []
    if not root.is_dir():
        raise InputError(f"data.root={root}: a file; give the folder in which labels.csv and the pictures lie")
    hint = f"; rename or save {sorted(like)[0]} as labels.csv" if like else ""
    raise InputError(f"data.root={root}: no labels.csv or labels.jsonl in it (columns image, mos in [0, 1]){hint}")


def own_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, row) of every row of your own label file; the place is for messages."""
    if path.suffix in (".csv", ".tsv"):
        return table(path, _OWN, lambda text: _names_pictures(text, path, path.parent))
    return sheet(path, _OWN) if path.suffix == ".xlsx" else json_rows(path, _OWN)


def _names_pictures(text: str, path: Path, root: Path) -> bool:
    """Return whether a text was decoded rightly: the pictures with non-ASCII names in it exist."""
    try:
        names = [str(row.get("image")) for _, row in table_in(text, path, _OWN)]
    except InputError:
        return False
    foreign = [name for name in names if not name.isascii()]
    return not foreign or any((root / name_on_disk(root, name)).exists() for name in foreign)


def _own_votes(row: dict[str, Any], path: Path, place: str, scale: tuple[float, float]) -> list[int] | None:
    """Return how many raters chose each level, from the columns count_LEVEL; None where no cell is filled in."""
    named = {float(key.removeprefix("count_")): row[key] for key in row if key and _COUNT.fullmatch(key)}
    if all(cell in (None, "") for cell in named.values()):
        return None
    (low, high), levels = scale, sorted(named)
    step = (high - low) / max(1, len(levels) - 1)
    if len(levels) < 2 or any(abs(low + step * at - level) > 1e-6 for at, level in enumerate(levels)):
        raise InputError(
            f"{path}: count_{levels[0]:g} .. count_{levels[-1]:g} are not the levels of a scale from {low:g} to "
            f"{high:g} at equal distances; give data.scale=[{levels[0]:g},{levels[-1]:g}] and all levels, or other "
            "names"
        )
    counts = [0.0 if named[one] in (None, "") else number(named[one], path, place, f"count_{one:g}") for one in levels]
    if any(not 0 <= count <= _MOST_RATERS or count != int(count) for count in counts):
        raise InputError(f"{path}, {place}: counts {counts} must be whole numbers from 0 to {_MOST_RATERS}")
    return [int(count) for count in counts] if any(counts) else None


def _own_label(row: dict[str, Any], path: Path, place: str, root: Path, scale: tuple[float, float]) -> Label:
    where, (low, high) = f"{path}, {place}", scale
    image = image_name(column(row, "image", path), where, root)
    mos = row.get("mos")
    if mos is None and "mos" not in row:
        column(row, "mos", path)
    if mos is None or (isinstance(mos, str) and not mos.strip()):
        raise InputError(f"{where}: no opinion (mos={mos!r}); fill it in, or take the row out")
    score = number(mos, path, place, "mos", scale)
    if not low <= score <= high:
        raise InputError(
            f"{where}: mos={score:g} is outside [{low:g}, {high:g}]; say the ends of your scale: data.scale=[1,10]"
        )
    given = row.get("split")
    split = _SPLITS.get(str(given).strip().lower()) if given not in (None, "") else None
    if given not in (None, "") and split is None:
        raise InputError(f"{where}: split={given} must be train, validation or test")
    std, raters = row.get("mos_std"), row.get("n_raters")
    spread = number(std, path, place, "mos_std", (0, high - low)) if std not in (None, "") else None
    if spread is not None and not 0 <= spread <= high - low:
        raise InputError(f"{where}: mos_std={std} must lie between 0 and {high - low:g}, the length of the scale")
    count = number(raters, path, place, "n_raters") if raters not in (None, "") else None
    if count is not None and (count < 1 or count != int(count)):
        raise InputError(f"{where}: n_raters={raters} must be a whole number above 0, or empty")
    votes = _own_votes(row, path, place, scale)
    if votes is not None:
        people, step = sum(votes), (high - low) / (len(votes) - 1)
        mean = sum(level * chose for level, chose in enumerate(votes)) / people
        squares = sum(chose * (level - mean) ** 2 for level, chose in enumerate(votes))
        if spread is None and people > 1:
            spread = step * math.sqrt(squares / (people - 1))
        count = people if count is None else count
    attributes = {key: value for key, value in row.items() if key and key not in _OWN and not _COUNT.fullmatch(key)}
    if votes is not None:
        attributes["votes"] = votes
    if any(_SURROGATE.search(json.dumps(value, ensure_ascii=False, default=str)) for value in attributes.values()):
        raise InputError(f"{where}: half a character (a lone surrogate) in a column; mend the text")
    return Label(image, score, spread, None if count is None else int(count), split, attributes)


_SURROGATE = re.compile(r"[\ud800-\udfff]")


def image_name(image: Any, where: str, root: Path) -> str:
    """Return the path of a row's picture below `root`; InputError where the cell is no such name."""
    if not isinstance(image, str) or not image.strip():
        raise InputError(f"{where}: image={image!r} is no name; give the picture's path below data.root")
    if is_remote(image) or image.startswith("data:"):
        raise InputError(f"{where}: image={image[:60]} is no file here; save the picture below data.root and name that")
    if DRIVE.match(image):
        raise InputError(f"{where}: image={image} is an absolute Windows path; give the path below data.root")
    if _SURROGATE.search(image) or any(ord(letter) < 32 for letter in image):
        raise InputError(f"{where}: image={image!r} holds what no name should; rename the picture")
    name = local_name(image)
    name = name if (root / name).exists() else name.strip()
    below = os.path.relpath(name, root.absolute()) if os.path.isabs(name) else ""
    return name if not below or below.split(os.sep)[0] == ".." else below  # one picture has one name


def avt_ai_labels(root: Path) -> list[Label]:
    """Read AVT-AI (Goering et al. 2023): ROOT/avtai224.csv, ROOT/images; mos01 in [0, 1], source names who made it."""
    path = root / "avtai224.csv"
    return [
        Label(
            f"images/{column(row, 'image_id', path)}",
            number(row["mos01"], path, place, "mos01"),
            number(row["mos_std01"], path, place, "mos_std01"),
            attributes={"source": row["source"]},
        )
        for place, row in table(path)
    ]
