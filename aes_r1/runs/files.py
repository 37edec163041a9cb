"""Read and write JSON and JSON-lines files atomically, put files and folders into their place, compute checksums.

A file or folder is written under another name beside its place, as a draft, and then renamed, so that a reader finds
the old one or the new one and never a part. Each writer of a file names its draft differently, so that of two at once
the later one's file stays. Rows are appended in place; a last line that a kill cut short is not read.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from aes_r1.settings import InputError


class MissingKey(InputError):
    """A file that is read back lacks a key that this program writes. Not a KeyError, because Jinja ignores those."""


class Stored(dict[str, Any]):
    """An object of a JSON file of a run, which names the file and the line when it is asked for a key that it lacks.

    `stored` makes one. A copy by {**row}, and an object within a row, are plain dictionaries.
    """

    __slots__ = ("number", "path")

    path: Path
    number: int | None

    def __missing__(self, key: str) -> Any:
        """Raise MissingKey; `[..]` calls this for a missing key, and `get` does not."""
        raise MissingKey(foreign(f"no key {json.dumps(key)}", self.path, self.number))


def stored(values: Mapping[str, Any], path: Path, number: int | None = None) -> Stored:
    """Return `values` as the object of `path`, or of its line `number`; an __init__ would take twice the time."""
    result = Stored(values)
    result.path = path
    result.number = number
    return result


def foreign(fault: str, path: Path, number: int | None = None) -> str:
    """Return the message on a `fault` of `path`, or of its line `number`, that this program's own files do not have."""
    where = f"{path}{'' if number is None else f', line {number}'}"
    return f"{where}: {fault}, so it is damaged or another program's; put a whole copy back, or move it elsewhere"


_SURROGATE = re.compile("[\ud800-\udfff]")


def make_folder(path: Path, named: Path | None = None) -> None:
    """Make the folder `path` and its parents, and make sure that files can be created in it.

    Commands call this before slow work, so that they fail at once. Errors name `named`, the path as the user gave it
    (None: `path`): InputError where nothing can be created, as in /proc, for which the kernel reports a missing file;
    OSError otherwise.
    """
    try:
        for is_last in (False, False, True):
            try:
                path.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=path):
                    return
            # Or `aes-r1 runs --clean` deleted the folder: after it was made, or while mkdir tested whether it is one.
            except FileNotFoundError as error:
                if is_last:
                    raise InputError(f"{named or path}: nothing can be made there; give another place") from error
            except FileExistsError:
                if is_last:
                    raise
    except OSError as error:
        error.filename = str(named or path)
        raise


