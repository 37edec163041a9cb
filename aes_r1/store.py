"""The content-addressed store: what many runs share is made once, under a lock, and never half there."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from aes_r1.settings import InputError


def made_once(store: Path, kind: str, digest: str, make: Callable[[Path], None]) -> Path:
    """The folder store/kind/digest, made by `make(folder)` unless it is there.

    `digest` is a hash of everything that decides the content. `make` fills a folder beside, which is renamed when it
    is whole; if it stops half way the next call gets the same half folder back, to go on from checkpoints in it.
    """
    final = store / kind / digest
    if final.exists():
        return final
    beside = store / kind / f".{digest}.partial"
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(store / kind / f".{digest}.lock"):
            if not final.exists():
                beside.mkdir(exist_ok=True)
                make(beside)
                os.replace(beside, final)
    except OSError as error:
        raise InputError(
            f"store={store}: {error.strerror or error}; give a store that can be written, with room"
        ) from error
    return final
