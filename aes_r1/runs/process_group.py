"""A command and everything that it starts, as one: it all ends with this process, however this process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

TERMINATION_S = 10.0  # between the wish to end and the end by force


class ProcessGroup:
    """A command in a process group of its own, which leaving the block ends, whoever of it still lives.

    A second, tiny process waits for the end of this one, SIGKILL included, and then ends the group in its place.
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
        """Process id of the command, and id of its group."""
        return self._process.pid

    def poll(self) -> int | None:
        """Return the command's exit code (minus the signal that ended it), None while it runs."""
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
            while _lives(self.pid, self._process) and time.monotonic() < until:
                time.sleep(0.05)
        self._guard.kill()
        self._guard.wait()


def _lives(group: int, leader: subprocess.Popen) -> bool:
    """Return whether a process of the group still runs; reaps its leader, which would count while it is a zombie."""
    leader.poll()
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