def write_text_atomically(path: Path, text: str) -> Path:
    """Replace the file `path` with `text` atomically, as `replacing` does; return `path`."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")
    return path


def write_json(path: Path, values: Mapping[str, Any], *, sort_keys: bool = False) -> Path:
    """Replace the JSON file `path` with `values` atomically; a number that is not finite becomes null."""
    return write_text_atomically(path, _as_json(values, indent=2, sort_keys=sort_keys) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Replace the JSON-lines file `path` with `rows` atomically; return how many there are.

    `rows` may be a generator that reads the old file. A number that is not finite becomes null.
    """
    count = 0
    with replacing(path) as draft, draft.open("wb") as file:
        for row in rows:
            file.write(row_line(row))
            count += 1
    return count


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield an empty draft, which replaces `path` at the end of the block; an error in the block deletes it.

    Drafts that killed writers of `path` left are deleted first. InputError where `path` is a device or a pipe, because
    the file would replace it for every program, and where its folder takes no files.
    """
    _require_replaceable(path)
    delete_left_drafts(path)
    draft, file = _locked_draft(path)
    with file:  # the draft stays locked until it is in its place, so that others know that its writer lives
        try:
            yield draft
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)  # it is there only where an error ended the block


def _require_replaceable(path: Path) -> None:
    # /dev/stdout is a link that may lead to a file, so its folder is tested; files in /dev/shm may be replaced.
    if os.path.realpath(path.parent) == "/dev" or (path.exists() and not (path.is_file() or path.is_dir())):
        raise InputError(f"{path}: a device or pipe, which a file would replace; give the name of a file")


def delete_left_drafts(path: Path) -> None:
    """Delete the drafts of `path` whose writers were killed, which are those that no process holds locked."""
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    for draft in [path.with_name(name) for name in names if is_draft_of(path, name)]:
        with contextlib.suppress(OSError), draft.open("r+b") as file:  # another user's file, or renamed meanwhile
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.unlink()


def is_draft_of(path: Path, name: str) -> bool:
    """Return whether `name` is that of a draft of the file `path`, which a killed writer leaves."""
    return re.fullmatch(rf"\.{re.escape(path.name)}(\.[0-9a-f]{{8}})?\.partial", name) is not None


def own_draft_of(path: Path) -> Path:
    """Return a random path beside `path` for the draft of one writer."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _locked_draft(path: Path) -> tuple[Path, BinaryIO]:
    while True:
        draft = own_draft_of(path)
        try:
            file = draft.open("xb")
        except FileNotFoundError as error:
            if not path.parent.is_dir():  # the caller did not make it, or it was deleted meanwhile
                raise
            raise InputError(f"{path}: nothing can be made there; give another place") from error
        with contextlib.suppress(OSError):  # on a file system without locks no draft is deleted as a left one
            fcntl.flock(file, fcntl.LOCK_EX)
        if draft.exists():
            return draft, file
        file.close()  # another writer deleted it before it was locked, as one that a killed writer had left


def write_addressed(path: Path, content: bytes) -> None:
    """Write the file `path`, whose name is a hash of its content, so that of two writers either one's may stay."""
    draft = own_draft_of(path)
    draft.write_bytes(content)
    draft.replace(path)


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append `rows` to the JSON-lines file `path` in one write; a number that is not finite becomes null."""
    with path.open("ab") as file:
        file.write(b"".join(map(row_line, rows)))


def row_line(row: Mapping[str, Any]) -> bytes:
    """Return the line of `row` in a JSON-lines file; a number that is not finite becomes null."""
    return _as_json(row).encode() + b"\n"


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file. InputError names the file when it is missing or holds no object."""
    try:
        # Objects inside this one name the file, too; those inside rows do not, because rows are many and nearly flat.
        text = path.read_text(encoding="utf-8")
        return _object(json.loads(text, object_hook=lambda values: stored(values, path)))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a folder that holds it") from error
    except ValueError as error:
        raise _broken(path, error) from error


def iter_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON-lines file; none without a file. InputError for a line that is no JSON object."""
    return (row for _, row in rows_at(path))


def rows_at(path: Path, *, start: int = 0, skip_broken: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (offset in bytes, row) of a JSON-lines file from the row at offset `start` on; none when there is no file.

    A last line that a kill cut short is left out. InputError for another line that is no JSON object, unless
    `skip_broken`; it names the line by its number in the file.
    """
    if not path.exists():
        return
    with path.open("rb") as file:  # text would fail on a last line that ends within a character
        file.seek(offset := start)
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                row = row_in(path, line, number)
            except InputError:
                if not skip_broken:
                    row_in(path, line, number + _lines_before(path, start))  # raises it again, with the file's number
            else:
                yield offset, row
            offset += len(line)


