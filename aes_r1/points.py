"""Run the jobs of a multirun, each in its own process: a crash cannot stop other jobs, and all stop with the sweep.

A job is called a point where it stands for a point of the sweep's grid. A launcher may run jobs here, in other
processes or on other machines, so a sweep and its jobs exchange messages through a folder that all of them see. The
folder is removed when the sweep ends.
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
from typing import Any

from aes_r1.quoting import as_text
from aes_r1.runs.files import read_json, write_json
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import differences
from aes_r1.runs.stopping import StopRequest, stop_requests
from aes_r1.settings import EvaluateSettings, InputError, Settings, as_dict
from aes_r1.tracking.headline import headline, headline_origin

PLAN = "plan.json"
REASON = "AES_R1_REASON"  # the environment variable that names a point's reason_file
NOT_PASSED_ON = ("WANDB_RUN_ID",)  # variables with which all points would write into one W&B run
_POLL_S = 0.5  # interval at which a job checks whether the sweep was asked to stop
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Sweep:
    """The multirun that a point belongs to; `process` is the id of the process that the user started."""

    module: str  # of the command
    sources: list[str]  # what overrides.sources finds in the command line: the recipe that the overrides change
    schema: type  # the dataclass of its settings
    folder: Path
    process: int

    def stop(self) -> None:
        """Ask all running points to stop, and prevent others from starting."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "stop").touch()

    def stops(self) -> bool:
        """Return whether the sweep was asked to stop."""
        return (self.folder / "stop").exists()

    def record(self, number: int, event: str, values: dict[str, Any]) -> None:
        """Record an event of point `number`, its "start" or its "end"."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / f"{number:05d}.{event}.json", values)

    def records(self, event: str) -> dict[int, dict[str, Any]]:
        """Return {number: recorded values} of the points, in their order."""
        return {int(path.name[:5]): read_json(path) for path in sorted(self.folder.glob(f"*.{event}.json"))}

    def reason_file(self, number: int) -> Path:
        """Return the file in which the process of point `number` leaves the line that it ends with."""
        return self.folder / f"{number:05d}.reason"

    @property
    def plan(self) -> dict[str, Any]:
        """What aes_r1.announce wrote before the first point: how many there are, and which keys differ."""
        path = self.folder / PLAN
        return read_json(path) if path.exists() else {}

    def delete_folder(self) -> None:
        """Delete the folder of messages."""
        shutil.rmtree(self.folder, ignore_errors=True)


def point_command(sweep: Sweep, overrides: list[str], out: str, processes: int) -> list[str]:
    """Return the command line of one point, in which `out` replaces the sweep's; torchrun starts several processes."""
    launch = ["-m", sweep.module]
    if processes > 1:
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *launch]
    out_override = as_text("out", out)
    if not out_override:
        raise InputError(f"out={out}: Hydra cannot read this name; give another out=")
    kept_overrides = [override for override in overrides if override.partition("=")[0].lstrip("+") != "out"]
    return [sys.executable, *launch, *sweep.sources, *kept_overrides, out_override, "hydra.mode=RUN"]


def run_point(command: list[str], sweep: Sweep, number: int) -> tuple[int, bool]:
    """Run point `number` to its end; return (its exit code, whether it was asked to stop).

    The point gets SIGTERM when the sweep is asked to stop, when this process is (a launcher's worker gets SIGTERM or
    SIGUSR1), or when the sweep's process has ended. It then writes a checkpoint, for which this function waits.
    """
    parent = os.getppid()

    def orphaned() -> bool:
        return parent == sweep.process != os.getppid()  # a worker of joblib, which survives the end of its sweep

    with _worker_requests(sweep) as request:

        def stopping() -> bool:
            if orphaned():
                sweep.stop()
            return bool(request) or sweep.stops()

        environment = {**_environment(), REASON: str(sweep.reason_file(number))}
        process = subprocess.Popen(command, env=environment, preexec_fn=_terminate_with_parent())
        try:
            while not stopping():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return process.wait(_POLL_S), False
            process.terminate()
            code = process.wait()
        except BaseException:  # a second Ctrl-C, or a launcher that ends its worker
            process.terminate()
            process.wait()
            raise
    if orphaned():
        os._exit(code)  # the worker would wait for further points forever
    return code, True


@contextlib.contextmanager
def _worker_requests(sweep: Sweep) -> Iterator[StopRequest]:
    """Handle stop signals in a launcher's worker; the sweep's own process has its handlers already."""
    if os.getpid() == sweep.process or threading.current_thread() is not threading.main_thread():
        yield StopRequest()
    else:
        with stop_requests() as request:
            yield request


def _environment() -> dict[str, str]:
    """Return the environment of a point: this process's, with settings of torchrun and without NOT_PASSED_ON.

    Torchrun passes SIGUSR1 on, and waits 15 minutes for a checkpoint before it kills a process. Its default of half a
    minute is shorter than a step of a large model.
    """
    signals = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
    passed_on = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    return {"PET_SIGNALS_TO_HANDLE": signals, "PET_SHUTDOWN_TIMEOUT": "900", **passed_on}


def _terminate_with_parent() -> Callable[[], object] | None:
    """Return a preexec_fn by which the point gets SIGTERM when this process is killed; None where that is impossible.

    Linux sends it at the end of the parent's *thread*, so only a main thread may request it. Workers have further
    threads, whose locks a fork copies, so this one call is all that happens between fork and exec.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, int(signal.SIGTERM))


def is_done(folder: Path, settings: Any) -> bool:
    """Return whether the folder of a job holds its finished run; InputError where that run used other files."""
    run = RunFolder(folder)
    if not isinstance(settings, Settings | EvaluateSettings) or run.state != "done":
        return False
    if differences(run.settings, as_dict(settings)):
        return False
    if isinstance(settings, Settings):
        from aes_r1.pipeline.label_digests import require_same_labels
        from aes_r1.pipeline.origin import require_same_files

        if settings.trainer.resume == "never":
            return False
        require_same_files(run, settings)
        require_same_labels(run, settings)
    else:
        from aes_r1.pipeline.evaluated_content import require_same_content  # imports torch, for seconds

        require_same_content(run, settings)
    return True


def headline_of(folder: Path) -> dict[str, Any]:
    """Return the run's headline `srcc`, which W&B has as headline/srcc, and what it was `measured_on`; {} if none."""
    run = RunFolder(folder)
    values = headline(run.evaluation, run.last_stage)
    if "srcc" not in values:
        return {}
    return {"srcc": values["srcc"], "measured_on": headline_origin(run.evaluation, run.last_stage)}
