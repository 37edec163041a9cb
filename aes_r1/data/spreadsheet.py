"""Read tables as people save them: CSV of every separator and encoding, JSON lines and arrays, workbooks.

Every reader yields (place, row): the row's place, such as "line 7", and its cells by column. Whatever is ambiguous
raises an InputError that names the line, its content and the way out.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

from aes_r1.settings import InputError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# Encodings that are tried on text that is no Unicode; the first in which the named pictures exist is used.
_LEGACY = ("cp1252", "gb18030", "cp932", "cp949", "big5", "cp1250", "cp1251", "mac_roman")
# What is sometimes saved under the name of a label file, by its first bytes, and the way out.
_NO_TEXT = (
    (b"PK\x03\x04", "a workbook or an archive; name a workbook labels.xlsx, unpack an archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls); save it as CSV UTF-8"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"PAR1", "a Parquet file; save it as CSV or JSON lines"),
    (b"version https://git-lfs", "a Git LFS pointer, not the labels; run git lfs pull"),
    (b"<", "a web page or other markup, as a failed download leaves; get the labels again"),
)
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*', re.IGNORECASE)


def read_text(path: Path, fits: Callable[[str], bool] | None = None) -> str:
    """Read a label file in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Any other file is read in the first older encoding whose text `fits` accepts. Without `fits`, or where it accepts
    none, an InputError names the line.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such label file; check data.root") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read as text ({error.strerror})") from error
    for opening, said in _NO_TEXT:
        if content.startswith(opening):
            raise InputError(f"{path}: {said}")
    text = _decoded(path, content, fits)
    if not text.strip():
        raise InputError(f"{path}: the label file is empty")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line}: a NUL in the text; save it as UTF-8")
    return text


def _decoded(path: Path, content: bytes, fits: Callable[[str], bool] | None) -> str:
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    head = content[:1000]
    if encoding == "utf-8" and 4 * head.count(0) > len(head):  # every second byte of Latin text in UTF-16 is zero
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(f"{path}: cut, or not {encoding} ({error.reason}); save it as UTF-8") from error
        line = content.count(b"\n", 0, error.start) + 1
        seen = content[max(0, error.start - 10) : error.start + 10]
    for legacy in _LEGACY if fits else ():
        try:
            text = content.decode(legacy)
        except UnicodeDecodeError:
            continue
        if fits and fits(text):
            return text
    raise InputError(f"{path}, line {line}: {seen!r} is not UTF-8; save the file as UTF-8 (in Excel: CSV UTF-8)")


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (place, stripped text) of every line that is not empty."""
    for number, line in enumerate(read_text(path).split("\n"), 1):  # not splitlines: a name may hold U+2028
        if line.strip():
            yield f"line {number}", line.strip()


def table(
    path: Path, wanted: Collection[str] = (), fits: Callable[[str], bool] | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of a CSV whose first line names the columns.

    Without `wanted` the file is a published one and is read leniently.

    A first line such as `sep=;` sets the separator; otherwise the header shows it. `wanted` columns are found in upper
    and lower case, and then no column may occur twice.
    """
    yield from table_in(read_text(path, fits), path, wanted)