def _lines_before(path: Path, offset: int) -> int:
    with path.open("rb") as file:
        return file.read(offset).count(b"\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a JSON-lines file; none without a file. InputError for a line that is no JSON object."""
    return list(iter_rows(path))


def rows_backwards(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON-lines file from the last to the first, each parsed only when it is asked for."""
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    for number in range(len(lines), 0, -1):
        yield row_in(path, lines[number - 1], number)


def copy_folder(source: Path, target: Path) -> None:
    """Copy the folder `source` to the new folder `target`.

    The first file that cannot be copied ends it with its OSError; shutil.copytree would go on and lose the errno.
    """
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        copy = copy_folder if path.is_dir() else shutil.copy2
        copy(path, target / path.name)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def draft_of(path: Path) -> Path:
    """Return the path at which `path` is written before it is renamed, for the one writer that holds a lock."""
    return path.with_name(f".{path.name}.partial")


def put_in_place(path: Path) -> Path:
    """Rename the draft of `path` to `path`, where a file or an empty folder may stand; return `path`."""
    return draft_of(path).replace(path)


@contextlib.contextmanager
def replacing_folder(path: Path, last: str = "") -> Iterator[Path]:
    """Yield the path of a folder to make, which becomes the missing folder `path`; an error deletes it.

    An empty folder `path` stays and receives the content, because a shell may stand in it; `last` is the file without
    which no reader takes the folder for whole.
    """
    draft = draft_of(path)
    make_folder(path.parent, path)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        yield draft
        if path.exists():
            _move_content(draft, path, last)
        else:
            put_in_place(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)  # renamed, unless an error ended the block or `path` was there


def _move_content(source: Path, target: Path, last: str) -> None:
    """Move what the folder `source` holds into the empty folder `target`, which an error leaves empty."""
    if not target.is_dir() or any(target.iterdir()):
        raise InputError(f"{target}: is not empty; give a new folder")
    moved = [target / entry.name for entry in sorted(source.iterdir(), key=lambda entry: entry.name == last)]
    try:
        for path in moved:
            shutil.move(source / path.name, path)  # it copies where `target` is a disk of its own
    except BaseException:
        for path in reversed(moved):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        raise


def replace_folder(path: Path) -> None:
    """Rename the draft of the folder `path` to `path`, and delete the folder that stood there.

    A kill between the renames leaves no folder `path`; `restore_folder` then brings the old one back.
    """
    before = _before(path)
    shutil.rmtree(before, ignore_errors=True)
    if path.exists():
        path.rename(before)
    put_in_place(path)
    shutil.rmtree(before, ignore_errors=True)


def restore_folder(path: Path) -> None:
    """Bring back the folder `path` where a kill within `replace_folder` left none."""
    if _before(path).exists() and not path.exists():
        _before(path).rename(path)


def _before(path: Path) -> Path:
    return path.with_name(f".{path.name}.before")


def move_folder(path: Path, target: Path) -> None:
    """Rename the folder `path` to `target`, in place of a folder that stands there."""
    shutil.rmtree(target, ignore_errors=True)
    path.rename(target)


def remove_folder(path: Path) -> None:
    """Delete the folder `path`, renamed first, so that nobody sees a part of it under its name."""
    renamed = path.with_name(f".{path.name}.removed")
    move_folder(path, renamed)
    shutil.rmtree(renamed)


def row_in(path: Path, line: bytes, number: int) -> dict[str, Any]:
    """Return the row in line `number` of the JSON-lines file `path`. InputError names both if it is no JSON object."""
    try:
        return stored(_object(json.loads(line.decode("utf-8"))), path, number)
    except ValueError as error:
        raise _broken(path, error, f", line {number}") from error


def _object(value: Any) -> dict[str, Any]:
    """Return `value`, which was read from JSON; ValueError where it is no object."""
    if not isinstance(value, dict):
        raise ValueError(f"{json.dumps(value)[:40]} is JSON, but no object")
    return value


def _broken(path: Path, error: ValueError, where: str = "") -> InputError:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else error
    return InputError(f"{path}{where}: no JSON object ({reason}); write it again, or move it elsewhere")


def _as_json(values: Mapping[str, Any], **options: Any) -> str:
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False, **options)
    except ValueError:  # JSON has neither NaN nor infinity
        text = json.dumps(_finite(values), ensure_ascii=False, allow_nan=False, **options)
    if _SURROGATE.search(text):  # of a file name that is not UTF-8; JSON escapes it
        return json.dumps(json.loads(text), **options)
    return text


def _finite(value: Any) -> Any:
    """Return `value` with None in place of every number that is not finite, at any depth."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
