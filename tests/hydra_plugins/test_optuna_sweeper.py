"""Searches with a real Optuna study in a file: Hydra composes every point, a formula stands in for its training."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from aes_r1 import recipe
from aes_r1.runs.stopping import Stopped
from aes_r1.settings import CONF, InputError
from hydra_plugins.aes_r1.optuna_sweeper import OptunaSweeper
from tests import processes
from tests.conftest import label_twelve

optuna = pytest.importorskip("optuna")
LEARNING_RATE = "trainer.lr=tag(log, interval(1e-5, 1e-2))"


def search(storage: Path, score: Callable, *overrides: str) -> None:
    """`--multirun hydra/sweeper=optuna`, with score(config) in the place of a point's process."""
    recipe.register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        GlobalHydra.instance().hydra.multirun(
            config_name="config",
            task_function=score,
            overrides=[
                "hydra/sweeper=optuna",
                "hydra.mode=MULTIRUN",
                "hydra.sweeper.n_startup_trials=3",
                f"hydra.sweeper.storage={storage}",
                f"hydra.sweep.dir={storage.parent}/sweep",
                f"out={storage.parent}/points/${{run_hash:}}",
                *overrides,
            ],
        )


def studies(storage: Path) -> list:
    url = f"sqlite:///{storage}"
    return [optuna.load_study(study_name=name, storage=url) for name in optuna.get_all_study_names(url)]


def trials(storage: Path) -> list[tuple]:
    (study,) = studies(storage)
    return [(trial.params["trainer.lr"], trial.state.name, trial.value) for trial in study.trials]


@pytest.mark.slow
def test_a_score_belongs_to_the_settings_that_gave_it(tmp_path):
    seen = []

    def score(config) -> float:
        seen.append((config.trainer.lr, config.reward.name, config.trainer.num_samples, config.seed))
        return config.trainer.lr + config.trainer.num_samples

    search(
        tmp_path / "study.db",
        score,
        *(
            LEARNING_RATE,
            "reward=rank,rapo",
            "trainer.num_samples=int(interval(2, 8))",
            "seed=5",
            "hydra.sweeper.n_trials=5",
        ),
    )
    (study,) = studies(tmp_path / "study.db")
    told = [
        (trial.params["trainer.lr"], trial.params["reward"], trial.params["trainer.num_samples"], 5)
        for trial in study.trials
    ]
    assert told == seen
    assert [trial.value for trial in study.trials] == [lr + k for lr, _, k, _ in seen]
    assert {reward for _, reward, _, _ in seen} == {"rank", "rapo"}
    assert all(1e-5 <= lr <= 1e-2 and k in range(2, 9) for lr, _, k, _ in seen)
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE


@pytest.mark.slow
@pytest.mark.parametrize("how_it_ends", ["killed", "stopped"])
def test_an_interrupted_search_asks_for_what_the_whole_one_would(how_it_ends, tmp_path):
    how = (LEARNING_RATE, "hydra.sweeper.n_trials=6", "hydra.sweeper.n_jobs=2")
    search(tmp_path / "whole.db", lambda config: -abs(config.trainer.lr - 1e-3), *how)
    count = 0

    def until_interrupted(config) -> float | Stopped:
        nonlocal count
        count += 1
        if count >= 5 and how_it_ends == "killed":
            raise KeyboardInterrupt
        return Stopped(True) if count >= 5 else -abs(config.trainer.lr - 1e-3)

    with pytest.raises(KeyboardInterrupt) if how_it_ends == "killed" else nullcontext():
        search(tmp_path / "parts.db", until_interrupted, *how)
    assert [state for _, state, _ in trials(tmp_path / "parts.db")] == ["COMPLETE"] * 4 + ["RUNNING"] * 2
    search(tmp_path / "parts.db", lambda config: -abs(config.trainer.lr - 1e-3), *how)
    parts = trials(tmp_path / "parts.db")
    assert [state for _, state, _ in parts] == ["COMPLETE"] * 4 + ["FAIL"] * 2 + ["COMPLETE"] * 2
    assert [one for one in parts if one[1] == "COMPLETE"] == trials(tmp_path / "whole.db")


