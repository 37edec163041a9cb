"""Find a folder that this user alone can write to, for files whose own folder is read-only."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from aes_r1.settings import InputError, user_cache


def private_cache() -> Path:
    """Return XDG_CACHE_HOME/aes_r1 (or ~/.cache/aes_r1), else a folder of this user's in the temporary folder.

    The files in it are trusted. In the temporary folder anybody may have made something of that name, so a link,
    another user's folder, and a folder that others may write to are passed over. So is a path that is not absolute,
    because its folder would depend on where the command was started. InputError where no folder can be used.
    """
    cache = user_cache()
    own = [] if cache is None else [cache / "aes_r1"]
    candidates = [*own, Path(tempfile.gettempdir()) / f"aes_r1.{os.geteuid()}"]
    for folder in candidates:
        if not folder.is_absolute():
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if _is_own(folder) and os.access(folder, os.W_OK):
            return folder
    raise InputError(
        f"{' and '.join(map(str, candidates))} cannot be written, or are no absolute paths, links, another user's or "
        "open to others; give XDG_CACHE_HOME a folder of your own"
    )


def _is_own(folder: Path) -> bool:
    status = folder.lstat()
    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not others_write
