"""`aes-r1 runs` lists runs by their settings, and --clean removes what holds no result, and nothing else."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from aes_r1.report.studies import read_studies, run_names
from aes_r1.report.studies_page import static_page
from aes_r1.runs import __main__ as listing
from aes_r1.runs import claim
from aes_r1.runs.claim import claim_run_folder, is_false_start, is_held, require_free, run_lock, withdraw
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, as_dict
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("reason", ["cannot open [/data/x.jpg]", "cannot open [red.jpg] x", "no :boom: there"])
@pytest.mark.slow
def test_a_reason_is_shown_as_it_was_written(study, runs, reason):
    failed = study / "failed[0]"
    failed.mkdir()
    (failed / "settings.json").write_text(json.dumps(as_dict(BASE)))
    (failed / "metrics.jsonl").write_text("")
    (failed / "failure.txt").write_text(f"rank 0: OSError: {reason}\n")
    code, said = runs(folder=study.parents[1])
    assert code == 0, said
    (row,) = [line for line in said.splitlines() if line.rstrip().endswith("failed[0]")]
    assert f" failed: {reason} " in row


@pytest.mark.parametrize("cut", [b"rank 0: OSError: /data/caf\xc3", b"\xff\xfer\x00a\x00"])
@pytest.mark.slow
def test_a_reason_and_a_log_that_are_no_whole_utf_8_are_read_all_the_same(cut, study, runs):
    """A full disk or a kill cuts a file within a character; the commands that name a run still do."""
    (study / "rapo0" / "run.log").write_bytes(cut)
    failed = false_starts(study)["refused"]
    (failed / "failure.txt").write_bytes(cut)
    assert "\ufffd" in RunFolder(study / "rapo0").log
    assert runs(folder=study.parents[1])[0] == 0
    assert read_studies(study.parent)
    assert static_page(read_studies(study.parent), study)
    code, said = runs("--clean", folder=study.parents[1])
    assert code == 0, said
    assert not failed.exists()


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_run_that_has_just_begun_is_running_and_no_false_start(study, runs):
    begun = false_starts(study)["claimed"]
    with run_lock(begun, 0):
        code, said = runs(folder=study.parents[1])
        assert (code, said.splitlines()[-1]) == (0, "3 left by false starts; aes-r1 runs --clean removes them")
        (row,) = [line for line in said.splitlines() if line.rstrip().endswith("reward_ablation/claimed")]
        assert " running " in row
        runs("--clean", folder=study.parents[1])
    assert begun.is_dir()


def look_always(folder: Path, begun: multiprocessing.Event, stop: multiprocessing.Event) -> None:
    while not stop.is_set():
        is_held(RunFolder(folder))
        begun.set()


@pytest.mark.slow
def test_who_looks_whether_a_run_is_held_refuses_no_start(tmp_path):
    """Nor do those who look take each other for a run."""
    context = multiprocessing.get_context("spawn")
    begun, stop = context.Event(), context.Event()
    with run_lock(tmp_path, 0):
        pass
    looking = context.Process(target=look_always, args=(tmp_path, begun, stop))
    looking.start()
    try:
        assert begun.wait(60)
        for _ in range(300):
            assert is_held(RunFolder(tmp_path)) is False
            require_free(tmp_path, 0)
            with run_lock(tmp_path, 0):
                pass
    finally:
        stop.set()
        looking.join()


@pytest.mark.slow
def test_a_lock_is_seen_by_who_looks_and_left_as_it_was(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert is_held(run) is False
    assert not run.path.exists()
    with run_lock(run.path, 0):
        assert is_held(run) is True
        with pytest.raises(InputError, match=r"run: another process works on this run; wait for its end"):
            require_free(run.path, 0)
        require_free(run.path, 1)
        with pytest.raises(InputError, match=r"run: another process works on this run"), run_lock(run.path, 0):
            pass
    run.lock_file.chmod(0o444)
    assert is_held(run) is False


@pytest.mark.filterwarnings("ignore:flock not supported")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EACCES])
@pytest.mark.slow
def test_where_a_lock_cannot_be_asked_the_state_is_unknown(study, runs, monkeypatch, number):
    """On a disk without locks, or of another user's run; a run that is done stays so. None of them is cleaned."""
    begun = false_starts(study)["claimed"]
    for folder in (begun, study / "rank0"):
        (folder / ".lock").touch()
    if number == errno.EACCES:
        opened = Path.open

        def refused(path: Path, *how: str, **more: str) -> object:
            if path.name == ".lock":
                raise PermissionError(number, os.strerror(number))
            return opened(path, *how, **more)

        monkeypatch.setattr(Path, "open", refused)
    else:

        def no_locks(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(fcntl, "flock", no_locks)
    code, said = runs(folder=study.parents[1])
    assert code == 0, said
    states = {line.split()[-1].rpartition("/")[2]: line for line in said.splitlines() if "reward_ablation/" in line}
    assert " unknown (.lock cannot be read) " in states["claimed"]
    assert " done " in states["rank0"]
    runs("--clean", folder=study.parents[1])
    assert begun.is_dir()


@pytest.mark.slow
def test_clean_keeps_a_run_that_starts_meanwhile(study, runs):
    """It starts after the folder was found to be left, before it is deleted."""
    begun = false_starts(study)["claimed"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claim, "_ASKED_S", 0.1)
        patch.setattr(listing, "_is_left", lambda run: run.path.name == begun.name)
        with run_lock(begun, 0):
            code, said = runs("--clean", folder=study.parents[1])
    assert (code, said.splitlines()[-1]) == (0, "nothing to remove")
    assert f"kept runs/{begun.relative_to(study.parent)}, in which a process works" in said
    assert (begun / "settings.json").exists()


@pytest.mark.slow
def test_the_lock_is_held_until_the_folder_is_deleted(study, runs, monkeypatch):
    begun = false_starts(study)["listed"]
    deleted, states = claim.shutil.rmtree, []

    def slowly(path: Path, **how: bool) -> None:
        states.append(is_held(RunFolder(begun)))
        deleted(path, **how)

    monkeypatch.setattr(claim.shutil, "rmtree", slowly)
    runs("--clean", folder=study.parents[1])
    assert states == [True, True], "while its manifests and its stages are deleted"
    assert not begun.exists()


@pytest.mark.slow
def test_a_start_that_waits_for_a_folder_that_is_cleaned_gets_one_of_its_own(tmp_path):
    folder, waits = tmp_path / "run", threading.Event()
    failures: list[Exception] = []

    def start() -> None:
        waits.set()
        try:
            with run_lock(folder, 0):
                claim_run_folder(folder, BASE)
                assert RunFolder(folder).settings
                assert is_held(RunFolder(folder)), "the lock is that of the file which is there"
        except (InputError, AssertionError, OSError) as error:
            failures.append(error)

    for _ in range(20):
        claim_run_folder(folder, BASE)
        with run_lock(folder, 0):
            starting = threading.Thread(target=start)
            starting.start()
            waits.wait()
            withdraw(folder)
        starting.join()
        waits.clear()
        assert failures == []
        assert RunFolder(folder).exists


def test_a_folder_that_is_cleaned_before_its_lock_is_taken_is_made_again(tmp_path, monkeypatch):
    acquire, calls = FileLock.acquire, []

    def cleaned_once(lock: FileLock, **how: float) -> object:
        calls.append(lock)
        if len(calls) == 1:
            (tmp_path / "run").rmdir()
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return acquire(lock, **how)

    monkeypatch.setattr(FileLock, "acquire", cleaned_once)
    with run_lock(tmp_path / "run", 0):
        assert is_held(RunFolder(tmp_path / "run"))
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere" / "run")
    with pytest.raises(InputError, match=r"out=.*gone: .*; give a folder"), run_lock(tmp_path / "gone", 0):
        pass


@pytest.mark.parametrize("times", [1, 2, 3, 4])
def test_a_folder_that_is_cleaned_while_mkdir_tests_it_is_made_again(times, tmp_path, monkeypatch):
    """The kernel says that the folder exists, and when pathlib looks whether it is one, it is gone."""
    make, calls = os.mkdir, []

    def there_and_gone(path, *mode):
        if str(path) == str(tmp_path / "run") and len(calls) < times:
            calls.append(path)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        make(path, *mode)

    monkeypatch.setattr(os, "mkdir", there_and_gone)
    if times < 3:
        with run_lock(tmp_path / "run", 0):
            assert is_held(RunFolder(tmp_path / "run"))
    else:
        with pytest.raises(InputError, match=r"out=.*run: File exists; give a folder"), run_lock(tmp_path / "run", 0):
            pass
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"out=.*file: .*; give a folder"), run_lock(tmp_path / "file", 0):
        pass


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_folder_without_runs_is_said_to_have_none(study, tmp_path, runs):
    (tmp_path / "empty").mkdir()
    assert runs("empty", folder=tmp_path) == (0, "empty: no run in it; give the folder that holds runs\n")
    one = next(path for path in sorted(study.iterdir()) if RunFolder(path).exists)
    assert runs(one.name, folder=study) == (0, f"{one.name}: no run in it; it is a run itself; give {study}\n")
    code, said = runs("~nobody_of_this_name", folder=tmp_path)
    assert (code, said.startswith("aes_r1: ~nobody_of_this_name: no user nobody_of_this_name is known")) == (2, True)


