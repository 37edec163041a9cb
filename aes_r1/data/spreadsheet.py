"""Read tables as people save them: CSV of every separator and encoding, JSON lines and arrays (workbooks: workbook.py).

Every reader yields (location, row): "line 7" or "entry 3", for messages, and the row's cells by column. Whatever is
ambiguous raises an InputError that names the line, its content and the way out.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from aes_r1.data.names import exists, name_on_disk
from aes_r1.data.sample import SUFFIXES
from aes_r1.runs.files import sha256_of
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
# Files that are sometimes saved under a label file's name: their first bytes, what they are, and the remedy.
_NO_TEXT = (
    (b"PK\x03\x04", "a workbook or an archive; name a workbook labels.xlsx, unpack an archive"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls); save it as CSV UTF-8"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"PAR1", "a Parquet file; save it as CSV or JSON lines"),
    (b"version https://git-lfs", "a Git LFS pointer, not the labels; run git lfs pull"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it"),
    *((opening, "an Arrow file; save it as CSV or JSON lines") for opening in (b"ARROW1", b"FEA1")),
    (b"\x93NUMPY", "a NumPy array; save it as CSV or JSON lines"),
    *((b"\x80" + bytes([protocol]), "a Python pickle; save it as CSV or JSON lines") for protocol in range(2, 6)),
    (b"\x89HDF", "an HDF5 file; save it as CSV or JSON lines"),
    (b"SQLite format", "an SQLite database; save its table as CSV"),
    (b"%PDF", "a PDF document; save the table as CSV"),
    (b"{\\rtf", "a rich text document; save it as plain text"),
    (b"<", "a web page or other markup, as a failed download leaves; get the labels again"),
)
# A number as text: with a decimal point, or with a decimal comma.
DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
COMMA_DECIMAL = re.compile(r"[+-]?[0-9]*,[0-9]+")
# The line by which Excel is told the separator; a program that saves the file again fills it up with separators.
_SEP_LINE = re.compile(r'"?sep=(?P<separator>.)"?(?P=separator)*\s*', re.IGNORECASE)


class Percent(float):
    """A number that its workbook shows as percent: 0.5 is shown as 50%."""


def read_text(path: Path, fits: Callable[[str], bool] | None = None) -> str:
    """Read a label file in UTF-8, UTF-16 or UTF-32, with or without a byte-order mark.

    Any other file is read in the first older encoding whose text `fits` accepts. Without `fits`, or where it accepts
    none, an InputError names the line.
    """
    require_file(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such label file; check data.root") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); put a file there that you may read") from error
    for opening, description in _NO_TEXT:
        if content.startswith(opening):
            raise InputError(f"{path}: {description}")
    text = _decoded(path, content, fits).lstrip("\ufeff")  # a program may have written a second mark
    if not text.strip():
        raise InputError(f"{path}: the label file is empty")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}, line {line}: a NUL in the text; save it as UTF-8")
    return text


_noted_files: ContextVar[dict[Path, str | None] | None] = ContextVar("_noted_files", default=None)


@contextmanager
def noting_files() -> Iterator[dict[Path, str | None]]:
    """Yield {path: digest before it was read} of label files, manifests and lists of splits read inside of the block.

    The digest is None where there is no such file.
    """
    files: dict[Path, str | None] = {}
    token = _noted_files.set(files)
    try:
        yield files
    finally:
        _noted_files.reset(token)


def require_file(path: Path) -> None:
    """Raise InputError where `path` is a pipe or device, which may block and cannot be read a second time.

    Every reader of labels calls this before it reads, so that `noting_files` learns which files were read.
    """
    if exists(path) and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: a pipe or device, not a file; save its content to a file and name that")
    if (files := _noted_files.get()) is not None and (place := path.absolute()) not in files:
        files[place] = sha256_of(place) if place.is_file() else None


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
        excerpt = content[max(0, error.start - 10) : error.start + 10]
    for legacy in _LEGACY if fits else ():
        try:
            text = content.decode(legacy)
        except UnicodeDecodeError:
            continue
        if fits and fits(text):
            return text
    raise InputError(f"{path}, line {line}: {excerpt!r} is not UTF-8; save the file as UTF-8 (in Excel: CSV UTF-8)")


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (location, stripped text) of every line that is not empty."""
    for number, line in enumerate(read_text(path).split("\n"), 1):  # not splitlines: a name may hold U+2028
        if line.strip():
            yield f"line {number}", line.strip()


