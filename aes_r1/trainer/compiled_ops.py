"""Choose the folder of DeepSpeed's compiled operations, and remove the locks that killed processes left there.

torch guards each compilation by a file `OPERATION/lock`, which it creates, holds open and removes. A killed process
leaves its lock behind, and every later process would wait for it forever without a message.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from aes_r1.runs.private import private_cache
from aes_r1.settings import InputError, user_cache

log = logging.getLogger("aes_r1")

LONGEST_COMPILATION = 600.0  # seconds; a compilation takes one or two minutes


def before_compiling() -> None:
    """Give this environment its own folder, unless TORCH_EXTENSIONS_DIR names one, and remove stale locks from it.

    Raises InputError where a lock is older than any compilation but cannot be proved stale.
    """
    own = own_folder()
    folder = Path(os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(own)))
    for lock in sorted(folder.glob("*/lock")):
        clear(lock, provable=folder == own and Path("/proc/self/fd").is_dir())


def own_folder() -> Path:
    """Return the folder of this machine, virtual environment, Python and torch, the only ones that can run its content.

    No other machine works in it, so this machine can see whether the owner of a lock is alive.
    """
    cache = user_cache()
    folder = private_cache() if cache is None else cache / "aes_r1"
    environment = hashlib.sha256(sys.prefix.encode()).hexdigest()[:8]
    name = f"python{platform.python_version()}-torch{torch.__version__}-{environment}"
    return folder / "torch_extensions" / platform.node() / name


def clear(lock: Path, *, provable: bool) -> None:
    """Remove `lock` when its owner is gone; the lock of a living process of this machine stays.

    Where another machine may hold the lock (`provable` is false), wait until it disappears, and raise InputError once
    it is LONGEST_COMPILATION old.
    """
    with _one_at_a_time(lock.parent):
        if _is_held(lock):
            return
        time.sleep(0.5)  # an owner closes its lock a moment before it removes it
        if _is_held(lock) or not lock.exists():
            return
        if provable:
            log.warning("removed %s: the process that compiled there is gone", lock)
            lock.unlink(missing_ok=True)
            return
    log.warning("%s: no process of this machine holds it; waiting for another machine to finish", lock)
    while lock.exists() and not _is_held(lock):
        if _age(lock) > LONGEST_COMPILATION:
            raise InputError(
                f"{lock}: {_age(lock) / 60:.0f} minutes old, and no process of this machine holds it; remove it unless "
                "another machine compiles there, or unset TORCH_EXTENSIONS_DIR"
            )
        time.sleep(0.5)


def _is_held(lock: Path) -> bool:
    """Return whether a process of this machine has `lock` open; the log names one that has done so for too long."""
    with contextlib.suppress(FileNotFoundError):
        lock_stat = os.stat(lock)
        for opened in glob.iglob("/proc/[0-9]*/fd/*"):  # passes over processes that end meanwhile
            if not _is_file(opened, lock_stat):
                continue
            if _age(lock) > LONGEST_COMPILATION:
                message = "%s: process %s has compiled for %d minutes; end it if it hangs"
                log.warning(message, lock, opened.split("/")[2], _age(lock) / 60)
            return True
    return False


def _is_file(opened: str, file_stat: os.stat_result) -> bool:
    """Return whether the descriptor `opened` is of the file with `file_stat`; False where it cannot be seen."""
    try:
        return os.path.samestat(os.stat(opened), file_stat)
    except OSError:  # the process has ended, or belongs to another user
        return False


def _age(lock: Path) -> float:
    """Return the seconds since `lock` was created; 0 when it is gone."""
    with contextlib.suppress(FileNotFoundError):
        return time.time() - lock.stat().st_mtime
    return 0.0


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Exclude other processes that check the locks of `folder`; one could remove a lock that was just taken."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