@pytest.mark.parametrize("arguments", [(), ("--clean",)])
def test_where_nothing_was_trained_yet_the_list_says_so(arguments, tmp_path, runs):
    code, said = runs(*arguments, folder=tmp_path)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("aes_r1: runs/: not here, so nothing was trained from this folder yet; aes-r1 train ")
    (tmp_path / "runs").touch()
    assert runs(*arguments, folder=tmp_path)[1].startswith("aes_r1: runs: no such folder; give the one that holds runs")


@pytest.mark.slow
def test_one_removed_folder_is_singular(study, runs):
    (study / "empty").mkdir()
    _, said = runs("--clean", folder=study.parents[1])
    assert said.splitlines()[-1] == "removed 1 folder"


@pytest.mark.parametrize("unlike", [0, 1, 4])
@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
@pytest.mark.parametrize(
    ("key", "values", "named"),
    [
        ("limit", (None, 20), ("evaluation.limit", "null", "20")),
        ("protocols", (["greedy"], ["mean"]), ("protocols", "[greedy]", "[mean]")),
    ],
)
def test_runs_that_differ_in_how_they_were_measured_are_told_apart(key, values, named, seeds, unlike):
    """Whatever else the list holds; `unlike`: runs of other settings beside the two."""
    others = [
        {"reward": replace(BASE.reward, name="rank")},
        {"trainer": replace(BASE.trainer, lr=0.5, max_steps=3, kl_coef=0.5, temperature=0.5)},
        {"trainer": replace(BASE.trainer, lr=0.25, max_steps=4)},
        {"model": replace(BASE.model, max_pixels=4096)},
    ]
    pair = [
        {"evaluation": replace(BASE.evaluation, **{key: value}), "seed": seed}
        for value, seed in zip(values, seeds, strict=True)
    ]
    names = run_names([as_dict(replace(BASE, **change)) for change in [*pair, *others[:unlike]]])
    assert len(set(names)) == len(names)
    setting, *shown = named
    if seeds[0] == seeds[1] or key == "limit" or unlike == 0:  # else their seeds tell them apart
        for name, value in zip(names, shown, strict=False):
            assert f"{setting}={value}" in name
            assert not name.endswith(")")


def test_how_many_pictures_a_run_was_measured_on_is_named_beside_what_it_follows_from():
    limits = {"rapo": 20, "rank": None, "error": None}
    runs = [
        replace(BASE, reward=replace(BASE.reward, name=name), evaluation=replace(BASE.evaluation, limit=limit))
        for name, limit in limits.items()
    ]
    assert run_names([as_dict(one) for one in runs]) == [
        f"reward={name}, evaluation.limit={'null' if limit is None else limit}" for name, limit in limits.items()
    ]


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
    assert named(more, {})[0] == "trainer.lr=0.5, max_steps=3"
    other = {"trainer": replace(BASE.trainer, kl_coef=0.5, temperature=0.5, credit="answer")}
    assert named(more, {}, rank, other) == [
        "trainer.lr=0.5, max_steps=3", "settings of most", "reward=rank",
        "credit=answer, kl_coef=0.5, temperature=0.5",
    ], "unlike runs are named by what most others do not share"  # fmt: skip
