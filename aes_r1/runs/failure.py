"""The one-line reason of a failure in RUN/failure.txt, whichever process of the run it is that fails."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aes_r1.runs.folder import RunFolder
from aes_r1.runs.stopping import Stopped
from aes_r1.runs.watchdog import Heartbeat

log = logging.getLogger("aes_r1")


@contextmanager
def failure_file(folder: Path, rank: int, watch: Heartbeat | None = None) -> Iterator[None]:
    """Leave the one-line reason of a failure in the block in RUN/failure.txt; a new start takes an old one away.

    Of several processes the first to fail says it, or names the one that went without a word.
    """
    path = RunFolder(folder).failure_file
    if rank == 0:
        path.unlink(missing_ok=True)
    try:
        yield
    except Stopped:
        raise  # asked for, and nothing is lost
    except BaseException as error:
        lines = str(error).splitlines()
        reason = f"rank {rank}: {type(error).__name__}: {lines[0] if lines else ''}"
        if watch is not None:
            reason = watch.cause(error) or reason
            watch.failed(reason)
            log.error("rank %d leaves because of %s", rank, reason)
        _write_failure(path, reason)
        raise
    finally:
        if watch is not None:
            watch.end()


def start_heartbeat(folder: Path, rank: int, size: int) -> Heartbeat:
    """Watch over the processes that a launcher started; a failure of any is written into the run's folder."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    path = RunFolder(folder).failure_file
    return Heartbeat(rank, size, host, port, lambda reason: _write_failure(path, reason))


def _write_failure(path: Path, reason: str) -> None:
    """Write `reason` unless there is one: what fails later fails because of the first."""
    with suppress(OSError), path.open("x") as file:
        file.write(reason + "\n")
