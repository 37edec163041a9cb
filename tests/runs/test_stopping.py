"""Real processes that get a stop signal at every moment of their start end with one line and exit code 75."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aes_r1.model import tiny
from tests.conftest import label_twelve
from tests.ports import free_port
from tests.processes import wait_for

ROOT = Path(__file__).parents[2]
SAID = "aes_r1: stopped; what is done is kept, the same command goes on from there"
SIGNALS = [signal.SIGTERM, signal.SIGUSR1]


def start(*command: str, folder: Path, **environment: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environment},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def listens(process: subprocess.Popen, number: int) -> bool:
    """Whether the process has a handler for the signal: Linux keeps a bit for each."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught, 16) >> (number - 1) & 1)


def worked(process: subprocess.Popen) -> float:
    """Return the processor seconds of the process, which mark the same moment however busy the machine is."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def told(process: subprocess.Popen, number: int) -> list[str]:
    """Tell the process to stop; what it says on stderr, once it has left with exit code 75."""
    process.send_signal(number)
    try:
        _, said = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 75, said
    return said.splitlines()


LIBRARIES = ("numpy", "torch", "transformers", "omegaconf", "hydra", "scipy", "rich", "PIL", "filelock")


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGINT])
@pytest.mark.parametrize("command", ["train", "evaluate", "distill", "prepare", "score --shards OUT", "score a.jpg"])
@pytest.mark.slow
def test_a_command_listens_before_it_imports_a_library(command, number, tmp_path):
    """The first library that it imports is replaced with one that sends the signal and then takes ten minutes."""
    for library in LIBRARIES:
        (tmp_path / f"{library}.py").write_text(f"import os, time\nos.kill(os.getpid(), {number:d})\ntime.sleep(600)\n")
    process = start("-m", *f"aes_r1.{command}".split(), folder=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    _, said = process.communicate(timeout=300)
    goes_on = number != signal.SIGINT and command != "score a.jpg"
    expected = (75, [SAID]) if goes_on else (1, ["aes_r1: interrupted"])
    assert (process.returncode, said.splitlines()) == expected


@pytest.mark.parametrize("command", ["train", "score"])
def test_a_command_that_a_shell_started_in_the_background_goes_on_at_ctrl_c(command, tmp_path):
    for library in LIBRARIES:
        (tmp_path / f"{library}.py").write_text(f"import os\nos.kill(os.getpid(), {signal.SIGINT:d})\nos._exit(7)\n")
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the process inherits
    try:
        process = start("-m", f"aes_r1.{command}", folder=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.communicate(timeout=300)[1] == ""
    assert process.returncode == 7, "it went on after the signal"


@pytest.mark.slow
@pytest.mark.parametrize("command", [".distill", ".train", ".score nothing.jpg --model nowhere", " plan"])
def test_ctrl_c_once_or_twice_while_a_command_starts_is_one_line(command, tmp_path):
    for seconds in (0.15, 0.4, 0.8):  # of work: while it imports, composes and checks
        for pause in (None, 0.0, 0.02):
            process = start("-m", *f"aes_r1{command}".split(), folder=tmp_path)
            while worked(process) < seconds and process.poll() is None:
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            if pause is not None:
                time.sleep(pause)
                process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=300)
            assert "Traceback" not in said, said
            assert process.returncode in (0, 1, 2), said  # 0: `plan` may be done by then


HELD = """
import ctypes, sys
from aes_r1.runs.stopping import leave_when_told
leave_when_told()
mutex, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
libc.pthread_mutex_lock(mutex)
print("held", flush=True)
libc.pthread_mutex_lock(mutex)  # for ever, and no signal interrupts it
"""

WORKERS = """
import multiprocessing, time
from aes_r1.runs.stopping import leave_to_parent, leave_when_told

def work():
    leave_to_parent()
    print("works", flush=True)
    time.sleep(600)

leave_when_told()
worker = multiprocessing.get_context("fork").Process(target=work)
worker.start()
LISTED or multiprocessing.process._children.discard(worker)  # as it is for a moment after its first line
time.sleep(600)
"""

FORKED = """
import os, signal, sys, time
from aes_r1.runs.stopping import leave_when_told

os.register_at_fork(after_in_child=lambda: time.sleep(float(sys.argv[1])))  # before the child is told how to end
leave_when_told()
leave_when_told()  # a command that runs another one
child = os.fork()
assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "nothing is held back after a fork"
if child == 0:
    time.sleep(60)
    os._exit(1)
