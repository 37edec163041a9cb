"""Read the table of a workbook (.xlsx): its first sheet that holds cells, whose first row names the columns."""

from __future__ import annotations

import logging
import re
import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from aes_r1.data.spreadsheet import Percent, column_names, require_file
from aes_r1.settings import InputError

log = logging.getLogger("aes_r1")

# What openpyxl and the libraries below it raise on bytes that they do not expect.
_WORKBOOK_ERRORS = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError),
    *(AttributeError, LookupError, TypeError, ValueError),
)


def sheet(path: Path, wanted: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the rows of the first sheet that is no chart; its first row names the columns.

    A formula counts with the result that the workbook holds, and a hidden row like any other; the number of hidden rows
    is logged. With `wanted` columns, InputError names a cell of a named column that holds a formula without its result,
    as programs write it that do not calculate, or that is merged with others, of which only the first has a value.
    Without them the file is a published one and is read leniently.
    """
    try:
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise InputError(f"{path}: a workbook needs openpyxl; pip install -e '.[spaq]', or save it as CSV") from error
    require_file(path)
    try:
        reader = _reader(path)
        tables = reader.wb.worksheets
        labelled = [worksheet.title for worksheet in tables if wanted and _has_labels(worksheet)]
        rows = [[_value(cell) for cell in row] for row in tables[0].iter_rows()] if tables else []
        marks = _marks(reader) if tables and wanted else _Marks()
    except (*_WORKBOOK_ERRORS, InvalidFileException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not an .xlsx workbook, or damaged ({reason}); save it as one, or as CSV") from error
    if not tables:
        raise InputError(
            f"{path}: holds charts alone, no sheet with cells; put the labels into one, or save them as CSV"
        )
    title = tables[0].title
    if labelled and labelled != [title]:
        hidden = {one.title for one in tables if one.sheet_state != "visible"}
        shown = " and ".join(f"{one} (hidden)" if one in hidden else one for one in labelled)
        raise InputError(
            f"{path}: labels stand in sheet {shown}, but only the first sheet, {title}, is "
            "read; put them all into the first"
        )
    width = max(map(len, rows), default=0)
    names = column_names([str(name or "").strip() for row in rows[:1] for name in _filled(row, width)], path, wanted)
    for cell, row_number, place in marks.open_formulas:
        if row_number == 1 or (place < len(names) and names[place]):
            raise InputError(
                f"{path}: cell {cell} of sheet {title} holds a formula without its result; open the workbook in a "
                "spreadsheet program and save it, or write the values"
            )
    for cells, last_row, places in marks.merged:
        if last_row > 1 and any(names[place] for place in places if place < len(names)):
            raise InputError(
                f"{path}: the cells {cells} of sheet {title} are merged, and only the first of them has the value; "
                "unmerge them and fill in each"
            )
    filled = [number for number, row in enumerate(rows, 1) if number > 1 and any(cell is not None for cell in row)]
    _note_hidden(path, tables[0], len(marks.hidden_rows & set(filled)), len(filled))
    for number in filled:
        yield f"line {number}", dict(zip(names, map(_text_of_date, _filled(rows[number - 1], width)), strict=True))


_noted: set[str] = set()  # what was logged before: a workbook is read once for every split


def _note_hidden(path: Path, table: Any, hidden: int, count: int) -> None:
    """Log, once, how many of the rows of a table are hidden, and whether the table is."""
    what = [f"{hidden} of {count} rows are hidden (by a filter or by hand)"] if hidden else []
    what += [f"the sheet {table.title} is hidden"] if table.sheet_state != "visible" else []
    note = f"{path}: {' and '.join(what)}, but read like the others; delete what is not meant"
    if what and note not in _noted and log.isEnabledFor(logging.WARNING):
        _noted.add(note)
        log.warning("%s", note)


def _value(cell: Any) -> Any:
    """Return the value of a cell of a workbook; a number that is shown as percent is a Percent."""
    value = cell.value
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    try:
        form = cell.number_format or ""
    except LookupError:  # a style that the workbook does not define
        return value
    return Percent(value) if "%" in re.sub(r'"[^"]*"|\\.', "", form) else value


def _reader(path: Path) -> Any:
    """Read a workbook, and return the openpyxl ExcelReader that has read it."""
    from openpyxl.reader.excel import ExcelReader

    class Reader(ExcelReader):
        def read_chartsheet(self, sheet: Any, rel: Any) -> None:
            with suppress(*_WORKBOOK_ERRORS):  # openpyxl fails on one without a drawing, and no chart holds labels
                super().read_chartsheet(sheet, rel)

    reader = Reader(path, read_only=True, data_only=True)
    reader.read()
    for table in reader.wb.worksheets:
        table.reset_dimensions()  # a file states its own size, and cells outside it would be passed over
    return reader


def _filled(row: Sequence[Any], width: int) -> list[Any]:
    """Return a row as `width` cells, of which the file may leave out the last ones."""
    return [*row, *[None] * (width - len(row))]


def _has_labels(worksheet: Any) -> bool:
    """Return whether the first row of a sheet of a workbook has the columns image and mos."""
    header = next(worksheet.iter_rows(max_row=1, values_only=True), ())
    return {"image", "mos"} <= {str(name or "").strip().casefold() for name in header}


@dataclass(frozen=True)
class _Marks:
    """Hold what openpyxl does not say of the first table.

    open_formulas: (cell, row from 1, column from 0) of formulas without a result. merged: (cells, their last row, their
    columns) of merged cells. hidden_rows: numbers from 1.
    """

    open_formulas: list[tuple[str, int, int]] = field(default_factory=list)
    merged: list[tuple[str, int, range]] = field(default_factory=list)
    hidden_rows: set[int] = field(default_factory=set)


def _marks(reader: Any) -> _Marks:
    """Read the marks of the first table.

    openpyxl gives None for a formula without a result, as for an empty text, which is a result: its cell says that it
    is a text. Some programs write 0 for every result and have the workbook calculated when it is opened.
    """
    from openpyxl.utils.cell import coordinate_to_tuple, get_column_letter, range_boundaries
    from openpyxl.xml.constants import SHEET_MAIN_NS
    from openpyxl.xml.functions import iterparse

    nothing = ("", "0") if reader.wb.calculation.fullCalcOnLoad else ("",)
    targets = (rel.target for _, rel in reader.parser.find_sheets() if "chartsheet" not in rel.Type)
    target = next(target for target in targets if target in reader.valid_files)
    tag = f"{{{SHEET_MAIN_NS}}}"
    marks, row = _Marks(), 0
    with reader.archive.open(target) as source:
        for _, element in iterparse(source):
            if element.tag == f"{tag}mergeCell":
                first_column, _, last_column, last_row = range_boundaries(element.get("ref"))
                marks.merged.append((element.get("ref"), last_row or 0, range(first_column - 1, last_column or 0)))
            if element.tag != f"{tag}row":
                continue
            row, column = int(float(element.get("r", row + 1))), 0
            if element.get("hidden") in ("1", "true") or float(element.get("ht", 1)) == 0:
                marks.hidden_rows.add(row)
            for cell in element.iterfind(f"{tag}c"):
                column = coordinate_to_tuple(cell.get("r"))[1] if cell.get("r") else column + 1
                is_without = (cell.findtext(f"{tag}v") or "").strip() in nothing and cell.get("t", "n") == "n"
                if is_without and cell.find(f"{tag}f") is not None:
                    marks.open_formulas.append((f"{get_column_letter(column)}{row}", row, column - 1))
            element.clear()
    return marks


def _text_of_date(cell: Any) -> Any:
    """Return a date or time of a workbook as ISO text, and any other cell unchanged."""
    return str(cell) if isinstance(cell, date | time | timedelta) else cell
