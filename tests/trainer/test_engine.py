"""How processes connect, and launches that are refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from aes_r1.settings import EngineSettings, InputError
from aes_r1.trainer import launch
from tests import processes

START = """
import sys
from aes_r1.settings import EngineSettings
from aes_r1.trainer import launch
launch.start(EngineSettings(name="zero2"))
print("started", flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_two_runs_of_one_process_each_share_a_machine():
    environment = {name: value for name, value in os.environ.items() if name not in ("MASTER_PORT", "RANK")}
    both = [
        processes.Popen(
            [sys.executable, "-c", START],
            env={**environment, "DS_ACCELERATOR": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for one in both:
        assert one.stdout is not None
        said = iter(one.stdout.readline, "")  # ends where the process does
        assert "started\n" in said
    assert [one.poll() for one in both] == [None, None]
    for one in both:
        one.communicate()
    assert [one.returncode for one in both] == [0, 0]


def test_several_processes_without_a_launcher_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    monkeypatch.setattr(launch.dist, "is_initialized", lambda: False)
    with pytest.raises(InputError, match="MASTER_PORT: not set for 2 processes"):
        launch.start(EngineSettings(name="zero2"))