def table(
    path: Path,
    wanted: Collection[str] = (),
    fits: Callable[[str], bool] | None = None,
    *,
    separator: str | None = None,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of a CSV file whose first line names the columns.

    A line `sep=;` before it sets the `separator`, which the header shows otherwise. `wanted` columns are found in upper
    and lower case, and no column may occur twice. Without `wanted` the file is a published one and is read leniently.
    A cell may hold line breaks in your own file, unless its lines look like further rows.
    """
    yield from table_in(read_text(path, fits), path, wanted, separator=separator)


def table_in(
    text: str, path: Path, wanted: Collection[str] = (), *, separator: str | None = None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read the rows of a CSV text as `table` does; `path` is its file."""
    skipped = 0  # lines before `rows`
    if wanted and text.lstrip().startswith(('{"', "[")):
        raise InputError(f"{path}: JSON, not a table; name it {path.stem}.jsonl")
    head, *rest = re.split(r"\r\n|\r|\n", text, maxsplit=1)
    named_separator = _SEP_LINE.fullmatch(head)
    if named_separator:
        text, skipped = "".join(rest), 1
    separator = named_separator["separator"] if named_separator else separator or _separator(text, wanted)
    strict = bool(wanted)  # published files are read leniently, because the user cannot mend them
    source = list(io.StringIO(text, newline=""))
    rows = csv.reader(source, delimiter=separator, skipinitialspace=strict, strict=strict)
    names: list[str] | None = None
    last_line = 0
    while True:
        location = f"line {skipped + last_line + 1}"
        try:
            cells = next(rows, None)
        except csv.Error as error:
            remedy = "a quote that opens there is not closed, or stands inside a cell; double the quotes of a cell"
            if "field limit" in str(error):
                remedy = f"{remedy}; or the cell is this long: take its column out"
            raise InputError(f"{path}, {location}: cannot be read as CSV ({error}); {remedy}") from error
        if cells is None:
            break
        record, last_line = source[last_line : rows.line_num], rows.line_num
        if not any(cell.strip() for cell in cells):
            continue
        # No published file has line breaks in its cells.
        if len(record) > 1 and (not strict or _holds_rows(record, cells, names, separator, path.parent)):
            raise InputError(
                f"{path}, {location}: a cell holds the rows below it, because a quote that opens there is not closed; "
                "close it or take it out; if it is a comment about other pictures, write it on one line"
            )
        if names is None:
            names = column_names([cell.strip() for cell in cells], path, wanted)
            continue
        cells = _fitted(cells, names, separator, f"{path}, {location}", strict=strict)
        yield location, dict(zip(names, cells, strict=False))
    if names is None:
        raise InputError(f"{path}: the label file is empty")


def _fitted(cells: list[str], names: list[str], separator: str, where: str, *, strict: bool) -> list[str]:
    """Return as many cells as there are columns; InputError, beginning with `where`, for a `strict` row of more."""
    written, cells = len(cells), list(cells)
    while len(cells) > len(names) and not cells[-1].strip():
        cells.pop()
    told = f"{where}: {written} cells under {len(names)} columns ({separator.join(cells)[:80]!r})"
    # A decimal comma without quotes moves every later cell of a row by one place, and the last one may be empty.
    if strict and separator == "," and written - 1 == len(cells) == len(names) and _is_cut_number(cells, names):
        raise InputError(
            f"{told}; put a number with a decimal comma in quotes, or take the comma at the end of the row out"
        )
    # If image or mos is missing, the header is at fault, and the caller reports that instead.
    if strict and len(cells) == len(names) + 1 and names[0] == "image" and _names_row(cells):
        raise InputError(f"{told}; name the first column, too, or take it out (row.names=FALSE in write.table of R)")
    if strict and len(cells) > len(names) and {"image", "mos"} <= set(names):
        raise InputError(
            f"{told}; put cells that hold {SEPARATORS.get(separator, 'the separator')} in quotes, or save it with "
            "another one"
        )
    return cells + [""] * (len(names) - len(cells))


def _names_row(cells: list[str]) -> bool:
    """Return whether a row begins with the name or the number of the row, and the picture comes after it."""
    first, second = (Path(cell.strip()).suffix.casefold() in SUFFIXES for cell in cells[:2])
    return second and not first


def _is_cut_number(cells: list[str], names: list[str]) -> bool:
    """Return whether the cell under mos and the next one may be one number with a decimal comma."""
    place = names.index("mos") if "mos" in names else len(cells)
    return place + 1 < len(cells) and COMMA_DECIMAL.fullmatch(",".join(cells[place : place + 2])) is not None


def _holds_rows(record: list[str], cells: list[str], names: list[str] | None, separator: str, root: Path) -> bool:
    """Return whether a quote that is not closed has made rows of the file a part of another row, or of the header.

    record: the lines that were read as one row; cells: what was read from them; names: the columns, None where the row
    is the header itself. A comment may have lines, but only one line of a row names a picture and its opinion: the last
    one where the comment stands before the picture's name, and otherwise the first.
    """
    columns = names or [cell.strip().casefold() for cell in cells]
    if not {"image", "mos"} <= set(columns):
        return False  # refused later, because the column is missing
    image = columns.index("image")
    suffix = Path(cells[image].strip()).suffix.casefold() if names and image < len(cells) else ""
    named = [_is_row(line, columns, separator, suffix, root) for line in record]
    if names is not None and not any(set(cell) & {"\n", "\r"} for cell in cells[: image + 1]):
        named[0] = True
    return sum(named) > (names is not None)


def _is_row(line: str, columns: list[str], separator: str, suffix: str, root: Path) -> bool:
    """Return whether `line` looks like a row: it has a picture's name under image, and a number or nothing under mos.

    A picture's name ends in `suffix` or in that of a picture format, or is a file below `root`. Cells may hold the
    separator, so that a value may stand as many places further right as there are cells above the number of columns. A
    row may leave out its last cells, but then needs its number.
    """
    cells = [cell.strip().strip('"').strip() for cell in line.lstrip("\ufeff").split(separator)]
    further = len(cells) - len(columns)
    images, opinions = (
        cells[columns.index(name) : columns.index(name) + max(0, further) + 1] for name in ("image", "mos")
    )
    rated = any(DECIMAL.fullmatch(cell) or COMMA_DECIMAL.fullmatch(cell) for cell in opinions)
    if not rated and (further < 0 or all(opinions)):
        return False
    return any(_is_picture_name(cell, suffix, root) for cell in images)


def _is_picture_name(cell: str, suffix: str, root: Path) -> bool:
    """Return whether `cell` names a picture: by its `suffix` or that of a picture format, or as a file below `root`."""
    if not cell:
        return False
    ending = Path(cell).suffix.casefold()
    if ending in SUFFIXES or (ending and ending == suffix):
        return True
    file = root / name_on_disk(root, cell)
    return exists(file) and not file.is_dir()


def _separator(text: str, wanted: Collection[str]) -> str:
    """Return the separator that gives the wanted columns, else the one that gives the most columns."""
    head = next(line for line in re.split(r"\r\n|\r|\n", text) if line.strip())

    def header_fit(separator: str) -> tuple[int, int]:
        cells = [cell.strip(' "').casefold() for cell in head.split(separator)]
        return sum(name in cells for name in wanted), len(cells)

    return max(SEPARATORS, key=header_fit)


def column_names(names: list[str], path: Path, wanted: Collection[str]) -> list[str]:
    """Return the names of a header, with the `wanted` ones in lower case.

    Raises InputError where a file with `wanted` columns names one twice.
    """
    if not wanted:
        return names
    names = [_wanted_case(name, wanted) for name in names]
    repeated = [name for name, count in Counter(names).items() if count > 1 and name]
    if repeated:
        numbers = [str(number) for number, name in enumerate(names, 1) if name == repeated[0]]
        raise InputError(f"{path}: {repeated[0]} stands twice, in columns {' and '.join(numbers)}; take one out")
    return names


def _wanted_case(name: str, wanted: Collection[str]) -> str:
    """Return `name` in lower case where a wanted column is spelled so, otherwise unchanged."""
    return name.casefold() if name.casefold() in wanted else name


def json_rows(path: Path, wanted: Collection[str] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file of JSON lines, or of one JSON array; `wanted` keys are found in any case."""
    text = read_text(path)
    if text.lstrip().startswith("["):
        values = parse_json(text, f"{path}")
        rows = ((f"entry {number}", row) for number, row in enumerate(values, 1))
    else:
        stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
        rows = ((f"line {number}", parse_json(line, f"{path}, line {number}")) for number, line in stripped if line)
    for location, row in rows:
        if not isinstance(row, dict):
            raise InputError(f'{path}, {location}: {json.dumps(row)[:40]} is no object like {{"image": .., "mos": ..}}')
        renamed = [(_wanted_case(key, wanted), value) for key, value in row.items()]
        try:
            yield location, _unique_keys(renamed)
        except _RepeatedKey as error:
            raise InputError(f"{path}, {location}: {error} stands twice, in different case; take one out") from error


def parse_json(text: str, where: str, form: str = "one object per line, or one array of them") -> Any:
    """Parse `text`; InputError, beginning with `where`, when it is no JSON, or an object has a key twice.

    form: how the file that holds it should be written, for the message.
    """
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except _RepeatedKey as error:
        raise InputError(f"{where}: the key {error} stands twice in one object; take one out") from error
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text else ""
        excerpt = text[max(0, error.pos - 10) : error.pos + 20].replace("\n", " ")
        raise InputError(f"{where}{line}: not a JSON object ({error.msg} at {excerpt!r}); {form}") from error
    except RecursionError as error:
        raise InputError(f"{where}: lists nested too deep to be meant; take the row out") from error
    except ValueError as error:  # Python limits the digits of an integer
        raise InputError(f"{where}: a number of too many digits; take the row out") from error


class _RepeatedKey(Exception):
    """Raised for a key that occurs twice in one object, where one value would be lost."""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise _RepeatedKey(next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1))
    return unique
