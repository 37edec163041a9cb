"""Pictures as a user names them: files, folders, globs and, only where asked for, URLs."""

from __future__ import annotations

import glob
import io
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from PIL import Image

from aes_r1.data.sample import PictureError, open_picture

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".avif", ".ppm", ".pgm"}
_CHUNK = 1 << 16


@dataclass(frozen=True)
class UrlLimits:
    """What one download may cost: bytes of the body, and seconds from the first connection to its end."""

    max_bytes: int = 20_000_000
    seconds: float = 20.0


def find_pictures(inputs: Iterable[str], *, urls: bool = False) -> Iterator[str | PictureError]:
    """Paths (and URLs) that `inputs` name, in their order; a PictureError for an input that names nothing.

    A folder gives the files below it whose suffix is a picture's, by name; a glob (`**` goes down) what it matches. A
    file named outright is taken whatever its suffix. Nothing is opened, and nothing but names is held in memory.
    """
    for name in inputs:
        if is_url(name):
            yield name if urls else PictureError(name, "URLs are not fetched unless --urls is given")
        elif os.path.isdir(name):
            yield from _or_error(_below(name), name, "no picture in this folder")
        elif os.path.exists(name) or not glob.has_magic(name):
            yield name  # a missing file is named when it is opened
        else:
            found = (path for path in sorted(glob.glob(name, recursive=True)) if os.path.isfile(path))
            yield from _or_error(found, name, "no file matches")


def read_picture(name: str, limits: UrlLimits | None = None) -> Image.Image:
    """The picture at a path, or at a URL where `limits` are given. PictureError when it cannot be read."""
    if not is_url(name):
        return open_picture(name)
    if limits is None:
        raise PictureError(name, "URLs are not fetched unless --urls is given")
    body = _download(name, limits)
    try:
        return open_picture(io.BytesIO(body))
    except PictureError as error:
        raise PictureError(name, error.reason) from error


def is_url(name: str) -> bool:
    """Whether `name` is an address rather than a file."""
    return urlsplit(name).scheme.lower() in ("http", "https", "ftp", "data") and ":" in name


def _below(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            if Path(name).suffix.lower() in SUFFIXES and not name.startswith("."):
                yield os.path.join(place, name)


def _or_error(found: Iterable[str], name: str, reason: str) -> Iterator[str | PictureError]:
    nothing = True
    for path in found:
        nothing = False
        yield path
    if nothing:
        yield PictureError(name, reason)


def _download(url: str, limits: UrlLimits) -> bytes:
    """The body behind an http(s) URL. urllib follows redirects to http, https and ftp; ftp is refused at the end."""
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        raise PictureError(url, "only http and https are fetched")
    end = time.monotonic() + limits.seconds
    try:
        request = Request(url, headers={"User-Agent": "aes-r1", "Accept": "image/*"})
        with urlopen(request, timeout=limits.seconds) as answer:
            if not answer.geturl().lower().startswith(("http://", "https://")):
                raise PictureError(url, "redirected away from http")
            body = bytearray()
            while chunk := answer.read1(_CHUNK):
                body += chunk
                if len(body) > limits.max_bytes:
                    raise PictureError(url, f"more than {limits.max_bytes:,} bytes")
                if time.monotonic() > end:
                    raise PictureError(url, f"took longer than {limits.seconds:g} s")
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        slow = isinstance(error, TimeoutError) or isinstance(reason, TimeoutError)
        raise PictureError(url, f"took longer than {limits.seconds:g} s" if slow else str(reason)) from error
    return bytes(body)
