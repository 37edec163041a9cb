"""Identify the content of a picture's file, so that a picture that was replaced under its name is noticed."""

from __future__ import annotations

import os
import stat
from functools import cache
from pathlib import Path

from aes_r1.data.sample import PictureError
from aes_r1.runs.files import sha256_of

Stamp = tuple[str, int, int, int]


def stamp_of(image: str) -> Stamp:
    """Return a stamp that changes with the file: its resolved path, size, and times of modification and change.

    The time of modification alone is not enough, because a copy with preserved times may replace a picture by another
    of the same size. Raises PictureError if `image` is not a file.
    """
    try:
        status = os.stat(image)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise PictureError(image, getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(status.st_mode):
        raise PictureError(image, "a folder, pipe, socket or device, not a file")
    return os.path.realpath(image), status.st_size, status.st_mtime_ns, status.st_ctime_ns


def sha256_of_picture(image: str) -> str:
    """Return the SHA-256 of the bytes of the file `image`; raises PictureError. An unchanged file is read once."""
    return _sha256_of(stamp_of(image))


@cache  # the same picture is asked about several times
def _sha256_of(stamp: Stamp) -> str:
    try:
        return sha256_of(Path(stamp[0]))
    except OSError as error:
        raise PictureError(stamp[0], error.strerror or str(error)) from error
