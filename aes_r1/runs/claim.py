"""Claim a run's folder: it belongs to one recipe, and one process at a time works in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from aes_r1.runs.files import draft_of, write_json
from aes_r1.runs.folder import EXAMINED, RunFolder
from aes_r1.runs.identity import changed_on_resume, differences
from aes_r1.settings import EvaluateSettings, InputError, Settings, as_dict


@contextmanager
def run_lock(folder: Path, rank: int) -> Iterator[None]:
    """Hold the lock of the run's folder for the block. Only rank 0 takes it. InputError if another process holds it.

    The kernel releases the lock when its holder ends, even by a kill.
    """
    if rank > 0:
        yield
        return
    lock = FileLock(RunFolder(folder).lock_file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(
            f"{folder}: another process works on this run; wait for its end, stop it, or give another out="
        ) from None
    except OSError as error:
        raise InputError(f"out={folder}: {error.strerror}; give a folder that can be written") from error
    try:
        yield
    finally:
        lock.release()


def require_own(folder: Path, settings: Settings | EvaluateSettings) -> bool:
    """Return whether `folder` holds the run of `settings`. InputError where it holds that of other settings."""
    run = RunFolder(folder)
    if not run.exists or all(entry.name in _left_by_false_starts(run) for entry in folder.iterdir()):
        return False
    differing = differences(run.settings, as_dict(settings))
    if differing:
        raise InputError(f"{folder} was written by other settings ({', '.join(differing[:4])}); give another out=")
    return True


def claim_run_folder(folder: Path, settings: Settings | EvaluateSettings) -> None:
    """Write the settings into `folder`, or check that the settings there are the same; others are refused.

    Settings that may change without changing the run (model.kernels, processes, ..) are recorded for each start at
    which they do.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run, mine = RunFolder(folder), as_dict(settings)
        if not require_own(folder, settings):
            run.resumed_file.unlink(missing_ok=True)
            write_json(run.settings_file, mine, sort_keys=True)
            return
        changed = changed_on_resume(run.latest_settings, mine)
        if changed:
            write_json(run.resumed_file, {"starts": [*run.resumed, changed]})
    except OSError as error:
        raise InputError(f"out={folder}: {error.strerror}; give a folder that can be written") from error


def _left_by_false_starts(run: RunFolder) -> set[str]:
    """Return the names of the files that a run leaves when it fails before its first result.

    A folder with no others may be used by a corrected command.
    """
    files = run.settings_file, draft_of(run.settings_file), run.log_file, run.failure_file, run.wandb, run.lock_file
    return {path.name for path in (*files, run.resumed_file)}


def is_false_start(run: RunFolder) -> bool:
    """Return whether the folder of `run` holds nothing, or only what a run leaves that ends before it trains.

    Other programs name folders alike, for example `wandb` and `manifests`. So a folder that holds something counts only
    if a run has claimed it, and if these folders in it hold what a run writes there.
    """
    if not run.path.is_dir() or any(run.stage_done(name) for name in ("cold_start", "rapo", "evaluation", "report")):
        return False
    entries = list(run.path.iterdir())
    if not {run.settings_file, run.failure_file, run.lock_file} & set(entries):
        return not entries
    if run.wandb in entries and not (run.wandb / "run_id").exists():
        return False
    if not (_holds_only(run.stages, {".json"}) and _holds_only(run.manifests, {".jsonl", ".arrow"})):
        return False
    before = {run.manifests.name, run.stages.name}
    return all(entry.name in _left_by_false_starts(run) | before for entry in entries)


def _holds_only(folder: Path, suffixes: set[str]) -> bool:
    """Return whether all that `folder` holds has one of these suffixes, which is so where there is no such folder."""
    return all(path.suffix in suffixes for path in folder.glob("*"))


def withdraw(folder: Path) -> bool:
    """Delete `folder` where a false start alone is in it; return whether that was so."""
    if not is_false_start(RunFolder(folder)):
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


@contextmanager
def withdrawn_on_input_error(folder: Path, rank: int) -> Iterator[None]:
    """Delete the folder of a run that wrong input ends before its first result. Only rank 0 deletes.

    A folder that was there before may be another run's, which refused this one, and stays.
    """
    was_there = RunFolder(folder).exists
    try:
        yield
    except InputError:
        if rank == 0 and not was_there:
            withdraw(folder)
        raise


def start_over(folder: Path) -> None:
    """Delete all that a run left in `folder`, its lists of pictures too, except its log; only a run's folder."""
    run = RunFolder(folder)
    if not run.exists:
        return
    drafts = folder.glob(f".{run.best.name}.*")  # drafts of a best model that was being replaced
    kinds = [folder / kind for kind in EXAMINED]
    folders = run.checkpoints, run.best, run.stages, run.model, run.manifests, run.all_parts, run.all_baselines
    for path in (*folders, run.wandb, run.tensorboard, run.traces, *drafts, *kinds):
        shutil.rmtree(path, ignore_errors=True)
    for path in (
        run.metrics_file,
        run.completions_file,
        run.entropy_file,
        run.predictions_file,
        run.pairs_file,
        run.evaluation_file,
        run.verdicts_file,
        run.judge_rewards_file,
        run.report_file,
        run.failure_file,
        run.custom_reward_file,
        run.resumed_file,
        run.settings_file,  # last: as long as it is there, a start that is killed here knows that this is a run
    ):
        path.unlink(missing_ok=True)
