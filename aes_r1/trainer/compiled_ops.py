"""Where DeepSpeed's compiled operations lie, and the locks that killed processes leave there.

torch guards each compilation by a file `OPERATION/lock`, which it creates, holds open and removes. A process that is
killed leaves it, and everyone who comes later waits for it in silence and for ever.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from aes_r1.settings import InputError

log = logging.getLogger("aes_r1")

LONG = 600.0  # seconds; a compilation takes one or two minutes


def before_compiling() -> None:
    """Give this environment a folder of its own, unless TORCH_EXTENSIONS_DIR names one, and clear it of stale locks.

    Raises InputError where a lock cannot be proved stale, yet is older than a compilation lasts.
    """
    own = own_folder()
    folder = Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(own)))
    for lock in sorted(folder.glob("*/lock")):
        clear(lock, provable=folder == own and Path("/proc/self/fd").is_dir())


def own_folder() -> Path:
    """The folder of this machine, virtual environment, Python and torch: what others compiled may not run here.

    No other machine works in it, so whether the owner of a lock still lives can be seen from here.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    name = f"python{platform.python_version()}-torch{torch.__version__}-{environment}"
    return cache / "aes_r1" / "torch_extensions" / platform.node() / name


def clear(lock: Path, *, provable: bool) -> None:
    """Remove `lock` when its owner is gone; nothing is done to that of a living process of this machine.

    Without proof (`provable` false: another machine may hold it) wait until it goes or is LONG old, then raise
    InputError.
    """
    with _one_at_a_time(lock.parent):
        if _held(lock):
            return
        time.sleep(0.5)  # an owner that is done closes its lock a moment before it removes it
        if _held(lock) or not lock.exists():
            return
        if provable:
            log.warning("removed %s: the process that compiled there is gone", lock)
            lock.unlink(missing_ok=True)
            return
    log.warning("%s: no process of this machine holds it; waiting for another machine to finish", lock)
    while lock.exists() and not _held(lock):
        if _age(lock) > LONG:
            raise InputError(
                f"{lock}: {_age(lock) / 60:.0f} minutes old, and no process of this machine holds it; remove it unless "
                "another machine compiles there, or unset TORCH_EXTENSIONS_DIR"
            )
        time.sleep(0.5)


def _held(lock: Path) -> bool:
    """Whether a process of this machine has `lock` open; one that has had it open for LONG is named in the log."""
    with contextlib.suppress(FileNotFoundError):
        wanted = os.stat(lock)
        for opened in Path("/proc").glob("[0-9]*/fd/*"):
            with contextlib.suppress(OSError):  # the process has ended, or belongs to somebody else
                if os.path.samestat(os.stat(opened), wanted):
                    if _age(lock) > LONG:
                        log.warning(
                            "%s: process %s has compiled for %d minutes; end it if it hangs",
                            *(lock, opened.parts[2], _age(lock) / 60),
                        )
                    return True
    return False


def _age(lock: Path) -> float:
    """Seconds since `lock` was created; 0 when it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return time.time() - lock.stat().st_mtime
    return 0.0


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Between processes that judge the locks of `folder`: else one removes the lock that another has just taken."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
