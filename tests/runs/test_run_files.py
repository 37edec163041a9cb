"""Files are complete or absent, and rows are read as they were written."""

from __future__ import annotations

import errno
import hashlib
import math
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aes_r1.runs.files import (
    append_rows,
    copy_folder,
    delete_left_drafts,
    draft_of,
    is_draft_of,
    iter_rows,
    make_folder,
    move_folder,
    put_in_place,
    read_json,
    read_rows,
    remove_folder,
    replace_folder,
    replacing_folder,
    restore_folder,
    row_in,
    row_line,
    rows_at,
    rows_backwards,
    sha256_of,
    write_addressed,
    write_json,
    write_rows,
    write_text_atomically,
)
from aes_r1.settings import InputError
from tests.full_disk import files_of_at_most

ROWS = [{"text": "line\u2028separator\x85 and “quotes”"}, {"text": "a\r\nb"}, {"path": "caf\udce9.jpg"}, {"value": 0.1}]


def test_rows_come_back_as_they_were(tmp_path):
    """Line separators other than \\n, and file names that UTF-8 cannot hold, stay inside their row."""
    path = tmp_path / "rows.jsonl"
    assert write_rows(path, iter(ROWS)) == 4
    append_rows(path, ROWS)
    assert read_rows(path) == list(iter_rows(path)) == ROWS + ROWS
    assert list(rows_backwards(path)) == (ROWS + ROWS)[::-1]
    assert read_rows(tmp_path / "none.jsonl") == list(rows_backwards(tmp_path / "none.jsonl")) == []


def test_a_number_that_is_not_finite_becomes_null_at_any_depth(tmp_path):
    values = {"loss": math.nan, "cells": [{"low": -math.inf, "n": 3}], "name": "nan"}
    kept = {"loss": None, "cells": [{"low": None, "n": 3}], "name": "nan"}
    append_rows(tmp_path / "rows.jsonl", [values])
    write_json(tmp_path / "values.json", values)
    assert read_rows(tmp_path / "rows.jsonl") == [kept]
    assert read_json(tmp_path / "values.json") == kept


@pytest.mark.parametrize("last", [*ROWS, {"path": "\u00e9\u5199\U0001f4f7.jpg"}])
def test_a_last_line_that_was_cut_is_left_out_wherever_it_was_cut(last, tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [*ROWS, last])
    content = path.read_bytes()
    start = content.rstrip(b"\n").rindex(b"\n") + 1
    for cut in range(start, len(content)):
        path.write_bytes(content[:cut])
        assert read_rows(path) == ROWS
        assert next(rows_backwards(path)) == ROWS[-1]


@pytest.mark.parametrize("writing", [write_rows, lambda path, rows: write_json(path, next(rows))])
def test_what_fails_half_way_leaves_the_old_file(tmp_path, writing):
    path = tmp_path / "file"
    path.write_text("old\n")

    def failing():
        yield {"is": object()}

    with pytest.raises(TypeError):
        writing(path, failing())
    assert path.read_text() == "old\n"
    assert list(tmp_path.iterdir()) == [path]


