"""Commands as copies (fork) of a process that has imported their libraries: a start takes milliseconds, not seconds.

A copy is a real process with its own arguments, environment, folder and streams; what it does not show is the import
of the libraries itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn


class Warm:
    """A process with `modules` imported, which starts commands one after another."""

    def __init__(self, *modules: str) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.warm", *modules], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(self, module: str, *arguments: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run `python -m module arguments` to its end."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            asked = {"module": module, "arguments": arguments, "environment": dict(environment), "folder": folder}
            self._server.stdin.write(json.dumps(asked) + "\n")
            self._server.stdin.flush()
            code = int(self._server.stdout.readline())
            said = [(Path(folder) / name).read_text(errors="replace") for name in ("stdout", "stderr")]
        return subprocess.CompletedProcess([module, *arguments], code, *said)

    def close(self) -> None:
        self._server.kill()
        self._server.communicate()


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


def main() -> None:
    for module in sys.argv[1:]:
        importlib.import_module(module)
    for line in sys.stdin:
        asked = json.loads(line)
        process = forked(
            lambda: become(asked["module"], asked["arguments"], Path(asked["folder"]), asked["environment"])  # noqa: B023
        )
        print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
