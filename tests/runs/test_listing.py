"""`aes-r1 runs` lists runs by their settings, and --clean removes what holds no result, and nothing else."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from aes_r1.report.studies import run_names
from aes_r1.runs import __main__ as listing
from aes_r1.runs.claim import is_false_start, run_lock, withdraw
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import as_dict
from tests.experiments.runs import BASE, write_study


@pytest.fixture
def runs(monkeypatch, capsys):
    """Return what `aes-r1 runs ARGUMENTS`, started in `folder`, says and its exit code."""

    def started(*arguments: str, folder: Path) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["aes-r1 runs", *arguments])
        with pytest.raises(SystemExit) as left:
            listing.main()
        said = capsys.readouterr()
        return left.value.code, said.out + said.err

    return started


@pytest.fixture
def study(tmp_path) -> Path:
    return write_study(tmp_path / "runs") / "reward_ablation"


def false_starts(study: Path) -> dict[str, Path]:
    """Folders as starts leave them that were refused or killed before anything was computed."""
    made = {name: study / name for name in ("empty", "refused", "claimed", "listed")}
    for folder in made.values():
        folder.mkdir()
    (made["refused"] / "failure.txt").write_text("rank 0: InputError: data.root=x: no such folder\n")
    for name in ("claimed", "listed"):
        (made[name] / "settings.json").write_text(json.dumps(as_dict(BASE)))
        (made[name] / "run.log").write_text("started")
    (made["listed"] / "manifests").mkdir()
    for name in (
        "folder-train.jsonl",
        ".folder-train.2eb325bc715d9fde.arrow",
    ):  # a list and its fast copy
        (made["listed"] / "manifests" / name).touch()
    RunFolder(made["listed"]).finish_stage("data", {"train": 3})
    return made


def test_runs_are_listed_with_settings_state_srcc_and_folder(study, runs):
    unfinished = study / "error0"
    unfinished.mkdir()
    settings = as_dict(replace(BASE, reward=replace(BASE.reward, name="error")))
    (unfinished / "settings.json").write_text(json.dumps(settings))
    (unfinished / "metrics.jsonl").write_text("")
    code, said = runs(folder=study.parents[1])
    assert code == 0, said
    rows = [line for line in said.splitlines() if "runs/reward_ablation/" in line]
    assert len(rows) == 5
    for name in ("rank", "rapo"):
        for seed in (0, 1):
            (row,) = [line for line in rows if line.rstrip().endswith(f"runs/reward_ablation/{name}{seed}")]
            found = json.loads((study / f"{name}{seed}" / "evaluation.json").read_text())
            srcc = found["stages"]["rapo"]["scenes/test"]["sample"]["srcc"]
            assert f"reward={name}, seed {seed} " in row
            assert f" done {srcc['value']:.3f} [{srcc['low']:.3f}" in " ".join(row.split())
            cell = found["stages"]["rapo"]["scenes/test"]["sample"]
            assert f"] sample, scenes/test, n {cell['n']} " in " ".join(row.split()), "an SRCC says what it is of"
    assert any("not finished" in line and line.rstrip().endswith("error0") for line in rows)


def test_a_failure_is_named_in_one_short_column(study, runs):
    failed = study / "failed0"
    failed.mkdir()
    (failed / "settings.json").write_text(json.dumps(as_dict(BASE)))
    (failed / "metrics.jsonl").write_text("")
    reason = "rank 0: InputError: RAPO does not start: 40 of 64 answers cannot be read, " + "and earn nothing; " * 9
    (failed / "failure.txt").write_text(reason + "\n")
    _, said = runs(folder=study.parents[1])
    (row,) = [line for line in said.splitlines() if line.rstrip().endswith("failed0")]
    assert " failed: RAPO does not start: 40 of 64 answers cannot be .. " in row


def test_clean_removes_false_starts_alone(study, runs):
    made, kept = false_starts(study), set(study.iterdir())
    kept -= set(made.values())
    inner = study / "rapo0" / "checkpoints"
    inner.mkdir()
    held = study / "held"
    held.mkdir()
    lock = FileLock(held / ".lock")
    lock.acquire()
    try:
        code, said = runs("--clean", folder=study.parents[1])
    finally:
        lock.release()
    assert code == 0, said
    assert set(study.iterdir()) == kept | {held}
    assert inner.is_dir(), "what is inside a run belongs to it"
    assert "data.root=x: no such folder" in said
    assert said.splitlines()[-1] == "removed 4 folders"


def test_a_run_that_has_just_begun_is_running_and_no_false_start(study, runs):
    begun = false_starts(study)["claimed"]
    with run_lock(begun, 0):
        code, said = runs(folder=study.parents[1])
        assert (code, said.splitlines()[-1]) == (0, "3 left by false starts; aes-r1 runs --clean removes them")
        (row,) = [line for line in said.splitlines() if line.rstrip().endswith("reward_ablation/claimed")]
        assert " running " in row
        runs("--clean", folder=study.parents[1])
    assert begun.is_dir()


def test_clean_of_one_study_removes_the_same(study, runs):
    made, kept = false_starts(study), set(study.iterdir())
    inner = study / "rapo0" / "checkpoints"
    inner.mkdir()
    code, said = runs(str(study), "--clean", folder=study.parents[1])
    assert (code, said.splitlines()[-1]) == (0, "removed 4 folders")
    assert set(study.iterdir()) == kept - set(made.values())
    assert inner.is_dir()


@pytest.mark.parametrize("kept", ["metrics.jsonl", "predictions.jsonl", "checkpoints", "model", "notes.txt"])
def test_a_folder_with_anything_more_is_no_false_start(kept, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "settings.json").write_text("{}")
    assert is_false_start(RunFolder(folder))
    (folder / kept).touch()
    assert not is_false_start(RunFolder(folder))
    assert not withdraw(folder)
    assert (folder / kept).exists()


OTHERS = (
    "app/deploy/manifests/service.yaml",
    "app/notebooks/wandb/offline-run-1/run.wandb",
    "app/build/stages/one.sql",
)


def test_folders_of_other_programs_stay(study, tmp_path, runs):
    """They have the names of a run's folders, and may lie beside runs; empty ones stay as well."""
    for name in OTHERS:
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("not ours")
    (tmp_path / "app" / "empty").mkdir()
    for root in (tmp_path, tmp_path / "app"):
        code, said = runs(str(root), "--clean", folder=tmp_path)
        assert (code, said) == (0, "nothing to remove\n")
    assert all((tmp_path / name).exists() for name in OTHERS)
    assert (tmp_path / "app" / "empty").is_dir()


