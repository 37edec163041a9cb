"""Print what a multirun does: the start and the end of each point (job), and a table of all points at its end.

Workers of a launcher may print into files or not at all. So that the output is the same under every launcher, workers
record events in the sweep's folder (aes_r1/points.py), and the process that the user started prints them.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from aes_r1.points import NOT_PASSED_ON, PLAN, Sweep
from aes_r1.runs.files import write_json
from aes_r1.runs.progress import clock

FOLDER = "AES_R1_POINTS"  # the environment variable that names the sweep's folder; conf/config.yaml reads it
_POLL_S = 0.3  # interval at which new records are looked for
_MAX_NAMED = 6  # folders in the line with the next command


class Announcement(Callback):
    """Hydra's callback that counts the points of a multirun before the first one starts."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Record how many points there are, which keys differ, and where the launcher keeps its logs."""
        if self.folder is None:
            return
        for name in sorted(set(NOT_PASSED_ON) & set(os.environ)):
            value = os.environ[name]
            print(f"{name}={value}: not passed on, because every point is a W&B run of its own", file=sys.stderr)
        sweeper, launcher = config.hydra.sweeper, config.hydra.launcher
        params: Any = OmegaConf.to_container(sweeper.get("params") or OmegaConf.create({}))
        arguments = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        override_of_key = {
            override.get_key_element(): override for override in OverridesParser.create().parse_overrides(arguments)
        }
        swept = {key: override for key, override in override_of_key.items() if override.is_sweep_override()}
        is_countable = sweeper._target_.endswith("BasicSweeper") and all(
            override.is_discrete_sweep() for override in swept.values()
        )
        total = (
            math.prod(len(list(override.sweep_string_iterator())) for override in swept.values())
            if is_countable
            else None
        )
        logs = launcher.get("submitit_folder")
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(self.folder) / PLAN, {"total": total, "keys": list(swept), "logs": logs})


def point_name(sweep: Sweep, overrides: list[str]) -> str:
    """Return the overrides in which the points of the sweep differ."""
    keys = sweep.plan.get("keys") or []
    return " ".join(override for override in overrides if override.partition("=")[0] in keys) or " ".join(overrides)


@contextmanager
def speaking(sweep: Sweep) -> Iterator[None]:
    """Print the events that points record while the block runs, and the remaining ones at its end."""
    printed: set[Path] = set()
    has_ended = threading.Event()
    since = time.time()

    def print_events() -> None:
        while not has_ended.wait(_POLL_S):
            _print_new(sweep, printed, since)

    printer = threading.Thread(target=print_events, daemon=True)
    printer.start()
    try:
        yield
    finally:
        has_ended.set()
        printer.join()
        _print_new(sweep, printed, since)


def started(sweep: Sweep, number: int, name: str, out: Path) -> None:
    """Announce that a point starts, with its job and its log where a scheduler runs it."""
    _print_or_record(sweep, number, "start", {"line": f"{_position(sweep, number)} {name}: starts, {out}{_job()}"})


def ended(sweep: Sweep, number: int, name: str, out: Path, *, end: str, since: float, **values: Any) -> None:
    """Announce the end of a point.

    end: "done", "done before", "stopped" or "failed"; since: time.time() at its start; values: its `srcc` and what that
    was `measured_on`, or the `reason` of a failure.
    """
    duration = "" if end == "done before" else f" after {clock(time.time() - since)}"
    srcc = f", SRCC {values['srcc']:.3f} ({values['measured_on']})" if "srcc" in values else ""
    reason = f": {values['reason']}" if values.get("reason") else f", {out}"
    line = f"{_position(sweep, number)} {name}: {end}{duration}{srcc}{reason}"
    _print_or_record(sweep, number, "end", {"line": line, "name": name, "out": str(out), "end": end, **values})


def _position(sweep: Sweep, number: int) -> str:
    total = sweep.plan.get("total")
    return f"[{number + 1}/{total}]" if total else f"[{number + 1}]"


def _job() -> str:
    """Return the job and the log of a worker that submitit started."""
    try:
        from submitit import JobEnvironment

        job = JobEnvironment()
    except (ImportError, RuntimeError):  # a RuntimeError means that submitit did not start this process
        return ""
    return f", job {job.job_id}, log {job.paths.stderr}"


def _print_or_record(sweep: Sweep, number: int, event: str, values: dict[str, Any]) -> None:
    """Record an event; print it at once in the user's process, so that it precedes what the point prints."""
    is_users_process = os.getpid() == sweep.process
    if is_users_process:
        print(values["line"], file=sys.stderr, flush=True)
    sweep.record(number, event, {**values, "printed": is_users_process})


def _print_new(sweep: Sweep, printed: set[Path], since: float) -> None:
    """Print what is not in `printed` yet: jobs that submitit has handed over, and events that workers recorded."""
    for path in sorted(_submitted(sweep, since) - printed):
        printed.add(path)
        job = path.name.removesuffix("_submitted.pkl")
        print(f"submitted: job {job}, log {path.with_name(f'{job}_0_log.err')}", file=sys.stderr, flush=True)
    for event in ("start", "end"):
        for number, values in sweep.records(event).items():
            mark = Path(f"{number}.{event}")
            is_new = mark not in printed
            printed.add(mark)
            if is_new and not values["printed"]:
                print(values["line"], file=sys.stderr, flush=True)


def _submitted(sweep: Sweep, since: float) -> set[Path]:
    """Return the files that submitit writes for every job of this sweep when it hands it to the scheduler."""
    logs = sweep.plan.get("logs")
    if not logs:
        return set()
    root = Path(logs.partition("%")[0])
    return {path for path in root.rglob("*_submitted.pkl") if path.stat().st_mtime >= since}


def failures(sweep: Sweep) -> list[str]:
    """Return a line for every point that failed, with the reason."""
    return [
        f"{end['name']} ({end['reason'] or end['out']})"
        for end in sweep.records("end").values()
        if end["end"] == "failed"
    ]


def stops(sweep: Sweep) -> list[str]:
    """Return a line for every point that was stopped."""
    stopped = [end for end in sweep.records("end").values() if end["end"] == "stopped"]
    return [f"{end['name']} ({end['out']})" if Path(end["out"]).exists() else end["name"] for end in stopped]


def close(sweep: Sweep, study: str | None) -> None:
    """Print the table of the points, and the next command; study: NAME of sweeps/NAME.yaml if one was run."""
    ends = sweep.records("end")
    if not ends and not sweep.records("start"):
        return
    table = Table("", "point", "state", "SRCC", "measured on", "folder", box=None, pad_edge=False)
    for number, end in sorted(ends.items()):
        srcc = f"{end['srcc']:.3f}" if "srcc" in end else ""
        folder = end["out"] if Path(end["out"]).exists() else ""
        table.add_row(str(number + 1), end["name"], end["end"], srcc, end.get("measured_on", ""), folder)
    total = sweep.plan.get("total")
    Console(width=None if Console().is_terminal else 160, markup=False, emoji=False).print(table)
    done = [end["out"] for end in ends.values() if end["end"].startswith("done")]
    if total and len(done) < total:
        print(f"{total - len(done)} of {total} points are not done; the same command runs what is missing")
    if study and done and Path("experiments", study, "analyse.py").exists():
        print(f"next: python -m experiments.{study}.analyse")
    elif len(done) > 1:
        more = "" if len(done) <= _MAX_NAMED else " .."
        print(f"next: aes-r1 report {shlex.join(done[:_MAX_NAMED])}{more}")
    elif done:
        print(f"next: aes-r1 report {shlex.quote(done[0])}")
