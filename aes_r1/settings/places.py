"""Expand ~ in names of files and folders; no other file does, because a user may have no home folder."""

from __future__ import annotations

import os
from pathlib import Path

from aes_r1.wrong_input import InputError


def expanded(name: str) -> str:
    """Return `name` with a leading ~ or ~USER expanded; as it is where no such home folder is known."""
    return os.path.expanduser(name)


def place(path: str | Path, key: str | None = None) -> Path:
    """Return the path that the user gave, by the setting `key` if it has one, with a leading ~ or ~USER expanded.

    InputError where no such home folder is known.
    """
    given = str(path)
    expanded_path = expanded(given)
    if given.startswith("~") and expanded_path == given:
        named = given if key is None else f"{key}={given}"
        user = given.split("/")[0]
        of = "no home folder is known" if user == "~" else f"no user {user[1:]} is known"
        raise InputError(f"{named}: {of}; give the whole path, or ./{given} where the name itself begins with ~")
    return Path(expanded_path)


def user_cache() -> Path | None:
    """Return XDG_CACHE_HOME, or else ~/.cache; None for a user without a home folder."""
    found = os.environ.get("XDG_CACHE_HOME") or expanded("~/.cache")
    return None if found.startswith("~") else Path(found)