os.kill(child, signal.SIGTERM)
assert os.waitpid(child, 0)[1] == signal.SIGTERM
print("alive", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_waits_outside_of_python_leaves_at_once(number, tmp_path):
    process = start("-c", HELD, folder=tmp_path)
    assert process.stdout.readline() == "held\n"
    assert told(process, number) == [SAID]


@pytest.mark.parametrize("listed", [True, False])
def test_workers_leave_with_their_process(listed, tmp_path):
    process = start("-c", f"LISTED = {listed}\n{WORKERS}", folder=tmp_path)
    assert process.stdout.readline() == "works\n"
    assert told(process, signal.SIGTERM) == [SAID], "what it says ends only when its worker, which holds the pipe, ends"


def test_workers_end_when_their_process_is_killed(tmp_path):
    process = start("-c", f"LISTED = True\n{WORKERS}", folder=tmp_path)
    assert process.stdout.readline() == "works\n"
    process.kill()
    assert process.communicate(timeout=60) == ("", ""), "the worker holds the pipes open for as long as it lives"


@pytest.mark.parametrize("seconds", [0.0, 0.5])
@pytest.mark.slow
def test_a_forked_child_ends_as_usual_and_alone(seconds, tmp_path):
    """This also holds when the signal comes while the child still has its parent's handlers."""
    process = start("-c", FORKED, str(seconds), folder=tmp_path)
    assert process.stdout.readline() == "alive\n"
    assert told(process, signal.SIGUSR1) == [SAID]


@pytest.fixture
def job(tokenizer, picture_folder, tmp_path) -> list[str]:
    """RAPO of a random model on twelve pictures."""
    tiny.build_tiny_model(tokenizer, max_pixels=9216, seed=0).save(tmp_path / "base")
    label_twelve(picture_folder)
    return [
        *("-m", "aes_r1.train", "data=folder", f"data.root={picture_folder}", f"model.path={tmp_path}/base"),
        *("expert=pixels", "judge=none", "trainer.init_from=base", "cold_start.epochs=0", "trainer.max_steps=1000"),
        *("trainer.images_per_step=2", "trainer.num_samples=2", "trainer.max_new_tokens=8", "trainer.eval_every=1000"),
        "trainer.start_anyway=true",
        *("tracker=none", f"store={tmp_path}/store", f"out={tmp_path}/run"),
    ]


# Its imports take some 2.5 seconds of work; the first step of training is over after about 6.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "work"),
    [(SIGNALS[place % 2], work) for place, work in enumerate((0, 0.1, 0.3, 0.6, 1, 1.4, 1.8, 2.2, 2.5, 2.8, 3.5, 5))],
)
def test_a_run_that_is_told_to_stop_while_it_starts(number, work, job, tmp_path):
    process = start(*job, folder=tmp_path)
    wait_for(process, lambda: listens(process, number) and worked(process) >= work)
    said = told(process, number)
    assert [line for line in said if line.startswith("aes_r1: ")] == [SAID]
    assert said[-1] == SAID
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "run" / "failure.txt").exists()
    if not (tmp_path / "run").exists():
        assert said == [SAID], "nothing was begun"


@pytest.mark.slow
@pytest.mark.parametrize("number", SIGNALS)
def test_a_process_that_waits_for_the_others_of_its_job_leaves(number, job, tmp_path):
    """The first of two processes, whose second never comes: it waits where Python calls no handler."""
    port = free_port()
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    process = start(*job, "engine=zero2", folder=tmp_path, DS_ACCELERATOR="cpu", **launched)
    wait_for(process, lambda: listened_at(port))
    assert SAID in told(process, number)
    assert not (tmp_path / "run" / "failure.txt").exists()


def listened_at(port: int) -> bool:
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)  # 0A: it listens


@pytest.mark.slow
def test_a_sweep_stops_a_point_that_only_starts(job, tmp_path):
    process = start(*job[:2], "--multirun", *job[2:-1], "seed=1,2", "out=runs/${seed}", folder=tmp_path)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_for(process, lambda: bool(children.read_text()))
    said = told(process, signal.SIGTERM)
    assert said[-1].startswith("aes_r1: 1 point(s) stopped: ")
    assert "Traceback" not in "".join(said)
    assert not (tmp_path / "runs" / "2").exists() or not list((tmp_path / "runs" / "2").iterdir())
