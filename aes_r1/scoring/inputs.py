"""Find and read the pictures that a user names: files, folders, globs and, only with a flag, URLs."""

from __future__ import annotations

import glob
import io
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, InvalidURL
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from PIL import Image

from aes_r1.data.names import is_hidden, is_remote, local_name, way_to_file
from aes_r1.data.sample import SUFFIXES, PictureError, open_picture
from aes_r1.settings import InputError

_URL = re.compile(r"(?:https?|ftp)://|data:", re.IGNORECASE)
_CHUNK = 1 << 16
_HTTP_ALONE = "only http and https are fetched"
_LISTS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".lst", ".list")  # endings of files that may name pictures
_GONE = (404, 410)  # the statuses by which a server says that nothing is there


class LastingError(PictureError):
    """A URL for which another try would not help: it leads to nothing, to no picture, or can never be fetched."""


class _OtherProtocol(URLError):
    """A redirect to a protocol other than http and https."""


@dataclass(frozen=True)
class UrlLimits:
    """Limit one download: bytes of the body, and seconds of the whole download."""

    max_bytes: int = 20_000_000
    seconds: float = 20.0


def find_pictures(
    inputs: Iterable[str], *, urls: bool = False, skipped: Counter[str] | None = None
) -> Iterator[str | PictureError]:
    """Yield the paths (and URLs) that `inputs` name, in their order; a PictureError for an input that names nothing.

    A folder yields the files below it that have a picture's suffix, sorted by name; a glob yields its matches, with
    `**` each file once. A file that is named itself, or by a file:// address, is taken whatever its suffix. `skipped`
    counts what else folders hold: other files by suffix, hidden pictures, hidden and linked folders. No file is opened.
    """
    skipped = Counter() if skipped is None else skipped
    for given in inputs:
        name = given if is_url(given) else local_name(given)
        if is_url(name):
            yield name if urls else PictureError(name, "URLs are not fetched unless --urls is given")
        elif os.path.isdir(name):
            passed_over: Counter[str] = Counter()
            yield from _or_error(_below(name, passed_over), name, partial(_none_of, passed_over))
            skipped.update(passed_over)
        elif os.path.exists(name) or not glob.has_magic(name):
            yield name  # a missing file is reported when it is opened
        else:
            yield from _or_error(_matches(name), name, lambda: "no file matches")


def _matches(pattern: str) -> list[str]:
    """Return the files that match a glob, sorted; with `**` each once, though links to folders may lead there, too."""
    paths = [path for path in sorted(glob.glob(pattern, recursive=True)) if os.path.isfile(path)]
    if "**" not in pattern:
        return paths
    real = {folder: os.path.realpath(folder) for folder in {os.path.dirname(path) for path in paths}}
    by_place: dict[tuple[str, str], str] = {}
    for path in sorted(paths, key=len):
        by_place.setdefault((real[os.path.dirname(path)], os.path.basename(path)), path)
    return sorted(by_place.values())


def some_readable(found: Iterable[str | PictureError]) -> Iterator[str | PictureError]:
    """Return all that `find_pictures` found; InputError, before anything is scored, if none of it can be read.

    Files are opened up to the first that can be read. URLs are not fetched here and count as readable.
    """
    remaining = iter(found)
    looked_at: list[str | PictureError] = []
    faults: list[PictureError] = []
    for picture in remaining:
        looked_at.append(picture)
        fault = picture if isinstance(picture, PictureError) else _fault(picture)
        if fault is None:
            break
        faults.append(fault)
    if faults and len(faults) == len(looked_at):
        several = f"none of {len(faults)} pictures can be read; the first: " if len(faults) > 1 else ""
        raise InputError(f"{several}{faults[0]}{_way_to(faults[0].path)}")
    return chain(looked_at, remaining)


def _way_to(name: str) -> str:
    """Return the way out for a name that is no picture: a list of names, or another spelling; empty without one."""
    if name == "-" or name.lower().endswith(_LISTS):
        return "; the names of a list are given as arguments: xargs -d '\\n' aes-r1 score --model DIR < list.txt"
    if is_url(name) or os.path.lexists(name) or glob.has_magic(name):
        return ""
    parts = [part.strip() for part in re.split(r"[,;:\n]|\s+", name) if part.strip()]
    if len(parts) > 1 and all(map(os.path.exists, parts)):
        return f"; give them as {len(parts)} arguments, with blanks between them"
    if is_remote(name):
        return "; it is not on this machine; save it here and name the file"
    return way_to_file(name)


def _fault(name: str) -> PictureError | None:
    try:
        if not is_url(name):
            open_picture(name)
    except PictureError as error:
        return error
    return None


def named_once(pictures: Iterable[str | PictureError]) -> Iterator[str | PictureError]:
    """Yield what `find_pictures` found, each file once, even if it is named several times or also by a link."""
    seen = set()
    for picture in pictures:
        identity = picture if isinstance(picture, PictureError) or is_url(picture) else os.path.realpath(picture)
        if identity not in seen:
            seen.add(identity)
            yield picture


def skipped_line(skipped: Counter[str]) -> str:
    """Return what was passed over, counted by kind: "12 .txt, 2 hidden folders"; empty when there was nothing."""
    return ", ".join(
        f"{count} {kind}{'s' * (count != 1 and kind.endswith(('folder', 'picture')))}"
        for kind, count in skipped.most_common()
    )


