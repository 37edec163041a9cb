"""Share folders between runs in a content-addressed store: each is made once, under a lock, and appears complete."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from aes_r1.runs.files import draft_of, put_in_place
from aes_r1.settings import InputError

LOOK_S = 1.0  # interval at which a wait for another process's lock calls `waiting`


def made_once(
    store: Path,
    kind: str,
    digest: str,
    make: Callable[[Path], None],
    *,
    waiting: Callable[[], object] = lambda: None,
) -> Path:
    """Return the folder store/kind/digest, made by `make(folder)` unless it is there.

    `digest` is a hash of everything that decides the content. `make` fills a draft folder, which is renamed when it is
    complete. If `make` stops half way, the next call gets the same draft and can resume from checkpoints in it.
    `waiting()` is called every LOOK_S seconds while another process makes the folder; an exception of it ends the wait.
    Raises InputError when the store cannot be written.
    """
    with draft_unless_stored(store, kind, digest, waiting=waiting) as draft:
        if draft is not None:
            make(draft)
    return store / kind / digest


@contextlib.contextmanager
def draft_unless_stored(
    store: Path, kind: str, digest: str, *, waiting: Callable[[], object] = lambda: None
) -> Iterator[Path | None]:
    """Yield None if the folder store/kind/digest exists; else, under a lock, a draft that is renamed once it is filled.

    `waiting` is that of `made_once`. Raises InputError when the store cannot be written; an exception that is raised
    while the draft is filled passes unchanged, and the draft stays.
    """
    final = store / kind / digest
    draft = draft_of(final)
    if final.exists():
        yield None
        return
    lock = FileLock(store / kind / f".{digest}.lock")
    with _writing(store):
        final.parent.mkdir(parents=True, exist_ok=True)
    while not _acquired(lock, store):
        waiting()
    try:
        if final.exists():
            yield None
            return
        with _writing(store):
            draft.mkdir(exist_ok=True)
        yield draft
        with _writing(store):
            put_in_place(final)
    finally:
        lock.release()


def _acquired(lock: FileLock, store: Path) -> bool:
    with _writing(store):
        try:
            lock.acquire(timeout=LOOK_S)
        except Timeout:  # Timeout is an OSError too
            return False
    return True


@contextlib.contextmanager
def _writing(store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"store={store}: {error.strerror or error}; give a store that can be written, with room"
        ) from error
