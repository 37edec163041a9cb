"""Say what a multirun does, alike under every launcher: each point at its start and its end, and a table at the close.

A launcher's workers may print into files or not at all. So they write down what happens in the sweep's folder
(aes_r1/points.py), and the process that the user started says it.
"""

from __future__ import annotations

import math
import os
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

from aes_r1.points import PLAN, Sweep
from aes_r1.runs.files import write_json

FOLDER = "AES_R1_POINTS"  # the environment variable that names the sweep's folder; conf/config.yaml reads it
_LOOK_S = 0.3  # interval at which new records are looked for
_MOST_NAMED = 6  # folders in the line that says what to do next


class Announcement(Callback):
    """Hydra's callback that counts the points of a multirun before the first one starts."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Write down how many points there are, which keys differ, and where the launcher keeps its logs."""
        if self.folder is None:
            return
        sweeper, launcher = config.hydra.sweeper, config.hydra.launcher
        params: Any = OmegaConf.to_container(sweeper.get("params") or OmegaConf.create({}))
        given = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
        parsed = {one.get_key_element(): one for one in OverridesParser.create().parse_overrides(given)}
        swept = {key: one for key, one in parsed.items() if one.is_sweep_override()}
        counted = sweeper._target_.endswith("BasicSweeper") and all(one.is_discrete_sweep() for one in swept.values())
        total = math.prod(len(list(one.sweep_string_iterator())) for one in swept.values()) if counted else None
        logs = launcher.get("submitit_folder")
        Path(self.folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(self.folder) / PLAN, {"total": total, "keys": list(swept), "logs": logs})


def point_name(sweep: Sweep, overrides: list[str]) -> str:
    """Return the overrides in which the points of the sweep differ."""
    keys = sweep.plan.get("keys") or []
    return " ".join(one for one in overrides if one.partition("=")[0] in keys) or " ".join(overrides)


@contextmanager
def speaking(sweep: Sweep) -> Iterator[None]:
    """Say what the points write down while the block runs, and what is left at its end."""
    said: set[Path] = set()
    ended = threading.Event()
    before = time.time()

    def listen() -> None:
        while not ended.wait(_LOOK_S):
            _say_new(sweep, said, before)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()
        _say_new(sweep, said, before)


def started(sweep: Sweep, number: int, name: str, out: Path) -> None:
    """Say that a point starts, with its job and its log where a scheduler runs it."""
    said = {"line": f"{_place(sweep, number)} {name}: starts, {out}{_job()}"}
    _say_or_leave(sweep, number, "start", said)


def ended(sweep: Sweep, number: int, name: str, out: Path, *, end: str, since: float, **found: Any) -> None:
    """Say how a point ended: "done", "done before", "stopped" or "failed"; found: its `srcc`, or the `reason`."""
    seconds = time.time() - since
    after = "" if end == "done before" else f" after {seconds // 60:.0f}:{seconds % 60:02.0f}"
    srcc = "" if found.get("srcc") is None else f", SRCC {found['srcc']:.3f}"
    reason = f": {found['reason']}" if found.get("reason") else f", {out}"
    said = {"line": f"{_place(sweep, number)} {name}: {end}{after}{srcc}{reason}"}
    _say_or_leave(sweep, number, "end", {**said, "name": name, "out": str(out), "end": end, **found})


def _place(sweep: Sweep, number: int) -> str:
    total = sweep.plan.get("total")
    return f"[{number + 1}/{total}]" if total else f"[{number + 1}]"


def _job() -> str:
    """Return the job and the log of a worker that submitit started."""
    try:
        from submitit import JobEnvironment

        job = JobEnvironment()
    except (ImportError, RuntimeError):  # RuntimeError: this is no job of submitit
        return ""
    return f", job {job.job_id}, log {job.paths.stderr}"


def _say_or_leave(sweep: Sweep, number: int, event: str, values: dict[str, Any]) -> None:
    """Say it here where the user reads, so that it stands before what the point says; else leave it to `speaking`."""
    here = os.getpid() == sweep.process
    if here:
        print(values["line"], file=sys.stderr, flush=True)
    sweep.record(number, event, {**values, "said": here})


def _say_new(sweep: Sweep, said: set[Path], since: float) -> None:
    """Say what was written down since the last look: jobs that submitit has handed over, starts and ends."""
    for path in sorted(_submitted(sweep, since) - said):
        said.add(path)
        job = path.name.removesuffix("_submitted.pkl")
        print(f"submitted: job {job}, log {path.with_name(f'{job}_0_log.err')}", file=sys.stderr, flush=True)
    for event in ("start", "end"):
        for number, values in sweep.records(event).items():
            mark = Path(f"{number}.{event}")
            if mark not in said:
                said.add(mark)
                if not values["said"]:
                    print(values["line"], file=sys.stderr, flush=True)


def _submitted(sweep: Sweep, since: float) -> set[Path]:
    """Return the files that submitit writes for every job of this sweep when it hands it to the scheduler."""
    logs = sweep.plan.get("logs")
    if not logs:
        return set()
    above = Path(logs.partition("%")[0])
    return {path for path in above.rglob("*_submitted.pkl") if path.stat().st_mtime >= since}


def failures(sweep: Sweep) -> list[str]:
    """Return a line for every point that failed, with the reason."""
    return [
        f"{one['name']} ({one['reason'] or one['out']})"
        for one in sweep.records("end").values()
        if one["end"] == "failed"
    ]


def stops(sweep: Sweep) -> list[str]:
    """Return a line for every point that was stopped."""
    return [f"{one['name']} ({one['out']})" for one in sweep.records("end").values() if one["end"] == "stopped"]


def close(sweep: Sweep, study: str | None) -> None:
    """Print the table of the points, and the next command; `study` is the file of conf/sweeps that was run."""
    starts, ends = sweep.records("start"), sweep.records("end")
    if not ends and not starts:
        return
    table = Table("", "point", "state", "SRCC", "folder", box=None, pad_edge=False)
    for number in sorted({*starts, *ends}):
        one = ends.get(number)
        if one is not None:
            srcc = "" if one.get("srcc") is None else f"{one['srcc']:.3f}"
            table.add_row(
                str(number + 1), one["name"], one["end"], srcc, one["out"] if Path(one["out"]).exists() else ""
            )
    total = sweep.plan.get("total")
    Console(width=None if Console().is_terminal else 160).print(table)
    if total and len(ends) < total:
        print(f"{total - len(ends)} of {total} points did not end; the same command runs what is missing")
    done = [one["out"] for one in ends.values() if one["end"].startswith("done")]
    if study and Path("experiments", study, "analyse.py").exists():
        print(f"next: python -m experiments.{study}.analyse")
    elif len(done) > 1:
        more = "" if len(done) <= _MOST_NAMED else " .."
        print(f"next: aes-r1 report {' '.join(done[:_MOST_NAMED])}{more}")
    elif done:
        print(f"next: aes-r1 report {done[0]}")