def rows_as_text(path: Path, text: str) -> None:
    write_rows(path, [{"text": text[:100_000]}] * (len(text) // 100_000))


def write_always(writing: Callable, path: Path, text: str, failures: multiprocessing.Queue) -> None:
    for _ in range(25):
        try:
            writing(path, text)
        except OSError as error:
            failures.put(repr(error))
            return
    failures.put(None)


@pytest.mark.parametrize("writing", [write_text_atomically, rows_as_text])
@pytest.mark.slow
def test_of_two_writers_of_one_file_none_fails_and_every_reader_finds_a_whole_file(tmp_path, writing):
    path, texts = tmp_path / "page.html", ["a" * 2_000_000, "b" * 1_000_000]
    whole = set()
    for text in texts:
        writing(path, text)
        whole.add(path.read_text())
    context = multiprocessing.get_context("spawn")
    failures = context.Queue()
    writers = [context.Process(target=write_always, args=(writing, path, text, failures)) for text in texts]
    for writer in writers:
        writer.start()
    lengths = []
    while any(writer.is_alive() for writer in writers):
        content = path.read_text()
        if content not in whole:
            lengths.append(len(content))
    assert [failures.get(timeout=10) for _ in writers] == [None, None]
    assert lengths == [], "lengths of what was neither the old file nor the new one"
    assert list(tmp_path.iterdir()) == [path]


def write_and_wait(path: Path, begun: multiprocessing.Event) -> None:
    def rows() -> Iterator[dict]:
        yield {}
        begun.set()
        signal.pause()

    write_rows(path, rows())


@pytest.mark.slow
def test_the_draft_of_a_killed_writer_is_deleted_and_that_of_a_living_one_stays(tmp_path):
    path = tmp_path / "rows.jsonl"
    context = multiprocessing.get_context("spawn")
    begun = context.Event()
    writer = context.Process(target=write_and_wait, args=(path, begun))
    writer.start()
    try:
        assert begun.wait(60)
        (draft,) = tmp_path.iterdir()
        assert is_draft_of(path, draft.name)
        write_rows(path, [{"n": 1}])
        assert sorted(tmp_path.iterdir()) == sorted([draft, path])
    finally:
        writer.kill()
        writer.join()
    assert draft.exists()
    write_rows(tmp_path / "other.jsonl", [])
    assert draft.exists(), "it is no draft of the other file"
    write_rows(path, [{"n": 2}])
    assert read_rows(path) == [{"n": 2}]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["other.jsonl", "rows.jsonl"]


def test_only_drafts_of_the_file_are_deleted(tmp_path):
    """Of an earlier version as well, whose drafts had one name; never a folder, or another file of a like name."""
    path = tmp_path / "a.json"
    kept = [".b.json.partial", ".a.json.partial.txt", "a.json.partial", ".a.json.notahash.partial", ".a_json.partial"]
    for name in (*kept, ".a.json.0123abcd.partial", ".a.json.partial"):
        (tmp_path / name).touch()
    draft_of(tmp_path / "best").mkdir()
    delete_left_drafts(path)
    delete_left_drafts(tmp_path / "best")
    delete_left_drafts(tmp_path / "none" / "a.json")
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([*kept, ".best.partial"])


def test_rows_may_be_made_of_those_that_they_replace(tmp_path):
    path = tmp_path / "rows.jsonl"
    write_rows(path, ({"n": n} for n in range(5)))
    write_rows(path, (row for row in iter_rows(path) if row["n"] % 2))
    assert read_rows(path) == [{"n": 1}, {"n": 3}]
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]


def test_text_is_replaced_in_one_piece(tmp_path):
    path = tmp_path / "page.html"
    assert write_text_atomically(path, "één") == path
    write_text_atomically(path, "zwei")
    assert path.read_text(encoding="utf-8") == "zwei"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", ["pipe", "link to a device", "below /dev"])
def test_a_device_or_a_pipe_is_not_replaced_by_a_file(kind, tmp_path):
    path = tmp_path / "page.html"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link to a device":
            path.symlink_to("/dev/null")
        case _:
            path = Path("/dev/aes_r1_page.html")  # as /dev/stdout, which is a link
    for writing in (write_text_atomically, lambda to, _: write_rows(to, ROWS), lambda to, _: write_json(to, {})):
        with pytest.raises(InputError, match=r": a device or pipe, .*; give the name of a file"):
            writing(path, "text")
    assert path.is_fifo() == (kind == "pipe")
    assert path.is_symlink() == (kind == "link to a device")
    assert not path.is_file()


# What is JSON, but no object, is as wrong as what is no JSON: everything that is read has keys.
NO_OBJECTS = ("[]", "null", "5", '"text"', '[{"a": 1}]')


@pytest.mark.parametrize("content", ['{"a": 1', "", "[1,]", "\udcff", *NO_OBJECTS])
def test_a_file_that_is_no_json_is_named_in_one_line(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"broken\.json: no JSON object \(") as raised:
        read_json(path)
    assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match=r"gone\.json: No such file"):
        read_json(tmp_path / "gone.json")


