"""Read the table of a workbook (.xlsx): its first sheet that holds cells, whose first row names the columns."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from aes_r1.data.spreadsheet import column_names, require_file
from aes_r1.settings import InputError

# What openpyxl and the libraries below it raise on bytes that they do not expect.
_WORKBOOK_ERRORS = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError),
    *(AttributeError, LookupError, TypeError, ValueError),
)


def sheet(path: Path, wanted: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the rows of the first sheet that is no chart; its first row names the columns.

    A formula counts with the result that the workbook holds. With `wanted` columns, InputError names a cell of a named
    column that holds a formula without its result, as programs write it that do not calculate. Without them the file is
    a published one and is read leniently.
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
        rows = list(tables[0].iter_rows(values_only=True)) if tables else []
        open_formulas = list(_formulas_without_result(reader)) if tables and wanted else []
    except (*_WORKBOOK_ERRORS, InvalidFileException) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not an .xlsx workbook, or damaged ({reason}); save it as one, or as CSV") from error
    if not tables:
        raise InputError(
            f"{path}: holds charts alone, no sheet with cells; put the labels into one, or save them as CSV"
        )
    title = tables[0].title
    if labelled and labelled != [title]:
        raise InputError(
            f"{path}: labels stand in sheet {' and '.join(labelled)}, but only the first sheet, {title}, is "
            "read; put them all into the first"
        )
    width = max(map(len, rows), default=0)
    names = column_names([str(name or "").strip() for row in rows[:1] for name in _filled(row, width)], path, wanted)
    for cell, row_number, place in open_formulas:
        if row_number == 1 or (place < len(names) and names[place]):
            raise InputError(
                f"{path}: cell {cell} of sheet {title} holds a formula without its result; open the workbook in a "
                "spreadsheet program and save it, or write the values"
            )
    for number, row in enumerate(rows[1:], 2):
        if any(cell is not None for cell in row):
            yield f"line {number}", dict(zip(names, map(_text_of_date, _filled(row, width)), strict=True))


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


def _formulas_without_result(reader: Any) -> Iterator[tuple[str, int, int]]:
    """Yield (name, row from 1, column from 0) of cells of the first table that hold a formula, but no result of it.

    openpyxl gives None for them, as for an empty text, which is a result: its cell says that it is a text. Some
    programs write 0 for every result and have the workbook calculated when it is opened.
    """
    from openpyxl.utils.cell import coordinate_to_tuple, get_column_letter
    from openpyxl.xml.constants import SHEET_MAIN_NS
    from openpyxl.xml.functions import iterparse

    nothing = ("", "0") if reader.wb.calculation.fullCalcOnLoad else ("",)
    targets = (rel.target for _, rel in reader.parser.find_sheets() if "chartsheet" not in rel.Type)
    target = next(target for target in targets if target in reader.valid_files)
    tag = f"{{{SHEET_MAIN_NS}}}"
    row = 0
    with reader.archive.open(target) as source:
        for _, element in iterparse(source):
            if element.tag != f"{tag}row":
                continue
            row, column = int(float(element.get("r", row + 1))), 0
            for cell in element.iterfind(f"{tag}c"):
                column = coordinate_to_tuple(cell.get("r"))[1] if cell.get("r") else column + 1
                is_without = (cell.findtext(f"{tag}v") or "").strip() in nothing and cell.get("t", "n") == "n"
                if is_without and cell.find(f"{tag}f") is not None:
                    yield f"{get_column_letter(column)}{row}", row, column - 1
            element.clear()


def _text_of_date(cell: Any) -> Any:
    """Return a date or time of a workbook as ISO text, and any other cell unchanged."""
    return str(cell) if isinstance(cell, date | time | timedelta) else cell
