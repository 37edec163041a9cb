"""The serve command with a stand-in for vLLM: it says when it is ready, brings it back, leaves no process behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aes_r1 import serve
from aes_r1.inference.asking import find_model
from aes_r1.model import tiny
from aes_r1.runs.process_group import ProcessGroup
from aes_r1.settings import InputError
from tests import processes
from tests.ports import free_port

# Starts a child of its own, as vLLM does, and answers /health; it writes both process ids down.
STAND_IN = """#!{python}
import http.server, os, subprocess, sys
child = subprocess.Popen(["sleep", "600"])
with open("{folder}/pids", "a") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}\\n")
with open("{folder}/arguments", "w") as file:
    file.write("\\n".join(sys.argv[1:]))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


@pytest.fixture
def environment(tmp_path):
    """A folder whose bin/vllm is the stand-in."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "vllm"
    command.write_text(STAND_IN.format(python=sys.executable, folder=tmp_path))
    command.chmod(0o755)
    return tmp_path


@pytest.fixture
def server(environment, talking_run):
    process = processes.Popen(
        [
            *(sys.executable, "-m", "aes_r1.serve", "--model", str(talking_run), "--port", str(free_port())),
            *("--environment", str(environment), "--", "--max-num-seqs", "7"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()


def started(environment: Path) -> list[list[int]]:
    """[[process id of the stand-in, of its child]] of every start."""
    return [[int(number) for number in line.split()] for line in (environment / "pids").read_text().splitlines()]


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int], patience: float = 15.0) -> bool:
    until = time.monotonic() + patience
    while any(map(lives, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(lives, pids))


@pytest.mark.slow
def test_it_says_when_it_is_ready_and_comes_back_when_it_dies(server, environment):
    assert server.stdout.readline().startswith("ready: http://127.0.0.1:")
    told = (environment / "arguments").read_text().split("\n")
    assert told[told.index("--host") + 1] == "127.0.0.1", "whoever reaches the server can exchange its weights"
    assert told[-2:] == ["--max-num-seqs", "7"]
    os.kill(started(environment)[0][0], signal.SIGKILL)
    assert server.stdout.readline().startswith("ready: "), server.stderr.read()
    first, second = started(environment)
    assert gone(first)
    assert all(map(lives, second))
    server.send_signal(signal.SIGTERM)
    assert server.wait(timeout=60) == 0
    assert gone(second)


@pytest.mark.slow
def test_no_process_outlives_a_killed_command(server, environment):
    assert server.stdout.readline().startswith("ready: ")
    server.kill()
    assert gone(started(environment)[0])


@pytest.mark.slow
def test_a_server_that_never_starts_is_one_line(environment, talking_run, monkeypatch, capsys):
    (environment / "bin" / "vllm").write_text("#!/bin/sh\nexit 3\n")
    monkeypatch.setattr(sys, "argv", ["serve", "--model", str(talking_run), "--environment", str(environment)])
    with pytest.raises(SystemExit) as leaving:
        serve.main()
    assert leaving.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("aes_r1: vLLM ended 3 times before it was ready")
    assert [line for line in lines if "the server ended" in line] == [
        *["aes_r1: the server ended (3); starting it again"] * 2,
        "aes_r1: the server ended (3)",
    ]


def test_without_vllm_the_command_says_how_to_get_it(tmp_path, talking_run, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["serve", "--model", str(talking_run), "--environment", str(tmp_path)])
    with pytest.raises(SystemExit) as leaving:
        serve.main()
    assert leaving.value.code == 2
    assert "pip install -e '.[vllm]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_group_whose_leader_is_gone_is_ended_too(tmp_path):
    script = f"sleep 600 & echo > {tmp_path / 'made'}; exec sleep 600"
    with ProcessGroup(["sh", "-c", script], dict(os.environ)) as group:
        while not (tmp_path / "made").exists():
            time.sleep(0.01)
        os.kill(group.pid, signal.SIGKILL)
        while group.poll() is None:
            time.sleep(0.01)
        os.killpg(group.pid, 0)  # its child lives
    with pytest.raises(ProcessLookupError):
        os.killpg(group.pid, 0)


@pytest.mark.slow
def test_a_guard_that_was_killed_is_replaced():
    with ProcessGroup(["sleep", "600"], dict(os.environ)) as group:
        first = group._guard
        first.kill()
        first.wait()
        assert group.poll() is None
        assert group._guard.pid != first.pid
        assert group._guard.poll() is None


def test_a_port_that_is_taken_is_refused_and_nothing_is_started(environment, talking_run, monkeypatch, capsys):
    """Another server's answer must not be taken for that of one's own."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        command = ["serve", "--model", str(talking_run), "--environment", str(environment), "--port", str(port)]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            serve.main()
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert output.err == f"aes_r1: --port={port}: something else listens there; end it or give another port\n"
    assert output.out == ""


@pytest.mark.slow
def test_no_more_places_are_asked_for_than_the_model_has():
    """Without a run's word an answer may take 1,024 tokens, and the shipped base has 1,024 places in all."""
    folder, profile = find_model(tiny.SHIPPED)
    options = serve.arguments().parse_args(["--model", folder])
    line = serve.arguments_of(options, folder, profile)
    assert line[line.index("--max-model-len") + 1] == "1024"
    options.max_new_tokens = 64
    line = serve.arguments_of(options, folder, profile)
    assert int(line[line.index("--max-model-len") + 1]) < 1024
    options.max_new_tokens = 1000
    with pytest.raises(InputError, match=r"--max-new-tokens=1000: the model has 1024 places, \d+ for a prompt"):
        serve.arguments_of(options, folder, profile)