def table_in(text: str, path: Path, wanted: Collection[str] = ()) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the same from a text that `path` holds."""
    before = 0
    if wanted and text.lstrip().startswith(('{"', "[")):
        raise InputError(f"{path}: JSON, not a table; name it {path.stem}.jsonl")
    head, _, rest = text.partition("\n")
    said = _SEP_LINE.fullmatch(head.strip("\r"))
    if said:
        text, before = rest, 1
    separator = said[1] if said else _separator(text, wanted)
    own = bool(wanted)  # published files are read leniently, because the user cannot mend them
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=own, strict=own)
    names: list[str] | None = None
    end = 0
    while True:
        place = f"line {before + end + 1}"
        try:
            cells = next(rows, None)
        except csv.Error as error:
            cure = "a quote that opens there is not closed, or stands inside a cell; double the quotes of a cell"
            if "field limit" in str(error):
                cure = "or the cell is this long: take its column out"
            raise InputError(f"{path}, {place}: cannot be read as CSV ({error}); {cure}") from error
        if cells is None:
            break
        end = rows.line_num
        if not any(cell.strip() for cell in cells):
            continue
        if names is None:
            names = _columns([cell.strip() for cell in cells], path, wanted)
            continue
        while len(cells) > len(names) and not cells[-1].strip():
            cells.pop()
        if len(cells) > len(names) and own:
            raise InputError(
                f"{path}, {place}: {len(cells)} cells under {len(names)} columns ({separator.join(cells)[:80]!r}); put "
                f"cells that hold {SEPARATORS.get(separator, 'the separator')} in quotes, or save it with another one"
            )
        cells += [""] * (len(names) - len(cells))
        yield place, dict(zip(names, cells, strict=False))
    if names is None:
        raise InputError(f"{path}: the label file is empty")


def _separator(text: str, wanted: Collection[str]) -> str:
    """Return the separator that gives the wanted columns, else the one that gives the most columns."""
    head = next(line for line in re.split(r"\r\n|\r|\n", text) if line.strip())

    def found(separator: str) -> tuple[int, int]:
        cells = [cell.strip(' "').casefold() for cell in head.split(separator)]
        return sum(name in cells for name in wanted), len(cells)

    return max(SEPARATORS, key=found)


def _columns(names: list[str], path: Path, wanted: Collection[str]) -> list[str]:
    """Return the header's names, those of `wanted` in their own case.

    Raises InputError where your own labels name a column twice.
    """
    if not wanted:
        return names
    names = [_own_case(name, wanted) for name in names]
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        places = [str(number) for number, name in enumerate(names, 1) if name == twice[0]]
        raise InputError(f"{path}: {twice[0]} stands twice, in columns {' and '.join(places)}; take one out")
    return names


def _own_case(name: str, wanted: Collection[str]) -> str:
    """Return a column's name as it is wanted, whatever its case; any other name as it is."""
    return name.casefold() if name.casefold() in wanted else name


def json_rows(path: Path, wanted: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the objects of a file of JSON lines, or of one JSON array; `wanted` keys are found in any case."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        found = parse_json(text, f"{path}")
        rows = ((f"entry {place}", row) for place, row in enumerate(found, 1))
    else:
        stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
        rows = ((f"line {number}", parse_json(line, f"{path}, line {number}")) for number, line in stripped if line)
    for place, row in rows:
        if not isinstance(row, dict):
            raise InputError(f'{path}, {place}: {json.dumps(row)[:40]} is no object like {{"image": .., "mos": ..}}')
        named = [(_own_case(key, wanted), value) for key, value in row.items()]
        try:
            yield place, _once(named)
        except _Twice as error:
            raise InputError(f"{path}, {place}: {error} stands twice, in different case; take one out") from error


def parse_json(text: str, where: str) -> Any:
    """Parse `text`; InputError, beginning with `where`, when it is no JSON, or an object has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except _Twice as error:
        raise InputError(f"{where}: the key {error} stands twice in one object; take one out") from error
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text else ""
        seen = text[max(0, error.pos - 10) : error.pos + 20].replace("\n", " ")
        raise InputError(
            f"{where}{line}: not a JSON object ({error.msg} at {seen!r}); one object per line, or one array of them"
        ) from error
    except RecursionError as error:
        raise InputError(f"{where}: lists nested too deep to be meant; take the row out") from error
    except ValueError as error:  # Python limits the digits of an integer
        raise InputError(f"{where}: a number of too many digits; take the row out") from error


class _Twice(Exception):
    """Raised for a key that occurs twice in one object, where one value would be lost."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return found


def sheet(path: Path, wanted: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read the rows of the first sheet of a workbook, whose first row names the columns."""
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as error:
        raise InputError(f"{path}: a workbook needs openpyxl; pip install -e '.[spaq]', or save it as CSV") from error
    try:
        rows = load_workbook(path, read_only=True, data_only=True).worksheets[0].iter_rows(values_only=True)
    except (OSError, zipfile.BadZipFile, InvalidFileException, KeyError) as error:
        raise InputError(f"{path}: not an .xlsx workbook ({error}); save it as one, or as CSV") from error
    names = _columns([str(name or "").strip() for name in next(rows, ())], path, wanted)
    for number, row in enumerate(rows, 2):
        if any(cell is not None for cell in row):
            yield f"line {number}", dict(zip(names, map(_plain_cell, row), strict=False))


def _plain_cell(cell: Any) -> Any:
    """Return a date or time of a workbook as ISO text; any other cell as it is."""
    return str(cell) if isinstance(cell, date | time | timedelta) else cell