@pytest.mark.slow
def test_a_point_without_a_score_is_a_failed_trial_and_the_same_command_runs_it_again(tmp_path):
    how = (LEARNING_RATE, "hydra.sweeper.n_trials=4")
    search(tmp_path / "study.db", lambda config: None if config.trainer.lr > 1e-3 else 0.5, *how)
    first = trials(tmp_path / "study.db")
    failed = [lr for lr, state, _ in first if state == "FAIL"]
    assert failed == [lr for lr, _, _ in first if lr > 1e-3] != []
    assert all(value is None for _, state, value in first if state == "FAIL")
    assert len(first) == 4

    seen = []
    search(tmp_path / "study.db", lambda config: seen.append(config.trainer.lr) or 0.7, *how)
    assert seen == failed
    search(tmp_path / "study.db", lambda config: pytest.fail("nothing is missing"), *how)
    assert len(trials(tmp_path / "study.db")) == 4 + len(failed)


@pytest.mark.slow
def test_more_trials_go_on_with_the_study(tmp_path):
    for n in (1, 3):
        search(tmp_path / "study.db", lambda config: config.trainer.lr, LEARNING_RATE, f"hydra.sweeper.n_trials={n}")
        assert len(trials(tmp_path / "study.db")) == n


@pytest.mark.slow
def test_other_settings_and_another_space_are_other_studies(tmp_path):
    for changed in ("seed=0", "seed=1", "trainer.max_steps=7", "trainer.lr=interval(1e-5, 1e-2)", "seed=0"):
        search(tmp_path / "study.db", lambda config: 0.5, LEARNING_RATE, changed, "hydra.sweeper.n_trials=1")
    assert [len(study.trials) for study in studies(tmp_path / "study.db")] == [1, 1, 1, 1]


@pytest.mark.slow
def test_a_second_command_is_refused_while_the_first_one_searches(tmp_path):
    """It would mark the first one's live trial as failed. A search of other settings in the same file goes on."""
    storage = tmp_path / "study.db"
    second = OptunaSweeper(str(storage), 1, 1, 1, 0, None)
    refused = []

    def score(config) -> float:
        (name,) = optuna.get_all_study_names(f"sqlite:///{storage}")
        with pytest.raises(InputError, match=r"study\.db: another command works on this search; wait"):
            second._held(name).__enter__()
        with second._held("of other settings"):
            second._study("of other settings")
        optuna.delete_study(study_name="of other settings", storage=f"sqlite:///{storage}")
        refused.append(name)
        return 0.5

    search(storage, score, LEARNING_RATE, "hydra.sweeper.n_trials=2")
    assert [state for _, state, _ in trials(storage)] == ["COMPLETE"] * 2
    assert len(refused) == 2
    with second._held(refused[0]):
        pass


@pytest.mark.parametrize("name", ["why?", "a#b", "100%", "{x}", "a b@c:d"])
@pytest.mark.slow
def test_the_study_lies_in_the_file_that_was_named(tmp_path, name):
    storage = tmp_path / name / "study.db"
    sweeper = OptunaSweeper(str(storage), 1, 1, 1, 0, None)
    with sweeper._held("a"):
        sweeper._study("a")
    assert storage.exists()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def train(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return processes.run(
        [sys.executable, "-m", "aes_r1.train", "--multirun", "hydra/sweeper=optuna", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("trainer.lr=1e-3", "nothing to search"),
        ("trainer.lr=tag(log, interval(0, 1))", "trainer.lr=tag(log, interval(0, 1)): "),
        ("hydra.sweeper.storage=/dev/null/study.db", "hydra.sweeper.storage=/dev/null/study.db: "),
    ],
)
@pytest.mark.slow
def test_wrong_input_is_named(override, says, tmp_path):
    lists = [] if override.startswith("trainer.lr") else [LEARNING_RATE]
    with pytest.raises(InputError, match=re.escape(says)):
        search(tmp_path / "study.db", lambda config: pytest.fail("nothing may run"), *lists, override)


@pytest.mark.slow
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path):
    done = train(f"hydra.sweeper.storage={tmp_path}/study.db", LEARNING_RATE, "hydra.sweeper.n_trials=0")
    assert done.returncode == 2, done.stderr
    assert "hydra.sweeper.n_trials=0" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.slow
