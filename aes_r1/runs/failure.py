"""Write the one-line reason of a failure to RUN/failure.txt, whichever process of the run fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aes_r1.runs.folder import RunFolder
from aes_r1.runs.stopping import Stopped
from aes_r1.runs.watchdog import Heartbeat
from aes_r1.settings import printable

log = logging.getLogger("aes_r1")


@contextmanager
def failure_file(folder: Path, rank: int, watch: Heartbeat | None = None) -> Iterator[None]:
    """Write the one-line reason of a failure in the block to RUN/failure.txt; a new start deletes an old one.

    Of several processes the first to fail writes its reason; for one that vanished another one writes that it is gone.
    Without connected processes (`watch` is None) only rank 0 writes: it alone knows whether the folder is this run's.
    """
    path = RunFolder(folder).failure_file
    if rank == 0:
        path.unlink(missing_ok=True)
    try:
        yield
    except Stopped:
        raise  # a requested stop is no failure
    except BaseException as error:
        reason = f"rank {rank}: {_cause(error)}"
        if watch is not None:
            reason = watch.cause(error) or reason
            watch.failed(reason)
            log.error("rank %d leaves because of %s", rank, reason)
        if rank == 0 or watch is not None:
            _write_failure(path, reason)
        raise
    finally:
        if watch is not None:
            watch.end()


def _cause(error: BaseException) -> str:
    """Return type and first line of `error`, or of the nearest error in its chain that has a message.

    SystemExit may hold a code in place of a message, and some errors have none; the error that caused them says more.
    """
    link: BaseException | None = error
    while link is not None:
        code = isinstance(link, SystemExit) and not isinstance(link.code, str)
        lines = "" if code else str(link).strip().splitlines()
        if lines:
            return f"{type(link).__name__}: {printable(lines[0])}"
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return f"{type(error).__name__}: ended without a message; see {RunFolder('').log_file.name}"


def start_heartbeat(folder: Path, rank: int, size: int) -> Heartbeat:
    """Monitor the processes that a launcher started; a failure of any of them is written to RUN/failure.txt."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    path = RunFolder(folder).failure_file
    return Heartbeat(rank, size, host, port, lambda reason: _write_failure(path, reason))


def _write_failure(path: Path, reason: str) -> None:
    """Write `reason` unless the file exists: later failures are consequences of the first."""
    with suppress(OSError), path.open("x", encoding="utf-8") as file:
        file.write(reason + "\n")