def read_picture(name: str, limits: UrlLimits | None = None) -> Image.Image:
    """Return the picture at a path, or at a URL where `limits` are given. PictureError when it cannot be read."""
    if not is_url(name):
        return open_picture(name)
    if limits is None:
        raise PictureError(name, "URLs are not fetched unless --urls is given")
    body = _download(name, limits)
    try:
        return open_picture(io.BytesIO(body))
    except PictureError as error:
        raise LastingError(name, error.reason) from error


def is_url(name: str) -> bool:
    """Return whether `name` is a URL rather than a path."""
    return _URL.match(name) is not None


def _below(folder: str, skipped: Counter[str]) -> Iterator[str | PictureError]:
    unreadable: list[OSError] = []
    for directory, folders, files in os.walk(folder, onerror=unreadable.append):
        while unreadable:
            yield _closed(unreadable.pop())
        visible = sorted(name for name in folders if not is_hidden(name))
        skipped["hidden folder"] += len(folders) - len(visible)
        folders[:] = visible  # os.walk descends into these only
        skipped["linked folder"] += sum(os.path.islink(os.path.join(directory, name)) for name in folders)
        for name in sorted(files):
            suffix = Path(name).suffix.lower()
            if is_hidden(name):
                skipped["hidden picture"] += suffix in SUFFIXES
            elif suffix in SUFFIXES:
                yield os.path.join(directory, name)
            else:
                skipped[suffix or "without a suffix"] += 1
    while unreadable:
        yield _closed(unreadable.pop())
    for kind in [kind for kind, count in skipped.items() if not count]:
        del skipped[kind]


def _closed(error: OSError) -> PictureError:
    return PictureError(str(error.filename), f"a folder that cannot be read ({error.strerror})")


def _none_of(skipped: Counter[str]) -> str:
    content = skipped_line(skipped)
    return f"no picture in this folder; it holds {content}" if content else "no picture in this folder"


def _or_error(
    paths: Iterable[str | PictureError], name: str, reason: Callable[[], str]
) -> Iterator[str | PictureError]:
    empty = True
    for path in paths:
        empty = False
        yield path
    if empty:
        yield PictureError(name, reason())


def _download(url: str, limits: UrlLimits) -> bytes:
    """Return the body behind an http(s) URL; PictureError where there is none, or after limits.seconds.

    A socket's timeout limits only the time without data, so a server that sends a byte now and then never exceeds it,
    and it starts anew with every redirect. So the fetch has a thread of its own, which is abandoned when the time is
    over.
    """
    fetched: list[bytes | PictureError] = []
    worker = threading.Thread(target=lambda: fetched.append(_fetch(url, limits)), daemon=True)
    worker.start()
    worker.join(limits.seconds)
    body = fetched[0] if fetched else _too_slow(url, limits)
    if isinstance(body, PictureError):
        raise body
    return body


class _HttpAlone(HTTPRedirectHandler):
    """Follow redirects to http and https alone; urllib would also follow one to ftp."""

    def redirect_request(self, *request: Any) -> Request | None:
        """Return the request that a redirect leads to; _OtherProtocol for one to another protocol."""
        if not _is_http(request[-1]):
            raise _OtherProtocol(f"a redirect to {urlsplit(request[-1]).scheme}; {_HTTP_ALONE}")
        return super().redirect_request(*request)


def _is_http(url: str) -> bool:
    return urlsplit(url).scheme.lower() in ("http", "https")


def _fetch(url: str, limits: UrlLimits) -> bytes | PictureError:
    """Return the body behind an http(s) URL, or the PictureError that says why there is none."""
    end = time.monotonic() + limits.seconds
    try:
        if not _is_http(url):
            return LastingError(url, _HTTP_ALONE)
        request = Request(url, headers={"User-Agent": "aes-r1", "Accept": "image/*"})
        with build_opener(_HttpAlone).open(request, timeout=limits.seconds) as answer:
            body = bytearray()
            while chunk := answer.read1(_CHUNK):
                body += chunk
                if len(body) > limits.max_bytes:
                    return PictureError(url, f"more than {limits.max_bytes:,} bytes")
                if time.monotonic() > end:
                    return _too_slow(url, limits)
    except (URLError, HTTPException, OSError, ValueError) as error:
        if isinstance(error, UnicodeError):
            return LastingError(url, "holds a letter that no URL may hold; write it as %XX, in a host's name as xn--")
        reason = getattr(error, "reason", None) or error
        slow = isinstance(error, TimeoutError) or isinstance(reason, TimeoutError)
        if slow:
            return _too_slow(url, limits)
        return (LastingError if _is_lasting(error) else PictureError)(url, str(reason))
    return bytes(body)


def _is_lasting(error: Exception) -> bool:
    """Return whether a download failed in a way that another try would not change."""
    if isinstance(error, HTTPError):
        return error.code in _GONE or error.code < 400  # urllib gives the status of a redirect that it does not follow
    return isinstance(error, _OtherProtocol | InvalidURL | ValueError)


def _too_slow(url: str, limits: UrlLimits) -> PictureError:
    return PictureError(url, f"took longer than {limits.seconds:g} s")
