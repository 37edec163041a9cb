"""Processes that tests start: `Popen` and `run` as in subprocess, for `python -m MODULE` and `python -c CODE`.

They are forks of a server that has already imported what commands import (tests/fork_server.py), which spares each
start about three seconds of processor time. A test of the start itself, of memory or of an environment that Python
reads when it starts uses subprocess.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from tests.fork_server import HEAD
from tests.ports import free_port

ROOT = Path(__file__).parents[1]
TORCHRUN = str(Path(sys.executable).parent / "torchrun")


@functools.cache
def _server() -> str:
    """The address of this test process's server, started on first use."""
    address = str(Path(tempfile.mkdtemp(prefix="aes_r1_fork_")) / "socket")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.fork_server", address],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"tests.fork_server did not start: {process.stderr.read().decode()[-2000:]}")
    atexit.register(process.stdin.close)
    return address


class _Forked(subprocess.Popen):
    """A Popen whose child is forked by the server. It is not a child of this process, so the server tells its end."""

    def _execute_child(self, args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *rest) -> None:
        (_, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, *_) = rest
        python, *arguments = map(os.fsdecode, args)
        assert (python, arguments[0]) in ((sys.executable, "-m"), (sys.executable, "-c")), args
        environment = dict(os.environ if env is None else env)
        request = {"arguments": arguments, "env": environment, "cwd": str(cwd or Path.cwd())}
        body = json.dumps(request).encode()
        self._end = socket.socket(socket.AF_UNIX)
        self._end.connect(_server())
        files = [given if given != -1 else own for own, given in enumerate((p2cread, c2pwrite, errwrite))]
        socket.send_fds(self._end, [HEAD.pack(len(body))], files)
        self._end.sendall(body)
        self.pid = HEAD.unpack(self._end.recv(HEAD.size, socket.MSG_WAITALL))[0]
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)

    def _try_wait(self, wait_flags: int) -> tuple[int, int]:
        if wait_flags & os.WNOHANG and not select.select([self._end], [], [], 0)[0]:
            return 0, 0
        status = HEAD.unpack(self._end.recv(HEAD.size, socket.MSG_WAITALL))[0]
        self._end.close()
        return self.pid, status

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None:
            with self._waitpid_lock:
                if self.returncode is None and (found := self._try_wait(os.WNOHANG))[0] == self.pid:
                    self._handle_exitstatus(found[1])
        return self.returncode


# A fork of a process that has initialised CUDA cannot use it, and DeepSpeed was told that there is none.
Popen = subprocess.Popen if torch.cuda.is_available() else _Forked


def run(
    args: Sequence[str],
    *,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **named: Any,
) -> subprocess.CompletedProcess:
    """Do what subprocess.run does."""
    if capture_output:
        named |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(args, **named) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def start_job(*command: str, count: int = 2, **environment: str) -> list[subprocess.Popen]:
    """Start `python -m COMMAND` `count` times as one job, directly, as Slurm does; what they say is one text each."""
    port = str(free_port())
    return [
        Popen(
            [sys.executable, "-m", *command],
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]  # fmt: skip


def run_job(*command: str, count: int = 2, timeout: float = 900, **environment: str) -> None:
    """Run `start_job` to its end; what its processes said is shown where one of them fails or hangs."""
    started = start_job(*command, count=count, **environment)
    try:
        said = [process.communicate(timeout=timeout)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert all(process.returncode == 0 for process in started), "\n".join(text[-4000:] for text in said)


def wait_for(
    process: subprocess.Popen, seen: Callable[[], bool], *, said: Path | None = None, every: float = 0.01
) -> None:
    """Wait until `seen()`, which is asked `every` so many seconds.

    AssertionError with what the process said (in the file `said`, or in its pipes) if it ends first, or after 500 s.
    """
    deadline = time.monotonic() + 500
    while not seen():
        if process.poll() is not None:
            raise AssertionError(said.read_text() if said is not None else process.communicate())
        if time.monotonic() > deadline:
            raise AssertionError("never seen")
        time.sleep(every)
