"""Compute digests of picture files, for the names of results in the store."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from aes_r1.data.contents import sha256_of_picture, stamp_of
from aes_r1.data.prefetch import prefetch
from aes_r1.data.sample import PictureError, no_longer_there
from aes_r1.pipeline.job import Job
from aes_r1.runs.files import write_text_atomically
from aes_r1.runs.identity import fingerprint
from aes_r1.runs.store import made_once

log = logging.getLogger("aes_r1")

_SAID_FROM = 1000  # pictures, whose reading takes long enough to be announced


def contents_of(job: Job, images: Sequence[str]) -> list[str]:
    """Return one digest of the files `images` in their order; nothing if all are synthetic scenes.

    A scene's folder in the store is named by everything that decides its pixels, so the path identifies the content,
    and results from scenes keep their names. The file of any other picture may be replaced under the same name.
    Collective; InputError where a file is missing.
    """
    digests: list[str] = job.processes.from_rank_zero(lambda: _contents(job, images))
    return digests


def _contents(job: Job, images: Sequence[str]) -> list[str]:
    scenes = (job.store / "scenes").resolve()
    files = [image for image in images if not Path(image).is_relative_to(scenes)]
    if not files:
        return []
    # The files are read once, and again if one may have changed.
    with _missing_as_input_error():
        stamps_digest = fingerprint([stamp_of(image) for image in files])

    def make(target: Path) -> None:
        if len(files) >= _SAID_FROM:
            log.info("reading %d pictures once, to name what is made of them by what they hold", len(files))
        digests = []
        with _missing_as_input_error():
            for digest in prefetch(files, sha256_of_picture, workers=job.settings.data.workers, ahead=64):
                digests.append(digest)
                job.processes.keep_waiting()  # raises where the job should stop
        write_text_atomically(target / "sha256", fingerprint(digests))

    entry = made_once(job.store, "digests", stamps_digest, make, waiting=job.processes.keep_waiting)
    return [(entry / "sha256").read_text()]


@contextlib.contextmanager
def _missing_as_input_error() -> Iterator[None]:
    try:
        yield
    except PictureError as error:
        raise no_longer_there(error) from error
