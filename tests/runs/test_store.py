"""The store: a folder is made once, by one of many processes, and is complete or absent."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import pytest
from filelock import FileLock

from aes_r1.runs.store import made_once
from aes_r1.settings import InputError


def _slow(folder: Path) -> None:
    with (folder.parent / "calls.txt").open("a") as file:
        file.write(f"{os.getpid()}\n")
    for part in range(20):
        (folder / f"{part}.txt").write_text("x" * 10_000)


def _ask(store: Path, barrier) -> None:
    barrier.wait()
    assert len(list(made_once(store, "things", "abc", _slow).iterdir())) == 20


@pytest.mark.slow
def test_many_processes_make_one_thing_once(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    workers = [context.Process(target=_ask, args=(tmp_path, barrier)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]
    assert len((tmp_path / "things" / "calls.txt").read_text().splitlines()) == 1


def test_a_maker_that_stops_half_way_goes_on_from_there(tmp_path):
    def fails(folder: Path) -> None:
        (folder / "first.txt").write_text("1")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        made_once(tmp_path, "things", "abc", fails)
    assert not (tmp_path / "things" / "abc").exists()

    def finishes(folder: Path) -> None:
        assert (folder / "first.txt").read_text() == "1"
        (folder / "second.txt").write_text("2")

    made = made_once(tmp_path, "things", "abc", finishes)
    assert sorted(path.name for path in made.iterdir()) == ["first.txt", "second.txt"]
    assert made_once(tmp_path, "things", "abc", fails) == made  # there already, so not made again


def test_a_store_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="store="):
        made_once(tmp_path / "file", "things", "abc", _slow)


def test_what_goes_wrong_in_the_making_is_not_the_store(tmp_path):
    def fails(folder: Path) -> None:
        (folder / "nowhere" / "file").write_text("")

    with pytest.raises(FileNotFoundError, match="nowhere"):
        made_once(tmp_path, "things", "abc", fails)

    def second(folder: Path) -> None:  # the lock is free again
        (folder / "file").write_text("")

    assert (made_once(tmp_path, "things", "abc", second) / "file").exists()


@pytest.mark.slow
def test_a_wait_for_the_lock_can_be_left(tmp_path):
    class Enough(Exception):
        pass

    def enough() -> None:
        raise Enough

    (tmp_path / "things").mkdir()
    with FileLock(tmp_path / "things" / ".abc.lock"), pytest.raises(Enough):
        made_once(tmp_path, "things", "abc", _slow, waiting=enough)
    assert len(list(made_once(tmp_path, "things", "abc", _slow, waiting=enough).iterdir())) == 20, "nobody holds it now"
