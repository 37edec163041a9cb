"""Read label files into rows of (picture, opinion): a user's own files, and what readers of published files share."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aes_r1.data.attributes import MAX_RATERS, RESERVED, ROUNDING
from aes_r1.data.contradictions import contradiction, vote_spread
from aes_r1.data.label_columns import COLUMNS, COUNT, SPLITS, column, refuse_other_spellings, refuse_unread_splits
from aes_r1.data.labels_file import labels_file
from aes_r1.data.names import DRIVE, exists, is_remote, local_name, name_on_disk
from aes_r1.data.spreadsheet import COMMA_DECIMAL, DECIMAL, Percent, json_rows, table, table_in
from aes_r1.data.workbook import sheet
from aes_r1.settings import InputError


@dataclass(frozen=True)
class Label:
    """One row of a label file: the picture's path relative to the set's root, and its opinion on the published scale.

    fault: why the row cannot be used, as far as the label files show it: the kind of fault, or "KIND: details of this
    row". id: the picture's name in the row, where the disk spells its accents differently.
    """

    image: str
    mos: float | None
    mos_std: float | None = None
    n_raters: int | None = None
    split: str | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    fault: str | None = None
    id: str | None = None


_THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
# Numbers with marks of thousands, whose last mark is that of the decimals.
_GROUPED = {
    ",": re.compile(r"[+-]?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+"),
    ".": re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+\.[0-9]+"),
}


def read_number(
    value: str | float | None,
    path: Path,
    location: str,
    column: str,
    within: tuple[float, float] | None = None,
    *,
    whole: bool = False,
    way_out: str = "take the row out",
) -> float:
    """Return the finite number in a cell; text may have a decimal comma. `path`, `location`, `column` are for messages.

    "1,234" may mean 1.234 or 1234. If only one of the two lies `within` the range and, where `whole` is set, is a whole
    number, that one is returned. Other numbers are not compared with `within` and `whole`. Raises InputError for an
    ambiguous number, for one that is not finite, and for a cell without a number.
    """
    where = f"{path}, {location}: {column}={repr(value)[:60]}"
    if isinstance(value, str):
        text = _text_of_cell(value)
        if _THOUSANDS.fullmatch(text):
            readings = _readings(text, within, whole=whole)
            if len(readings) > 1:
                spelled = "without a comma" if whole else "with a point"
                raise InputError(
                    f"{where} may be {' or '.join(f'{value:g}' for value in readings)}; write it {spelled}"
                )
            return readings[0] if readings else float(text.replace(",", "."))
        if COMMA_DECIMAL.fullmatch(text):
            text = text.replace(",", ".")
        result = float(text) if DECIMAL.fullmatch(text) else None
        if result is None and text.lower().strip("+-") in ("nan", "inf", "infinity"):
            result = math.nan
    else:
        plain = isinstance(value, int | float) and not isinstance(value, bool)
        if isinstance(value, Percent) and within is not None and within[1] - within[0] != 1:
            raise InputError(
                f"{path}, {location}: {column} is shown as {100 * value:g}%, but stands for {value:g}; write it as a "
                f"number between {within[0]:g} and {within[1]:g}, without the format of percent"
            )
        try:
            result = float(value) if plain and value is not None else None
        except OverflowError:
            result = math.inf
    if result is None:
        for mark, grouped in _GROUPED.items():
            if isinstance(value, str) and grouped.fullmatch(_text_of_cell(value)):
                plain_text = _text_of_cell(value).replace("." if mark == "," else ",", "").replace(mark, ".")
                raise InputError(f"{where} has marks of thousands; write it as {plain_text}")
        raise InputError(f"{where} is not a number; write it as {5 if whole else 0.63}, or {way_out}")
    if not math.isfinite(result):
        raise InputError(f"{where} is not finite; mend it, or {way_out}")
    return result


def _text_of_cell(cell: str) -> str:
    return cell.strip().removeprefix("\ufeff")


def _readings(text: str, within: tuple[float, float] | None, *, whole: bool) -> list[float]:
    """Return what "1,234" may be, 1.234 and 1234, as far as it lies `within` the range and is `whole`."""
    low, high = within or (-math.inf, math.inf)
    readings = [float(text.replace(",", mark)) for mark in (".", "")]
    return [reading for reading in readings if low <= reading <= high and (not whole or reading.is_integer())]


def require_one_mark(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    path: Path,
    names: Collection[str],
    within: Mapping[str, tuple[float, float]],
    whole: Collection[str] = (),
) -> None:
    """Raise InputError where a column has numbers with a decimal comma in some rows and with a point in others.

    One of the two marks is then likely to separate thousands. names: the columns; `within` maps some of them to their
    range, and `whole` lists those of whole numbers; both help to read "1,234", as in `read_number`.
    """
    first: dict[str, dict[str, tuple[str, str]]] = {name: {} for name in names}
    for location, row in rows:
        for name, seen in first.items():
            cell = row.get(name)
            if not isinstance(cell, str) or not any(mark in cell for mark in ",." if mark not in seen):
                continue
            mark = _decimal_mark(cell, within.get(name), whole=name in whole)
            if mark is None or mark in seen:
                continue
            seen[mark] = (location, cell.strip())
            if len(seen) > 1:
                (a, comma), (b, point) = seen[","], seen["."]
                raise InputError(
                    f"{path}: {name}={comma} in {a} has a decimal comma, {name}={point} in {b} a decimal point; "
                    f"write all of {name} with a point, without marks of thousands"
                )


def _decimal_mark(cell: str, within: tuple[float, float] | None, *, whole: bool) -> str | None:
    """Return the mark before the decimals of a number; None without one, and where it may also separate thousands."""
    text = _text_of_cell(cell)
    for mark, grouped in _GROUPED.items():
        if grouped.fullmatch(text):
            return mark
    if _THOUSANDS.fullmatch(text):
        return "," if _readings(text, within, whole=whole) == [float(text.replace(",", "."))] else None
    if COMMA_DECIMAL.fullmatch(text):
        return ","
    return "." if "." in text and DECIMAL.fullmatch(text) else None


def folder_labels(root: Path, scale: tuple[float, float] = (0.0, 1.0)) -> list[Label]:
    """Read a user's own labels: ROOT/labels.csv (or .tsv, .jsonl, .json, .xlsx) with `image` and `mos` in `scale`.

    `image` is a path below ROOT. Optional are `mos_std`, `n_raters`, `split` (train, validation, test), and for every
    level of the scale `count_LEVEL`, the number of raters who chose it. Further columns are kept as attributes, but
    none may have a name that the program itself gives to attributes. Raises InputError for a cell that breaks a rule.
    """
    path = labels_file(root)
    labels: list[Label] = []
    levels: int | None = None
    rows = list(label_rows(path))
    refuse_other_spellings({name for _, row in rows for name in row if name}, path)
    refuse_unread_splits(rows, path)
    counts = ["n_raters", *dict.fromkeys(name for _, row in rows for name in row if name and COUNT.fullmatch(name))]
    ranges = {"mos": scale, "mos_std": (0.0, scale[1] - scale[0])}
    require_one_mark(rows, path, [*ranges, *counts], ranges, whole=counts)
    for location, row in rows:
        label = _label(row, path, location, root, scale)
        votes = label.attributes.get("votes")
        levels = levels or (None if votes is None else len(votes))
        if votes is not None and len(votes) != levels:
            raise InputError(
                f"{path}, {location}: counts of {len(votes)} levels, {levels} in earlier rows; give every row all "
                "levels, with 0 for one that nobody chose"
            )
        labels.append(label)
    if not labels:
        raise InputError(f"{path}: no row below the header; every picture needs one")
    return labels


def label_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (location, row) of every row of a user's label file; the location is for messages."""
    if path.suffix in (".csv", ".tsv"):
        return table(path, COLUMNS, lambda text: _names_pictures(text, path, path.parent))
    return sheet(path, COLUMNS) if path.suffix == ".xlsx" else json_rows(path, COLUMNS)


