"""Name what the files of pictures hold, for the names of what the store keeps about them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import PictureError, no_longer_there
from aes_r1.pipeline.job import Job
from aes_r1.runs.files import sha256_of, write_text_atomically
from aes_r1.runs.identity import fingerprint
from aes_r1.runs.store import made_once

log = logging.getLogger("aes_r1")

_SAID_FROM = 1000  # pictures, whose reading takes long enough to be announced


def contents_of(job: Job, images: Sequence[str]) -> list[str]:
    """Return one digest of the files `images` in their order; nothing where the program has drawn all of them.

    A scene's folder in the store is named by what decides its pixels, so its path says what it holds, and what is made
    of scenes keeps its name. Another picture may be replaced under its name. Collective; InputError where a file is
    missing.
    """
    found: list[str] = job.processes.from_rank_zero(lambda: _contents(job, images))
    return found


def _contents(job: Job, images: Sequence[str]) -> list[str]:
    scenes = (job.store / "scenes").resolve()
    files = [image for image in images if not Path(image).is_relative_to(scenes)]
    if not files:
        return []
    # The files are read once, and again where one may have changed. The time of change is compared as well as that of
    # modification, because a copy that keeps the latter may replace a picture by one of the same size.
    written = fingerprint([_stamp(image) for image in files])

    def make(target: Path) -> None:
        if len(files) >= _SAID_FROM:
            log.info("reading %d pictures once, to name what is made of them by what they hold", len(files))
        digests = []
        for digest in prefetch(
            files, lambda image: _sha256(_stamp(image)), workers=job.settings.data.workers, ahead=64
        ):
            digests.append(digest)
            job.processes.keep_waiting()  # raises where the job should stop
        write_text_atomically(target / "sha256", fingerprint(digests))

    entry = made_once(job.store, "digests", written, make, waiting=job.processes.keep_waiting)
    return [(entry / "sha256").read_text()]


def _stamp(image: str) -> tuple[str, int, int, int]:
    with _there(image):
        status = os.stat(image)
    return os.path.realpath(image), status.st_size, status.st_mtime_ns, status.st_ctime_ns


@cache  # the critiques that are kept are about most of the pictures that were asked about
def _sha256(stamp: tuple[str, int, int, int]) -> str:
    with _there(stamp[0]):
        return sha256_of(Path(stamp[0]))


@contextlib.contextmanager
def _there(image: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise no_longer_there(PictureError(image, error.strerror or str(error))) from error
