"""Jobs of a multirun: each runs in its own process, so a crash cannot stop the others, and all stop with the sweep.

A launcher may run jobs here, in other processes or on other machines. A sweep and its jobs therefore exchange messages
through a folder that all of them see; it is removed when the sweep ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from aes_r1.runs.stopping import StopRequest, stop_requests

_LOOK_S = 0.5  # between looks at whether the sweep was told to stop
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Sweep:
    """The multirun that a point belongs to; `process` is the id of the process that the user started."""

    module: str  # the command
    config_folders: list[str]  # its --config-dir DIR, in two
    schema: type  # of its settings
    folder: Path
    process: int

    def stop(self) -> None:
        """Ask all running points to stop, and start no other."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "stop").touch()

    def stops(self) -> bool:
        """Whether the sweep was told to stop."""
        return (self.folder / "stop").exists()

    def note(self, number: int, end: str, line: str) -> None:
        """Leave the line of point `number`, whose `end` was "failed" or "stopped"."""
        (self.folder / end).mkdir(parents=True, exist_ok=True)
        (self.folder / end / f"{number:05d}").write_text(line)

    def lines(self, end: str) -> list[str]:
        """The lines of the points with this `end`, in their order."""
        return [path.read_text() for path in sorted((self.folder / end).glob("*"))]

    def forget(self) -> None:
        """Remove what the sweep and its points told each other."""
        shutil.rmtree(self.folder, ignore_errors=True)


def point_command(sweep: Sweep, overrides: list[str], out: str, processes: int) -> list[str]:
    """The command line of one point; torchrun starts several processes."""
    launch = ["-m", sweep.module]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *launch]
    return [sys.executable, *launch, *sweep.config_folders, *overrides, f"out={out}", "hydra.mode=RUN"]


def run_point(command: list[str], sweep: Sweep) -> tuple[int, bool]:
    """Run one point to its end: (its exit code, whether it was told to stop).

    It is told by SIGTERM, when the sweep was, when this process was (a launcher's worker gets SIGTERM or SIGUSR1), or
    when the sweep is gone. It then writes its checkpoint, and is waited for.
    """
    parent = os.getppid()

    def orphaned() -> bool:
        return parent == sweep.process != os.getppid()  # a worker of joblib, which its sweep's end does not end

    with _own_requests(sweep) as request:

        def told() -> bool:
            if orphaned():
                sweep.stop()
            return bool(request) or sweep.stops()

        process = subprocess.Popen(command, env=_environment(), preexec_fn=_ends_with_this_process())
        try:
            while not told():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_LOOK_S), False
            process.terminate()
            code = process.wait()
        except BaseException:  # a second Ctrl-C, or a launcher that ends its worker
            process.terminate()
            process.wait()
            raise
    if orphaned():
        os._exit(code)  # it would wait for further points for ever
    return code, True


@contextlib.contextmanager
def _own_requests(sweep: Sweep) -> Iterator[StopRequest]:
    """Stop requests of a launcher's worker; the sweep's own process has its handlers already."""
    if os.getpid() == sweep.process or threading.current_thread() is not threading.main_thread():
        yield StopRequest()
    else:
        with stop_requests() as request:
            yield request


def _environment() -> dict[str, str]:
    """This environment, in which torchrun passes SIGUSR1 on too and kills a process only after time for a checkpoint.

    Its own half minute is less than a step of a large model takes.
    """
    signals = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    return {"PET_SIGNALS_TO_HANDLE": signals, "PET_SHUTDOWN_TIMEOUT": "900", **os.environ}


def _ends_with_this_process() -> Callable[[], object] | None:
    """For preexec_fn: SIGTERM to the point when this process is killed and so can tell it nothing (Linux).

    Linux sends it at the end of the parent's *thread*, so only a main thread may ask for it. Workers have other
    threads too, whose locks a fork copies: between fork and exec nothing happens but this one call.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, int(signal.SIGTERM))