def _names_pictures(text: str, path: Path, root: Path) -> bool:
    """Return whether `text` was decoded correctly, judged by whether its pictures with non-ASCII names exist."""
    try:
        names = [str(row.get("image")) for _, row in table_in(text, path, COLUMNS)]
    except InputError:
        return False
    foreign = [name for name in names if not name.isascii()]
    return not foreign or any(exists(root / name_on_disk(root, name)) for name in foreign)


def _votes(row: dict[str, Any], path: Path, location: str, scale: tuple[float, float]) -> list[int] | None:
    """Return how many raters chose each level, from the columns count_LEVEL; None where no cell is filled in."""
    where, names = f"{path}, {location}", _count_columns(row, path)
    cells = {level: row[name] for level, name in names.items()}
    if all(cell in (None, "") for cell in cells.values()):
        return None
    (low, high), levels = scale, sorted(cells)
    if len(levels) == 1:
        raise InputError(
            f"{where}: {names[levels[0]]} alone is no scale; give all levels, with 0 for what nobody chose"
        )
    step = (high - low) / max(1, len(levels) - 1)
    if any(abs(low + step * index - level) > 1e-6 for index, level in enumerate(levels)):
        raise InputError(
            f"{path}: count_{levels[0]:g} .. count_{levels[-1]:g} are not the levels of a scale from {low:g} to "
            f"{high:g} at equal distances; give data.scale=[{levels[0]:g},{levels[-1]:g}] and all levels, or other "
            "names"
        )
    counts = [
        0.0 if cells[level] in (None, "") else read_number(cells[level], path, location, names[level], whole=True)
        for level in levels
    ]
    if any(not 0 <= count <= MAX_RATERS or count != int(count) for count in counts):
        raise InputError(f"{where}: counts {counts} must be whole numbers from 0 to {MAX_RATERS}")
    return [int(count) for count in counts] if any(counts) else None


def _count_columns(row: dict[str, Any], path: Path) -> dict[float, str]:
    """Return {level: name} of the columns count_LEVEL; InputError where two are of one level."""
    names: dict[float, str] = {}
    for name in row:
        if name and COUNT.fullmatch(name):
            other = names.setdefault(float(name.partition("_")[2].replace(",", ".")), name)
            if other != name:
                raise InputError(f"{path}: {other} and {name} are counts of one level; take one out")
    return names


