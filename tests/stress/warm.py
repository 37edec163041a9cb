"""Commands as copies (fork) of a process that has imported their libraries: a start takes milliseconds, not seconds.

A copy is a real process with its own arguments, environment, folder and streams; what it does not show is the import
of the libraries itself.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn


def become(module: str, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> NoReturn:
    """Run `module` as a command in this process, a fresh copy, and leave; its streams go to files in `folder`."""
    code: Any = 0
    try:
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        os.environ.clear()
        os.environ.update(environment)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
        sys.argv = [module, *arguments]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as left:
            code = left.code
    except BaseException:  # as the interpreter does at the end of a process
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


def forked(work: Callable[[], NoReturn]) -> int:
    """The process id of a copy of this process that does `work`."""
    process = os.fork()
    if process == 0:
        work()
    return process
