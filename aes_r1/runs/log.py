"""Log to the terminal and to RUN/run.log."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from aes_r1.runs.folder import RunFolder

log = logging.getLogger("aes_r1")


def configure_logging(folder: Path, rank: int) -> None:
    """Write log messages to the terminal and to the log of the run in `folder`; ranks above 0 only warn."""
    log.handlers.clear()
    log.disabled = False  # Hydra's logging configuration disables existing loggers
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    log.propagate = False
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if rank == 0:
        handlers.append(logging.FileHandler(RunFolder(folder).log_file, encoding="utf-8", errors="backslashreplace"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and lower levels for the block; the same warnings appear again when the data are loaded."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