NO_ROWS = (b'{"a": ', b'{"a": "\xc3"}', '{"a": 2}'.encode("utf-16"), b"", *map(str.encode, NO_OBJECTS))


@pytest.mark.parametrize("line", NO_ROWS)
def test_a_line_that_is_no_json_is_named_by_its_number(line, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"a": 3}\n')
    for reading in (read_rows, lambda path: list(rows_backwards(path))):
        with pytest.raises(InputError, match=r"rows\.jsonl, line 2: no JSON"):
            reading(path)


def test_a_folder_is_copied_whole_or_the_error_says_why_not(tmp_path):
    source = tmp_path / "model"
    (source / "templates").mkdir(parents=True)
    (source / "templates" / "tool.jinja").write_text("a")
    (source / "weights").write_bytes(b"b" * 10_000)
    copy_folder(source, tmp_path / "a" / "copy")
    assert (tmp_path / "a" / "copy" / "templates" / "tool.jinja").read_text() == "a"
    assert (tmp_path / "a" / "copy" / "weights").stat().st_size == 10_000
    with files_of_at_most(1000), pytest.raises(OSError, match="File too large") as raised:
        copy_folder(source, tmp_path / "cut")
    assert raised.value.errno == errno.EFBIG


def test_the_checksum_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 100_000)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(b"abc" * 100_000).hexdigest()


def test_rows_are_found_again_where_they_stand(tmp_path):
    """Each offset is that of the row's own line, also behind a broken line and one with letters of several bytes."""
    path, rows = tmp_path / "rows.jsonl", [{"n": 0, "text": "ä\u2028"}, {"n": 1}, {"n": 2}]
    path.write_bytes(row_line(rows[0]) + b"{no JSON}\n" + b"".join(map(row_line, rows[1:])) + b'{"n": 3}')
    found = list(rows_at(path, skip_broken=True))
    assert [row for _, row in found] == rows
    for offset, row in found:
        assert path.read_bytes()[offset:].startswith(row_line(row))
        assert next(rows_at(path, start=offset)) == (offset, row)
    with pytest.raises(InputError, match=r"rows\.jsonl, line 2: no JSON"):
        list(rows_at(path))
    assert list(rows_at(tmp_path / "none.jsonl")) == []


def filled(folder: Path, content: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "file").write_text(content)
    return folder


