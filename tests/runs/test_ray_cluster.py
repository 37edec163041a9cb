"""A Ray cluster that does not answer, or does not start, ends a command with one line."""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from aes_r1.runs.ray_cluster import RayFailed, start_ray
from aes_r1.settings import InputError
from tests.conftest import picture

ray = pytest.importorskip("ray", reason="the extra ray is not installed")


@pytest.fixture
def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "localhost:{}"])
def test_a_cluster_that_does_not_answer_is_named_at_once(form, closed_port, monkeypatch):
    """Ray itself waits for two minutes and then ends the process without a message."""
    address = form.format(closed_port)
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    with pytest.raises(InputError, match=f"no cluster answers at {address} .*; RAY_ADDRESS, or hydra.launcher"):
        start_ray(ray)
    with pytest.raises(InputError, match="no cluster answers"):
        start_ray(ray, address=address)
    assert time.monotonic() - began < 10


def test_an_address_that_names_no_cluster_is_refused(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "nonsense")
    with pytest.raises(
        InputError, match=r"^Ray: Invalid address format: nonsense; RAY_ADDRESS, or hydra\.launcher\.init"
    ):
        start_ray(ray)
    assert not ray.is_initialized()


def that_raises(error: BaseException) -> SimpleNamespace:
    def init() -> None:
        raise error

    return SimpleNamespace(init=init)


def test_a_node_that_does_not_start_in_time_is_one_line(monkeypatch):
    """The words of Ray's own error, which is of the class Exception itself; errors of the code keep their traceback."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = (
        "The current node timed out during startup. This could happen because some of the raylet failed to "
        "startup or the GCS has become overloaded."
    )
    with pytest.raises(RayFailed) as raised:
        start_ray(that_raises(Exception(words)))
    assert str(raised.value) == (
        "Ray did not start: The current node timed out during startup; what is done is kept, start the command again "
        "when the machine is less busy"
    )
    with pytest.raises(TypeError):
        start_ray(that_raises(TypeError("init() got an unexpected keyword argument")))


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("num_cpu", 2, "ray.init has no such argument; leave it out, or correct its name"),
        ("num_cpus", "two", "must be a whole number"),
        ("num_cpus", True, "must be a whole number"),
        ("num_gpus", 0.5, "must be a whole number"),
        ("object_store_memory", "1GB", "must be a whole number"),
        ("include_dashboard", "x", "must be true or false"),
        ("resources", 3, "must be an object"),
        ("runtime_env", 3, "must be an object"),
        ("labels", ["a"], "must be an object"),
        ("address", 6379, "must be a text"),
    ],
)
def test_a_wrong_argument_is_named_before_anything_starts(name, value, says):
    with pytest.raises(InputError) as raised:
        start_ray(ray, **{name: value})
    assert str(raised.value) == f"hydra.launcher.init.{name}={value}: {says}"
    assert not ray.is_initialized()


def test_arguments_that_ray_takes_are_handed_on():
    given: list[dict] = []
    init = functools.wraps(ray.init)(lambda **arguments: given.append(arguments))
    arguments = {
        "num_cpus": 2,
        "num_gpus": None,
        "logging_level": "error",
        "log_to_driver": False,
        "resources": {"a": 1},
    }
    arguments |= {"system_reserved_cpu": 1, "runtime_env": {}, "_temp_dir": "/tmp/x", "logging_config": "any"}
    start_ray(SimpleNamespace(init=init), **arguments)
    assert given == [arguments]


@pytest.mark.parametrize("name", ["logging_level", "_nonsense"])
def test_what_ray_itself_refuses_is_no_reason_to_wait(name):
    """`start the command again when the machine is less busy` would send the user in circles."""
    with pytest.raises(InputError, match=r"hydra\.launcher\.init"):
        start_ray(ray, address="local", **{name: "nonsense"})
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_signal_that_ray_takes_is_handed_on():
    """While it starts, Ray replaces the handler of SIGTERM by one that exits.

    The signals go to a process of their own, because they would end one that other tests left in another state.
    """
    program = """
import os, signal, sys
from types import SimpleNamespace
from aes_r1.runs.ray_cluster import start_ray

got = []
signal.signal(signal.SIGTERM, lambda number, _: got.append(number))

def taken():
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
    os.kill(os.getpid(), signal.SIGTERM)

try:
    start_ray(SimpleNamespace(init=taken))
except SystemExit as left:
    print("left", left.code, got)
start_ray(SimpleNamespace(init=lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN)))
os.kill(os.getpid(), signal.SIGTERM)
print(got)
"""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.stdout.splitlines() == ["left 15 [15]", "[15, 15]"], done.stderr


@pytest.mark.slow
def test_score_ends_in_one_line_where_its_cluster_is_gone(closed_port, tmp_path, talking_run):
    picture(30, 20).save(tmp_path / "a.png")
    command = ["score", str(tmp_path / "a.png"), "--model", str(talking_run), "--shards", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, "-m", "aes_r1", *command],
        env={**os.environ, "RAY_ADDRESS": f"127.0.0.1:{closed_port}"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = ended.stderr.splitlines()
    assert ended.returncode == 2, ended.stderr
    assert lines[-1].startswith(f"aes_r1: Ray: no cluster answers at 127.0.0.1:{closed_port} ("), ended.stderr
    assert "Traceback" not in ended.stderr
