"""Several real processes of a job, and several jobs, act together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.test_watch import free_port


def processes(*command: str, count: int = 2) -> list[subprocess.Popen]:
    """`python -m COMMAND` started `count` times as one job, directly, as Slurm does."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, "-m", *command],
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]  # fmt: skip


def codes(started: list[subprocess.Popen], *, seconds: float) -> list[int]:
    """Exit codes of all; whatever still runs after `seconds` is ended, and then said to hang."""
    try:
        said = [process.communicate(timeout=seconds)[0] for process in started]
    except subprocess.TimeoutExpired:
        pytest.fail("a process hangs")
    finally:
        for process in started:
            process.kill()
    print("\n".join(said))
    return [process.returncode for process in started]


@pytest.mark.slow
def test_two_jobs_share_what_one_of_them_makes(tmp_path):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = processes("tests.trainer.together", str(tmp_path), "first", "second")
    second = processes("tests.trainer.together", str(tmp_path), "second", "first")
    assert codes([*first, *second], seconds=120) == [0, 0, 0, 0]
    made = {path.name: path.read_text() for path in Path(tmp_path, "things", "abc").iterdir()}
    assert made == {"0.txt": "first of 2", "1.txt": "first of 2"}