def content(folder: Path) -> dict[str, str]:
    """What stands in `folder`, with its hidden files."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_is_made_replaces_an_empty_one_or_leaves_nothing(there, tmp_path):
    out = tmp_path / "out"
    filled(draft_of(out), "left by a kill")
    if there:
        out.mkdir()

    def fails() -> None:
        with replacing_folder(out) as draft:
            filled(draft, "half")
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * there
    with replacing_folder(out) as draft:
        filled(draft, "whole")
        assert not content(out)
    assert content(tmp_path) == {"out/file": "whole"}


def test_an_empty_folder_stays_and_is_whole_only_with_its_last_file(tmp_path, monkeypatch):
    """For every n: an error in the n-th move leaves the folder empty; a kill leaves it without the last file."""
    out, moved = tmp_path / "out", []
    out.mkdir()
    before = out.stat().st_ino
    plain = shutil.move

    def moving(dies_at: int, error: type[BaseException]) -> None:
        def move(source: Path, target: Path) -> None:
            if len(moved) == dies_at:
                raise error
            moved.append(target.name)
            plain(source, target)
            assert (out / "b.json").exists() == (target.name == "b.json")

        moved.clear()
        monkeypatch.setattr(shutil, "move", move)
        with replacing_folder(out, last="b.json") as draft:
            (draft / "inner").mkdir(parents=True)
            for name in ("a", "b.json", "c", "inner/d"):
                (draft / name).write_text(name)

    for count in range(4):
        for error in (OSError, KeyboardInterrupt):
            with pytest.raises(error):
                moving(count, error)
            assert len(moved) == count
            assert [path.name for path in tmp_path.iterdir()] == ["out"]
            assert not list(out.iterdir())
    moving(9, OSError)
    assert content(tmp_path) == {f"out/{name}": name for name in ("a", "b.json", "c", "inner/d")}
    assert out.stat().st_ino == before
    with pytest.raises(InputError, match="out: is not empty; give a new folder"):
        moving(9, OSError)
    assert content(tmp_path) == {f"out/{name}": name for name in ("a", "b.json", "c", "inner/d")}


def test_a_full_folder_is_replaced_and_comes_back_after_a_kill(tmp_path, monkeypatch):
    best = tmp_path / "best"
    for text in ("first", "second"):
        filled(draft_of(best), text)
        replace_folder(best)
        assert content(tmp_path) == {"best/file": text}

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    filled(draft_of(best), "third")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            replace_folder(best)
    assert not best.exists()
    restore_folder(best)
    assert content(best) == {"file": "second"}
    restore_folder(best)
    replace_folder(best)
    restore_folder(best)
    assert content(tmp_path) == {"best/file": "third"}


def test_a_folder_is_moved_in_place_of_another_and_removed_whole(tmp_path):
    filled(tmp_path / "aside", "old")
    move_folder(filled(tmp_path / "step_1", "new"), tmp_path / "aside")
    assert content(tmp_path) == {"aside/file": "new"}
    filled(tmp_path / ".aside.removed", "left by a kill")
    remove_folder(tmp_path / "aside")
    assert not list(tmp_path.iterdir())


def test_a_draft_is_put_in_place_of_a_file(tmp_path):
    path = write_text_atomically(tmp_path / "rows.jsonl", "old")
    draft_of(path).write_text("new")
    assert put_in_place(path) == path
    write_addressed(path, path.read_bytes() * 2)
    assert content(tmp_path) == {"rows.jsonl": "newnew"}


def test_a_line_that_was_read_by_the_caller_is_named_too(tmp_path):
    assert row_in(tmp_path / "x", b'{"id": "a"}', 3) == {"id": "a"}
    with pytest.raises(InputError, match="x, line 3: no JSON object"):
        row_in(tmp_path / "x", b"[1]", 3)


@pytest.mark.parametrize("place", ["/proc/x", "/proc/self/x/y", "/proc"])
def test_where_the_kernel_makes_nothing_is_said(place):
    """It answers with the error of a missing file, which is elsewhere a fault of the code."""
    for path, named in ((Path(place), None), (Path(place), Path("page.html"))):
        with pytest.raises(InputError) as caught:
            make_folder(path, named)
        assert str(caught.value) == f"{named or path}: nothing can be made there; give another place"
    with pytest.raises(InputError, match="/proc/page: nothing can be made there; give another place"):
        write_text_atomically(Path("/proc/page"), "")
    with (
        pytest.raises(InputError, match="/proc/x: nothing can be made there; give another place"),
        replacing_folder(Path("/proc/x")),
    ):
        pytest.fail("the block is not to run")


def test_a_folder_is_made_and_nothing_is_left_in_it(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        make_folder(tmp_path / "file" / "x", tmp_path / "file" / "x" / "page.html")
    assert caught.value.filename == str(tmp_path / "file" / "x" / "page.html")
    with pytest.raises(FileNotFoundError):
        write_text_atomically(tmp_path / "never made" / "page", "")


def test_a_folder_that_is_deleted_while_it_is_made_is_made_again(tmp_path, monkeypatch):
    made = []
    mkdir = Path.mkdir

    def deleted_at_first(path, *given, **options):
        mkdir(path, *given, **options)
        made.append(path)
        if len(made) == 1:
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", deleted_at_first)
    make_folder(tmp_path / "a")
    assert (tmp_path / "a").is_dir()