def _label(row: dict[str, Any], path: Path, location: str, root: Path, scale: tuple[float, float]) -> Label:
    """Check the cells of a row and make a Label of them; InputError names the row and the cell."""
    where = f"{path}, {location}"
    for name in RESERVED:
        if name in row:
            raise InputError(
                f"{where}: column {name} has a meaning of its own in the program; rename the column; "
                "counts of raters are count_1, count_2, .., and data.attributes names columns of ratings"
            )
    image = image_name(column(row, "image", path, location), where, root)
    score = _score(row, path, location, scale)
    split = _split(row.get("split"), where)
    spread, count = _spread_and_raters(row, path, location, scale)
    votes = _votes(row, path, location, scale)
    attributes = {key: value for key, value in row.items() if key and key not in COLUMNS and not COUNT.fullmatch(key)}
    fault = contradiction(score, spread, count, votes, scale=scale, counts="the columns of counts")
    if fault is not None:
        raise InputError(f"{where}: {fault}")
    if votes is not None:
        spread = vote_spread(votes, scale) if spread is None else spread
        count = sum(votes) if count is None else count
        attributes["votes"] = votes
    if _SURROGATE.search(json.dumps(attributes, ensure_ascii=False, default=str)):
        raise InputError(f"{where}: half a character (a lone surrogate) in a column; mend the text")
    return Label(image, score, spread, count, split, attributes)


def _score(row: dict[str, Any], path: Path, location: str, scale: tuple[float, float]) -> float:
    where, (low, high) = f"{path}, {location}", scale
    mos = row.get("mos")
    if mos is None and "mos" not in row:
        column(row, "mos", path, location)
    if mos is None or (isinstance(mos, str) and not mos.strip()):
        raise InputError(f"{where}: no opinion (mos={mos!r}); fill it in, or take the row out")
    score = read_number(mos, path, location, "mos", scale)
    slack = ROUNDING * (high - low)
    if not low - slack <= score <= high + slack:
        way_out = "say the ends of your scale: data.scale=[1,10] (or [1,5], ..)"
        if (low, high) != (0, 1):
            way_out = "data.scale is the lowest and highest possible opinion; leave it out for opinions in [0, 1]"
        shown = f"{score:g}"
        shown = f"{score}" if low <= float(shown) <= high else shown  # 1.0000001 is no 1
        raise InputError(f"{where}: mos={shown} is outside [{low:g}, {high:g}]; {way_out}")
    return min(high, max(low, score))


def _split(cell: Any, where: str) -> str | None:
    if cell in (None, ""):
        return None
    split = SPLITS.get(str(cell).strip().lower())
    if split is None:
        raise InputError(f"{where}: split={str(cell)[:60]} must be train, validation or test, or empty")
    return split


def _spread_and_raters(
    row: dict[str, Any], path: Path, location: str, scale: tuple[float, float]
) -> tuple[float | None, int | None]:
    """Return mos_std and n_raters of a row, each None where its cell is empty."""
    where, length = f"{path}, {location}", scale[1] - scale[0]
    std, raters = row.get("mos_std"), row.get("n_raters")
    is_std, is_count = (value not in (None, "") for value in (std, raters))
    spread = read_number(std, path, location, "mos_std", (0, length), way_out=_EMPTY) if is_std else None
    if spread is not None and not 0 <= spread <= length:
        raise InputError(f"{where}: mos_std={std} must lie between 0 and {length:g}, the length of the scale")
    count = read_number(raters, path, location, "n_raters", whole=True, way_out=_EMPTY) if is_count else None
    if count is not None and not (1 <= count <= MAX_RATERS and count == int(count)):
        raise InputError(f"{where}: n_raters={raters} must be a whole number from 1 to {MAX_RATERS}, or empty")
    return spread, None if count is None else int(count)


_EMPTY = "leave the cell empty"
_SURROGATE = re.compile(r"[\ud800-\udfff]")


def image_name(image: Any, where: str, root: Path) -> str:
    """Return the path of a row's picture below `root`; InputError where the cell does not name one."""
    if not isinstance(image, str) or not image.strip():
        raise InputError(f"{where}: image={repr(image)[:60]} is no name; give the picture's path below data.root")
    if is_remote(image) or image.startswith("data:"):
        raise InputError(f"{where}: image={image[:60]} is no file here; save the picture below data.root and name that")
    if DRIVE.match(image):
        raise InputError(f"{where}: image={image} is an absolute Windows path; give the path below data.root")
    name = local_name(image)
    if _SURROGATE.search(name) or any(ord(letter) < 32 for letter in name):  # a file:// address holds them as %0A
        raise InputError(f"{where}: image={image!r} holds what no name should; rename the picture")
    name = name if exists(root / name) else name.strip()
    below = os.path.relpath(name, root.absolute()) if os.path.isabs(name) else ""
    return name if not below or below.split(os.sep)[0] == ".." else below  # so that a picture has one name
