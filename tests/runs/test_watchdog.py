"""A process that fails in any way ends the job within a minute, under any launcher, and the error names it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ports import free_port

BIN = Path(sys.executable).parent
JOBS = [
    ("torchrun", "raise"),
    ("torchrun", "killed"),
    ("torchrun", "frozen"),
    ("torchrun", "stuck"),
    ("deepspeed", "killed"),
]
CAUSE = {
    "raise": "rank 1: ValueError: a picture has no colours",
    "killed": "rank 1: no sign of life",
    "frozen": "rank 1: no sign of life",
    "stuck": "rank 0: RuntimeError",  # the process that waited; a hanging process cannot be identified
}


class Ended(NamedTuple):
    """How a job went: its exit code, its folder, and when its launcher was seen to have ended, seconds since 1970."""

    code: int
    folder: Path
    at: float


def launcher(name: str) -> list[str]:
    port = str(free_port())
    if name == "torchrun":
        return [str(BIN / "torchrun"), "--nproc-per-node=2", f"--master-port={port}", "-m"]
    return [str(BIN / "deepspeed"), "--no_local_rank", "--num_gpus=2", f"--master_port={port}", "--module"]


@pytest.fixture(scope="module")
def ended(tmp_path_factory) -> dict[tuple[str, str], Ended]:
    """All jobs, run side by side: most of the time they wait for a sign of life."""
    started = {}
    for name, how in JOBS:
        folder = tmp_path_factory.mktemp(f"{name}_{how}")
        with (folder / "said").open("w") as said:
            command = [*launcher(name), "tests.runs.watched", str(folder), how]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
            started[name, how] = folder, subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    found: dict[tuple[str, str], Ended] = {}
    deadline = time.monotonic() + 500
    try:
        while len(found) < len(started) and time.monotonic() < deadline:
            for job, (folder, process) in started.items():
                if job not in found and process.poll() is not None:
                    found[job] = Ended(process.returncode, folder, time.time())
            time.sleep(0.1)
    finally:
        for _, process in started.values():
            process.kill()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "how"), JOBS)
def test_the_job_ends_with_the_rank_and_cause_named(name, how, ended):
    job = ended[name, how]
    said = (job.folder / "said").read_text()
    assert job.code not in (0, 75), said
    assert (job.folder / "failure.txt").read_text().startswith(CAUSE[how]), said
    assert CAUSE[how] in said
    failed = (job.folder / "fails").stat().st_mtime
    assert (job.folder / "failure.txt").stat().st_mtime - failed < 60
    assert job.at - failed < 90, "the processes, and the launcher after them"


@pytest.mark.slow
def test_processes_that_torchrun_starts_again_begin_anew(tmp_path):
    """The second start knows neither the failure nor the barriers of the first."""
    command = [*launcher("torchrun")[:-1], "--max-restarts=1", "-m", "tests.runs.restarted", str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.1", "1.1", "second_came"], done.stderr
    (first_came, _), (_, second_left) = (map(float, (tmp_path / name).read_text().split()) for name in ("0.1", "1.1"))
    assert second_left > first_came, "the second process waited for the first"
