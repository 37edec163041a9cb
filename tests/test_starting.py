"""Preparing a command's process: streams that are closed, a current folder that is gone."""

from __future__ import annotations

import csv
import os
import subprocess
import sys

import pytest

from aes_r1 import NO_CURRENT_FOLDER, arguments, command, starting
from aes_r1 import __main__ as console
from aes_r1.settings import CONF


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_was_closed_before_the_start_ends_no_command(name, monkeypatch):
    """As `aes-r1 score .. >&-` or a scheduler closes it: Python then has no stream at all."""
    monkeypatch.setattr(sys, name, None)
    starting.speak_anywhere()
    stream = getattr(sys, name)
    print("said to nobody", file=stream)
    csv.writer(stream).writerow(["a", "b"])
    stream.flush()
    assert stream.name == os.devnull


STARTS = {
    "argparse": lambda task: arguments.run_argparse(arguments.OneLineParser(), task),
    "hydra": lambda task: command.run("aes_r1.train", task),
    "console": lambda _: console.main(),
}


@pytest.mark.parametrize(("kind", "given"), [("argparse", []), ("hydra", []), ("console", ["score"])])
def test_a_current_folder_that_is_gone_is_one_line(kind, given, tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    monkeypatch.setattr(sys, "argv", ["aes-r1", *given])
    (tmp_path / "gone").rmdir()
    with pytest.raises(SystemExit) as ended:
        STARTS[kind](lambda _: pytest.fail("it was started"))
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"aes_r1: {NO_CURRENT_FOLDER}\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", console.COMMANDS)
def test_every_command_says_in_one_line_that_the_current_folder_is_gone(name, tmp_path):
    (tmp_path / "gone").mkdir()
    module = f"aes_r1.{name.replace('-', '_')}"
    done = subprocess.run(
        ["sh", "-c", f'rmdir "$PWD"; exec {sys.executable} -m {module}'],
        cwd=tmp_path / "gone", capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(CONF.parent)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"aes_r1: {NO_CURRENT_FOLDER}\n"
