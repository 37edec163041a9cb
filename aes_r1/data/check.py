"""Decode every picture of a set once, to find damaged files, hashes and sizes. Results are cached by path."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import dctn

from aes_r1.data import scene_sets
from aes_r1.data.sample import PictureError, Sample, open_picture
from aes_r1.runs.files import append_rows, make_folder, rows_at, sha256_of, write_rows
from aes_r1.runs.stopping import leave_to_parent
from aes_r1.runs.workers import in_workers
from aes_r1.settings import InputError

CHUNK = 32  # pictures that a process reads between two progress reports


@dataclass(frozen=True)
class Checked:
    """Hold what was found out about a picture's file.

    width, height: pixels after the EXIF orientation is applied. perceptual_hash: 16 hex digits. reason: why the file
    cannot be read, in which case only path, bytes and mtime_ns are known.
    """

    path: str
    bytes: int
    mtime_ns: int
    sha256: str | None = None
    width: int | None = None
    height: int | None = None
    perceptual_hash: str | None = None
    reason: str | None = None


def check_picture(path: str) -> Checked:
    """Decode and hash one file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        return Checked(path, -1, -1, reason=getattr(error, "strerror", None) or str(error))
    try:
        picture = open_picture(path)
        digest = sha256_of(Path(path))
    except PictureError as error:
        return Checked(path, status.st_size, status.st_mtime_ns, reason=error.reason)
    return Checked(path, status.st_size, status.st_mtime_ns, digest, *picture.size, perceptual_hash(picture))


def perceptual_hash(picture: Image.Image) -> str:
    """Hash a picture to 64 bits, as hex digits.

    Each bit says whether one of the 64 lowest frequencies of the 32 x 32 gray copy exceeds their median.

    Copies that differ in size, format or compression share all or nearly all bits.
    """
    gray = np.asarray(picture.convert("L").resize((32, 32), Image.Resampling.BOX), dtype=np.float64)
    low = dctn(gray, norm="ortho")[:8, :8].flatten()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()


class CheckCache:
    """Keep checked pictures by path in a JSON-lines file; each result is appended at once, so that a stop loses none.

    A picture that could not be read is tried again, because the fault may have been the machine's.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, Checked] = {}
        make_folder(path.parent)
        for _, values in rows_at(path, skip_broken=True):
            try:
                row = Checked(**values)
            except TypeError:
                continue  # a row of another program version; its picture is read again
            self._known[row.path] = row

    def __getitem__(self, path: str) -> Checked:
        return self._known[path]

    def missing(self, paths: Sequence[str]) -> list[str]:
        """Return the paths that are not in the cache, that could not be read, or whose file has changed since."""
        return [path for path in dict.fromkeys(paths) if not self._fresh(path)]

    def _fresh(self, path: str) -> bool:
        row = self._known.get(path)
        if row is None or row.reason is not None:
            return False
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            return False
        return (row.bytes, row.mtime_ns) == (status.st_size, status.st_mtime_ns)

    def read(self, paths: Sequence[str], *, workers: int) -> Iterator[int]:
        """Check `paths` in `workers` processes (0: in this one); yield the number done after each chunk."""
        done = 0
        if paths:
            write_rows(self._path, map(asdict, self._known.values()))  # without the half line of a killed run
        for rows in _checked(paths, workers):
            self._known.update((row.path, row) for row in rows)
            append_rows(self._path, map(asdict, rows))
            done += len(rows)
            yield done


def _checked(paths: Sequence[str], workers: int) -> Iterator[list[Checked]]:
    """Yield the results for CHUNK paths at a time, in order; at most 2 * workers chunks wait to be taken."""
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    if workers == 0 or len(chunks) < 2:
        yield from map(_check_chunk, chunks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=leave_to_parent)
    waiting: deque[Future] = deque()
    try:
        for chunk in chunks:
            waiting.append(pool.submit(_check_chunk, chunk))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _check_chunk(paths: Sequence[str]) -> list[Checked]:
    return [check_picture(path) for path in paths]


def check_pictures(
    samples: Sequence[Sample], *, workers: int, strict: bool
) -> tuple[list[Sample], list[dict[str, str]]]:
    """Open every picture once; return (samples that can be read, dropped rows {"id", "path", "reason"}).

    With `strict` the first picture that cannot be read raises InputError naming it.
    """
    if samples and samples[0].dataset in scene_sets.SCENE_SETS:  # this program has drawn the pictures itself
        return list(samples), []
    reasons = _failures(samples, workers)
    dropped = [
        {"id": sample.id, "path": sample.image, "reason": reason}
        for sample, reason in zip(samples, reasons, strict=True)
        if reason
    ]
    if strict and dropped:
        raise InputError(f"{dropped[0]['path']}: {dropped[0]['reason']}; mend it, or data.strict=false to skip it")
    return [sample for sample, reason in zip(samples, reasons, strict=True) if not reason], dropped


def _failures(samples: Sequence[Sample], workers: int) -> list[str | None]:
    """Return why each picture cannot be used, None where it can; `workers` processes read them, or this one if 0."""
    if samples and all(sample.bytes is not None for sample in samples):  # aes_r1.prepare has read them
        return [_change_since_prepare(sample) for sample in samples]
    paths = [sample.image for sample in samples]
    return list(in_workers(_read_failure, paths, workers=workers))


_UNCOMPRESSED = (b"BM", b"P", b"II", b"MM")  # the first bytes of BMP, PPM and its kin, and TIFF


def _change_since_prepare(sample: Sample) -> str | None:
    """Return how a picture has changed since prepare read it; None when it has not.

    The file's size is compared. For formats that may be uncompressed, in which all pictures of the same width and
    height have files of the same size, the SHA-256 is compared too. For other formats it is not, because reading every
    picture takes long.
    """
    try:
        size = os.stat(sample.image).st_size
        if size != sample.bytes:
            return f"{size} bytes, {sample.bytes} when prepare read it"
        with open(sample.image, "rb") as file:
            compressed = not file.read(2).startswith(_UNCOMPRESSED)
        if compressed or sample.sha256 is None or sha256_of(Path(sample.image)) == sample.sha256:
            return None
    except OSError as error:
        return error.strerror
    return "other content of the same size when prepare read it"


def _read_failure(path: str) -> str | None:
    """Return why a picture cannot be read; None when it can."""
    try:
        open_picture(path)
    except PictureError as error:
        return error.reason
    return None