@pytest.mark.parametrize("name", OTHERS)
def test_a_refused_start_in_a_folder_of_another_program_deletes_nothing_of_it(name, tmp_path):
    out = (tmp_path / name).parents[len(Path(name).parts) - 3]
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("not ours")
    for written in ("settings.json", ".lock", "run.log"):
        (out / written).write_text("{}")
    assert not withdraw(out)
    assert (tmp_path / name).read_text() == "not ours"


def test_a_folder_that_is_not_there_is_named(tmp_path, runs):
    code, said = runs("nowhere", folder=tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("aes_r1: nowhere: no such folder; ")


def test_names_are_settings():
    def named(*changes: dict) -> list[str]:
        return run_names([as_dict(replace(BASE, **change)) for change in changes])

    rank = {"reward": replace(BASE.reward, name="rank")}
    assert named({}) == ["seed 0"]
    assert named({"seed": 1}, {"seed": 2}) == ["seed 1", "seed 2"]
    assert named({}, rank) == ["reward=rapo", "reward=rank"]
    assert named({}, rank, {**rank, "seed": 1})[1:] == ["reward=rank, seed 0", "reward=rank, seed 1"]
    assert named({}, {}) == ["seed 0 (1)", "seed 0 (2)"]
    more = {"trainer": replace(BASE.trainer, lr=0.5, max_steps=3)}
    measured = {**rank, "evaluation": replace(BASE.evaluation, stages=["rapo"])}
    assert named({}, measured) == ["reward=rapo", "reward=rank"], "how it was measured does not name a run"
    assert named(more, {})[0] == "trainer.lr 0.5, max_steps 3"
    other = {"trainer": replace(BASE.trainer, kl_coef=0.5, temperature=0.5, credit="answer")}
    assert named(more, {}, rank, other) == [
        "trainer.lr 0.5, max_steps 3", "settings of most", "reward rank",
        "credit answer, kl_coef 0.5, temperature 0.5",
    ], "unlike runs are named by what most others do not share"  # fmt: skip
