"""A lock that a killed process left beside DeepSpeed's compiled operations never blocks a later start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.utils import file_baton

from aes_r1.settings import InputError
from aes_r1.trainer import compiled_ops

# As torch takes it before it compiles, without the seconds that an import of torch takes.
TAKE = """
import runpy, sys, time
baton = runpy.run_path(sys.argv[2])["FileBaton"](sys.argv[1])
assert baton.try_acquire()
print("taken", flush=True)
time.sleep(600)
"""
START = """
from aes_r1.settings import EngineSettings
from aes_r1.trainer import launch
launch.start(EngineSettings(name="zero2"))
print("started")
"""


def owner(lock: Path) -> subprocess.Popen:
    """A process that has taken `lock` and holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE, str(lock), file_baton.__file__], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


@pytest.fixture
def own(tmp_path, monkeypatch) -> Path:
    """The environment's own folder, in a fresh cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "")  # so that what is set in the test is taken back
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    return compiled_ops.own_folder()


@pytest.mark.slow
def test_a_lock_is_removed_when_its_owner_is_gone_and_not_before(own, caplog):
    lock = own / "an_operation" / "lock"
    process = owner(lock)
    try:
        compiled_ops.before_compiling()
        assert os.environ["TORCH_EXTENSIONS_DIR"] == str(own)
        assert lock.exists()
        old = time.time() - 3600
        os.utime(lock, (old, old))
        compiled_ops.before_compiling()
        assert lock.exists()
        assert f"{lock}: process {process.pid} has compiled for 60 minutes" in caplog.text
    finally:
        process.kill()
        process.wait()
    compiled_ops.before_compiling()
    assert not lock.exists()
    assert f"removed {lock}" in caplog.text


def test_a_lock_is_held_also_where_another_process_ends_while_all_are_searched(tmp_path, monkeypatch):
    """Every other process is gone when its descriptors are listed; this one holds the lock."""
    lock, scandir = tmp_path / "lock", os.scandir

    def ended(path):
        if str(path).endswith("/fd") and str(os.getpid()) not in str(path):
            raise FileNotFoundError(path)
        return scandir(path)

    with lock.open("w"):
        monkeypatch.setattr(os, "scandir", ended)
        assert compiled_ops._is_held(lock)
    assert not compiled_ops._is_held(lock)


@pytest.mark.slow
def test_a_folder_of_the_users_own_is_kept_and_its_old_lock_named(own, tmp_path, monkeypatch):
    given = tmp_path / "given"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(given))
    lock = given / "an_operation" / "lock"
    process = owner(lock)
    process.kill()
    process.wait()
    monkeypatch.setattr(compiled_ops, "LONGEST_COMPILATION", 1.0)
    with pytest.raises(InputError, match="no process of this machine holds it; remove it") as error:
        compiled_ops.before_compiling()
    assert str(lock) in str(error.value)
    assert lock.exists()
    assert os.environ["TORCH_EXTENSIONS_DIR"] == str(given)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_zero_starts_after_a_process_was_killed_while_it_compiled(own, monkeypatch):
    with monkeypatch.context() as patch:
        patch.delenv("XDG_CACHE_HOME")
        compiled = compiled_ops.own_folder()
    if compiled.is_dir():  # saves a minute of compilation
        shutil.copytree(compiled, own, ignore=shutil.ignore_patterns("lock"))
    lock = own / "deepspeed_shm_comm" / "lock"
    process = owner(lock)
    process.kill()
    process.wait()
    done = subprocess.run(
        [sys.executable, "-c", START],
        env={**os.environ, "DS_ACCELERATOR": "cpu"},
        capture_output=True,
        text=True,
        timeout=500,
        check=True,
    )
    assert "started" in done.stdout
    assert (lock.parent / "deepspeed_shm_comm.so").exists()
    assert not lock.exists()
