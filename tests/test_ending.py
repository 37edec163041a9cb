"""How commands end: exit codes, one-line errors, interrupts."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys

import pytest

from aes_r1 import ending
from aes_r1.aescot.failures import ServerGone
from aes_r1.points import REASON
from aes_r1.settings import InputError


@pytest.mark.parametrize(
    "error",
    [OSError(errno.EACCES, "Permission denied", "x: bild\udcff.jpg"), InputError("x: bild\udcff.jpg"),
     ServerGone("x: bild\udcff.jpg")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_name_that_is_no_utf_8_ends_a_point_in_its_line(error, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv(REASON, str(tmp_path / "reason"))
    code, line = ending.of_error(error)
    with pytest.raises(SystemExit) as ended:
        ending.exit_with(code, line)
    assert ended.value.code == code
    told = (tmp_path / "reason").read_text(encoding="utf-8")
    assert told.startswith("x: bild\\udcff.jpg")
    assert capsys.readouterr().err == f"aes_r1: {told}\n"


@pytest.mark.parametrize("number", sorted(ending.CANNOT_WRITE))
def test_what_cannot_be_written_is_one_line_with_a_way_out(number):
    """It names the place that the user gave rather than the draft that was to become it."""
    for error in (OSError(number, os.strerror(number), "d", None, "out"), OSError(number, os.strerror(number), "out")):
        code, line = ending.of_error(error)
        assert code == 2
        assert re.fullmatch(rf"out: {re.escape(os.strerror(number))}; give [^\n]+", line)
    assert ending.of_error(OSError(errno.ENOENT, "No such file or directory", "x")) is None, "a fault of the code"


@pytest.mark.parametrize(
    "then",
    [
        "announce.failures = interrupted(announce.failures)",  # after the first one was handled
        "ending.of_error = interrupted(ending.of_error)",  # while it is handled
        "ending.ignore_interrupts = interrupted(ending.ignore_interrupts)",  # before anything is
    ],
)
@pytest.mark.parametrize("kind", ["hydra", "argparse"])
@pytest.mark.slow
def test_a_second_interrupt_while_the_first_is_handled_is_one_line(kind, then, tmp_path):
    program = f"""
import os, signal
from aes_r1 import announce, arguments, command, ending

def interrupted(function):
    times = iter([1])
    def inner(*given):
        for _ in times:
            os.kill(os.getpid(), signal.SIGINT)
        return function(*given)
    return inner

def task(_):
    raise KeyboardInterrupt

{then}
if "{kind}" == "hydra":
    command.run("aes_r1.train", task)
else:
    arguments.run_argparse(arguments.OneLineParser(prog="aes-r1 runs"), task)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    words = "interrupted" + "; the same command goes on from the last checkpoint" * (kind == "hydra")
    assert (ended.returncode, ended.stderr) == (1, f"aes_r1: {words}\n")
