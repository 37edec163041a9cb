"""`python -m aes_r1.report`: one run's page, or several compared; wrong folders are one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aes_r1.report.__main__ import main

ROOT = Path(__file__).parents[2]


def leave(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["report", *map(str, arguments)])
    with pytest.raises(SystemExit) as leaving:
        main()
    return leaving.value.code


def test_one_run_and_several(talking_run, tmp_path, monkeypatch, capsys):
    for name in ("one", "two"):
        shutil.copytree(talking_run, tmp_path / name)
    assert leave(monkeypatch, tmp_path / "one") == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "one" / "report.html")
    assert leave(monkeypatch, tmp_path / "one", tmp_path / "two") == 0
    assert (tmp_path / "comparison.html").exists()
    assert leave(monkeypatch, tmp_path / "one", tmp_path / "gone") == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    assert str(tmp_path / "gone") in message
    for folder in (".", tmp_path):
        assert leave(monkeypatch, tmp_path / "one", tmp_path / "two", "--out", folder) == 2
        (message,) = capsys.readouterr().err.splitlines()
        assert f"--out={folder}: is a folder" in message


def test_make_report_runs_it():
    done = subprocess.run(["make", "-n", "report", "RUNS=a b"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "-m aes_r1.report a b" in done.stdout
