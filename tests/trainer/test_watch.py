"""A process that fails ends the job within a minute, named with its cause, whatever launched it and however it went."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
CAUSE = {
    "raise": "rank 1: ValueError: a picture has no colours",
    "killed": "rank 1: no sign of life",
    "frozen": "rank 1: no sign of life",
    "stuck": "rank 0: RuntimeError",  # it waited in vain; who lives and does not come cannot be told
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def launcher(name: str) -> list[str]:
    port = str(free_port())
    if name == "torchrun":
        return [str(BIN / "torchrun"), "--nproc-per-node=2", f"--master-port={port}", "-m"]
    return [str(BIN / "deepspeed"), "--no_local_rank", "--num_gpus=2", f"--master_port={port}", "--module"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("torchrun", "raise"),
        ("torchrun", "killed"),
        ("torchrun", "frozen"),
        ("torchrun", "stuck"),
        ("deepspeed", "killed"),
    ],
)
def test_the_job_ends_with_the_rank_and_cause_named(name, how, tmp_path):
    process = subprocess.Popen(
        [*launcher(name), "tests.trainer.watched", str(tmp_path), how],
        env={**os.environ, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    started = time.monotonic()
    said, _ = process.communicate(timeout=300)
    assert process.returncode not in (0, 75), said
    assert (tmp_path / "failure.txt").read_text().startswith(CAUSE[how]), said
    assert CAUSE[how] in said
    assert time.monotonic() - started < 60 + 60  # a minute, and another for the start on a busy machine
