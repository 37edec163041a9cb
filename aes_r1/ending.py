"""End a command with an exit code and, where an error ended it, with one line on stderr.

Exit codes: 0 done; 2 the user's input is wrong; 75 stopped by a scheduler's signal after a checkpoint; 1 anything else.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from aes_r1 import hydra_messages
from aes_r1.aescot.failures import ServerGone
from aes_r1.config_faults import fault_in_config_file
from aes_r1.points import REASON
from aes_r1.rollout.failures import ServersGone
from aes_r1.runs.ray_cluster import RayFailed
from aes_r1.runs.stopping import Stopped
from aes_r1.settings import CONF, InputError, Settings, printable
from aes_r1.trainer.skipped import NeverFinite

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# {errno: the way out} of the errors that come from the place which the user named for an output.
CANNOT_WRITE = {
    **dict.fromkeys(_NO_ROOM, "give another place or make room"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "give another place, or the right to write there"),
    errno.EEXIST: "give another name, or move what is there",
    errno.ENOTEMPTY: "give another name, or move what is there",
    errno.EISDIR: "give the name of a file",
    errno.ENOTDIR: "give a place whose parts are folders",
    errno.ELOOP: "give a place without links to itself",
    errno.ENAMETOOLONG: "give a shorter one",
}


def of_error(error: BaseException, schema: type | None = None) -> tuple[int, str] | None:
    """Return the exit code and the line with which an error ends a command; None for an error of the code itself.

    schema: the settings class of a command that Hydra composes; None for other commands.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    match error:
        case InputError():
            return 2, str(error)
        case HydraException() | OmegaConfBaseException():
            return 2, one_line(error, schema or Settings)
        case Stopped():
            return 75 if error.requeue else 1, str(error)
        case NeverFinite() | RayFailed() | ServerGone() | ServersGone():
            return 1, str(error)
        case OSError() if error.errno in CANNOT_WRITE:
            place = error.filename2 or error.filename or "disk"  # filename2 is the file to replace
            return 2, f"{place}: {error.strerror}; {CANNOT_WRITE[error.errno]}"
        case KeyboardInterrupt():
            return interrupted(schema)
    fault = fault_in_config_file(error)
    return None if fault is None else (2, fault)


def one_line(error: BaseException, schema: type) -> str:
    """Return Hydra's message in one line without its help text; where Hydra wraps an InputError, that one's message."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, InputError):
            return str(cause)
        cause = cause.__cause__ or cause.__context__
    message = str(error).split("Config search path")[0]  # Hydra's search path does not help
    explanation = hydra_messages.explain(message, schema, CONF)
    if explanation is not None:
        return explanation
    lines = ", ".join(line.strip() for line in message.splitlines() if line.strip())
    cause = error.__cause__ or error.__context__
    return lines or (one_line(cause, schema) if cause is not None else type(error).__name__)


def exit_with(code: int, message: str) -> NoReturn:
    """End the process with one line on stderr. A point of a sweep also writes the line to its reason_file."""
    message = printable(message)  # an OSError holds the name of a file as it is
    print(f"aes_r1: {message}", file=sys.stderr)
    if REASON in os.environ:
        with suppress(OSError):  # the sweep may have ended before its point
            Path(os.environ[REASON]).write_text(message, encoding="utf-8")
    sys.exit(code)


def interrupted(schema: type | None = None) -> tuple[int, str]:
    """Return the exit code and the line of a command that Ctrl-C ended."""
    ignore_interrupts()
    goes_on = "; the same command goes on from the last checkpoint" if schema is Settings else ""
    return 1, f"interrupted{goes_on}"


def ignore_interrupts() -> None:
    """Ignore further Ctrl-C, because all that the command still does is to say how it ended."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def quiet_end() -> int:
    """Discard what is still printed, because the reader of stdout (say `head`) has closed it; return the exit code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
