"""What a multirun says of its points, under every launcher."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from aes_r1 import announce, recipe
from aes_r1.points import PLAN, Sweep
from aes_r1.settings import CONF, Settings

SCORED = {"srcc": 0.5, "measured_on": "sample, scenes/test, n 600"}


@pytest.fixture
def sweep(tmp_path) -> Sweep:
    return Sweep("aes_r1.train", [], Settings, tmp_path / "points", os.getpid())


def planned(sweep: Sweep, *overrides: str) -> dict:
    """The plan that the callback of conf/config.yaml writes for a multirun with these overrides."""
    recipe.register_resolvers()
    fixed = [one for one in overrides if "," not in one]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", overrides=fixed, return_hydra_config=True)
    config.hydra.overrides.task = list(overrides)
    announce.Announcement(str(sweep.folder)).on_multirun_start(config)
    return json.loads((sweep.folder / PLAN).read_text())


@pytest.mark.slow
def test_points_are_counted_and_named_by_what_differs(sweep):
    plan = planned(sweep, "+experiment=study", "reward=rank,error", "seed=0,1,2", "tracker=none")
    assert plan == {"total": 6, "keys": ["reward", "seed"], "logs": None}
    given = ["+experiment=study", "reward=rank", "seed=0", "tracker=none"]
    assert announce.point_name(sweep, given) == "reward=rank seed=0"


@pytest.mark.slow
def test_a_study_is_counted_and_an_override_replaces_its_axis(sweep):
    assert planned(sweep, "+sweeps=reward_ablation")["total"] == 15
    assert planned(sweep, "+sweeps=reward_ablation", "seed=0") == {"total": 5, "keys": ["reward"], "logs": None}


@pytest.mark.slow
def test_a_search_has_no_number_of_points_before_it_ends(sweep):
    assert planned(sweep, "+sweeps=tune")["total"] is None


@pytest.mark.slow
def test_workers_leave_it_to_the_process_of_the_user(sweep, capfd):
    """Each line stands once, in the form that a point here would print."""
    planned(sweep, "seed=0,1")
    worker = Sweep(sweep.module, [], Settings, sweep.folder, process=-1)
    with announce.speaking(sweep):
        announce.started(worker, 1, "seed=1", Path("runs/b"))
        announce.ended(worker, 1, "seed=1", Path("runs/b"), end="done", since=time.time() - 83, **SCORED)
        first = capfd.readouterr()  # of what a thread may have said already
        assert "seed=1" not in first.out
        announce.started(sweep, 0, "seed=0", Path("runs/a"))
        announce.ended(sweep, 0, "seed=0", Path("runs/a"), end="failed", since=time.time(), reason="no picture")
    assert sorted((first.err + capfd.readouterr().err).splitlines()) == [
        "[1/2] seed=0: failed after 0:00: no picture",
        "[1/2] seed=0: starts, runs/a",
        "[2/2] seed=1: done after 1:23, SRCC 0.500 (sample, scenes/test, n 600), runs/b",
        "[2/2] seed=1: starts, runs/b",
    ]


@pytest.mark.slow
def test_the_closing_table_names_points_states_and_what_comes_next(sweep, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned(sweep, "seed=0,1,2")
    for number in (0, 1):
        Path(f"run{number}").mkdir()
        announce.ended(sweep, number, f"seed={number}", Path(f"run{number}"), end="done", since=0.0, **SCORED)
    capsys.readouterr()
    announce.close(sweep, None)
    lines = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", lines[1].strip()) == ["1", "seed=0", "done", "0.500", SCORED["measured_on"], "run0"]
    assert lines[-2] == "1 of 3 points are not done; the same command runs what is missing"
    assert lines[-1] == "next: aes-r1 report run0 run1"
    (tmp_path / "experiments" / "splits").mkdir(parents=True)
    (tmp_path / "experiments" / "splits" / "analyse.py").touch()
    announce.close(sweep, "splits")
    assert capsys.readouterr().out.splitlines()[-1] == "next: python -m experiments.splits.analyse"


@pytest.mark.slow
def test_a_sweep_that_is_stopped_at_once_has_nothing_to_analyse(sweep, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned(sweep, "seed=0,1,2")
    (tmp_path / "experiments" / "splits").mkdir(parents=True)
    (tmp_path / "experiments" / "splits" / "analyse.py").touch()
    announce.ended(sweep, 0, "seed=0", Path("gone"), end="stopped", since=0.0)
    capsys.readouterr()
    announce.close(sweep, "splits")
    assert capsys.readouterr().out.splitlines()[-1] == (
        "3 of 3 points are not done; the same command runs what is missing"
    )
    assert announce.stops(sweep) == ["seed=0"]
    Path("gone").mkdir()
    assert announce.stops(sweep) == ["seed=0 (gone)"]


def test_jobs_of_submitit_are_named_when_they_are_handed_over(sweep, capfd, tmp_path):
    sweep.folder.mkdir()
    (sweep.folder / PLAN).write_text(json.dumps({"total": 1, "keys": [], "logs": str(tmp_path / "logs" / "%j")}))
    (tmp_path / "logs" / "41").mkdir(parents=True)
    (tmp_path / "logs" / "41" / "41_submitted.pkl").touch()
    os.utime(tmp_path / "logs" / "41" / "41_submitted.pkl", (0, 0))  # of an earlier sweep
    with announce.speaking(sweep):
        (tmp_path / "logs" / "42").mkdir()
        (tmp_path / "logs" / "42" / "42_submitted.pkl").touch()
        os.utime(tmp_path / "logs" / "42" / "42_submitted.pkl", (time.time() + 9, time.time() + 9))
    assert capfd.readouterr().err == f"submitted: job 42, log {tmp_path}/logs/42/42_0_log.err\n"


MARKUP = (
    "evaluation.protocols=[sample,greedy]",
    "cold_start.data=[/tmp/a]",
    "data.root=[red]",
    "out=:boom:",
)


@pytest.mark.parametrize("name", MARKUP)
def test_the_table_of_points_shows_overrides_as_they_were_typed(sweep, capfd, name):
    sweep.folder.mkdir()
    values = {"line": "", "name": name, "out": "runs/x", "end": "done", "srcc": 0.5, "measured_on": "[/a]"}
    sweep.record(0, "end", {**values, "printed": True})
    announce.close(sweep, None)
    (row,) = [line for line in capfd.readouterr().out.splitlines() if "0.500" in line]
    assert row.split()[:5] == ["1", name, "done", "0.500", "[/a]"]