def test_a_space_without_a_valid_point_ends_with_each_reason_once(tmp_path):
    where = f"hydra.sweeper.storage={tmp_path}/study.db", f"hydra.sweep.dir={tmp_path}/sweep"
    runs = f"out={tmp_path}/runs/${{run_hash:}}"
    done = train(*where, runs, "trainer.num_samples=0,1", "hydra.sweeper.n_trials=6")
    assert done.returncode == 1, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("aes_r1: 2 point(s) failed: ")
    assert last.count("(trainer.num_samples=1: must be at least 2") == 1


@pytest.mark.slow
def test_a_file_that_is_no_study_is_left_as_it_is(tmp_path):
    (tmp_path / "study.db").write_text("my notes " * 100)
    with pytest.raises(InputError, match="not a database; give another file"):
        search(tmp_path / "study.db", lambda config: pytest.fail("nothing may run"), LEARNING_RATE)
    assert (tmp_path / "study.db").read_text() == "my notes " * 100


@pytest.mark.slow
def test_a_real_search_through_ray_whose_scores_are_in_its_run_folders(talking_run, tmp_path):
    """Points of two RAPO steps, two at the same time; one of the models is missing, so its points fail."""
    pytest.importorskip("ray")
    pictures = shutil.copytree(talking_run / "pictures", tmp_path / "pictures")
    label_twelve(pictures, ("train", "validation"))
    storage = tmp_path / "runs" / "study.db"
    how = [
        *("hydra/launcher=ray", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=2", "hydra.sweeper.seed=1"),
        *(f"hydra.sweeper.storage={storage}", f"hydra.sweep.dir={tmp_path}/sweep"),
        *("+experiment=study", "trainer.lr=tag(log, interval(1e-3, 1e-2))", "reward.error.sigma=interval(0.05, 0.3)"),
        *(f"model.path={talking_run}/model,{tmp_path}/nowhere", "trainer.init_from=base", "cold_start.epochs=0"),
        *("data=folder", f"data.root={pictures}", "data.split=validation", "expert=pixels", "judge=none"),
        *("trainer.max_steps=2", "trainer.images_per_step=4", "trainer.num_samples=2", "trainer.max_new_tokens=64"),
        *("evaluation.protocols=[mean]", "evaluation.n_samples=2", "evaluation.n_bootstrap=20"),
        *("tracker=none", f"store={tmp_path}/store", f"out={tmp_path}/runs/${{run_hash:}}"),
    ]
    done = train(*how)
    assert done.returncode == 1, done.stderr
    assert "1 point(s) failed" in done.stderr
    (study,) = studies(storage)
    scored = {trial.params["trainer.lr"]: trial.value for trial in study.trials if trial.state.name == "COMPLETE"}
    assert [trial.value for trial in study.trials if trial.state.name == "FAIL"] == [None]
    assert len(scored) == 1

    held = {}
    for path in (tmp_path / "runs").glob("*/evaluation.json"):
        settings = json.loads((path.parent / "settings.json").read_text())
        cell = json.loads(path.read_text())["stages"]["rapo"]["folder/validation"]["mean"]
        held[settings["trainer"]["lr"]] = cell["srcc"]["value"]
    assert held == scored
    assert f"SRCC {study.best_value:.4f}: trainer.lr={study.best_params['trainer.lr']}" in done.stderr


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.slow
def test_a_list_is_searched_without_repeating_a_point(tmp_path, capsys, jobs):
    """Four points and four trials: each is run once. Asked for ten, the search ends with the four that there are."""
    seen = []

    def score(config) -> float:
        seen.append((config.reward.name, config.trainer.num_samples))
        return float(config.trainer.num_samples)

    axes = ("reward=rank,rapo", "trainer.num_samples=4,8", f"hydra.sweeper.n_jobs={jobs}")
    search(tmp_path / "study.db", score, *axes, "hydra.sweeper.n_trials=4")
    assert sorted(seen) == [("rank", 4), ("rank", 8), ("rapo", 4), ("rapo", 8)]
    assert "best of 4 scored points of 4: SRCC 8.0000" in capsys.readouterr().err
    search(tmp_path / "study.db", score, *axes, "hydra.sweeper.n_trials=10")
    assert len(seen) == 4
