"""Run a command so that it and everything that it starts end with this process, however this process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

TERMINATION_S = 10.0  # seconds to wait after SIGTERM, and again after SIGKILL


class ProcessGroup:
    """Run a command in a process group of its own; leaving the block ends every process of the group.

    A second small process, the guard, waits for the end of this process and then ends the group. So the group ends even
    if this process is ended by SIGKILL.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )
        self._guard = self._start_guard()

    def _start_guard(self) -> subprocess.Popen:
        # `read` returns when the pipe's other end, which this process alone holds, is closed.
        script = f"read -r _; kill -KILL -{self._process.pid}"
        return subprocess.Popen(["sh", "-c", script], stdin=subprocess.PIPE, start_new_session=True)

    @property
    def pid(self) -> int:
        """Return the process id of the command, which is also the id of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the command's exit code, or minus the number of the signal that ended it; None while it runs."""
        if self._guard.poll() is not None and self._process.poll() is None:
            self._guard = self._start_guard()
        return self._process.poll()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, patience in ((signal.SIGTERM, TERMINATION_S), (signal.SIGKILL, TERMINATION_S)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            until = time.monotonic() + patience
            while _is_running(self.pid, self._process) and time.monotonic() < until:
                time.sleep(0.05)
        self._guard.kill()
        self._guard.wait()


def _is_running(group: int, leader: subprocess.Popen) -> bool:
    """Return whether a process of the group still runs; the leader is reaped, because a zombie would count."""
    leader.poll()
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
