"""Claim a run's folder: it belongs to one set of settings, and one process at a time works in it."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from aes_r1.runs.files import delete_left_drafts, is_draft_of, make_folder, write_json
from aes_r1.runs.folder import EXAMINED, RunFolder
from aes_r1.runs.identity import changed_on_resume, differences
from aes_r1.settings import EvaluateSettings, InputError, Settings, as_dict

_ASKED_S = 1.0  # how long the lock is tried for: a process that only tests whether it is held holds it briefly
_IN_USE = "{}: another process works on this run; wait for its end, stop it, or give another out="


@contextmanager
def run_lock(folder: Path, rank: int) -> Iterator[None]:
    """Hold the lock of the run's folder for the block. Only rank 0 takes it.

    InputError if another process holds it, or if the folder cannot be written. The kernel releases the lock when its
    holder ends, even by a kill.
    """
    if rank > 0:
        yield
        return
    lock = FileLock(RunFolder(folder).lock_file)
    try:
        make_folder(folder)  # where that is impossible, filelock would wait in vain
        for is_last in (False, False, True):
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lock.acquire(timeout=_ASKED_S, poll_interval=_ASKED_S / 50)
                break
            # `aes-r1 runs --clean` deleted the folder after it was made, or while mkdir tested whether it is one.
            except (FileNotFoundError, FileExistsError):
                if is_last:
                    raise
    except Timeout:
        raise InputError(_IN_USE.format(folder)) from None
    except OSError as error:
        raise InputError(f"out={folder}: {error.strerror}; give a folder that can be written") from error
    try:
        yield
    finally:
        lock.release()


def is_held(run: RunFolder) -> bool | None:
    """Return whether a process works in the folder of `run`; None where its lock cannot be tested.

    The test is a shared lock, so that two tests do not disturb each other, and it only needs permission to read.
    """
    try:
        file = run.lock_file.open("rb")
    except FileNotFoundError:
        return False
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return True if error.errno in (errno.EAGAIN, errno.EACCES) else None  # this disk has no locks
    return False


def require_free(folder: Path, rank: int) -> None:
    """Raise InputError where another process works on the run in `folder`. Only rank 0 tests it."""
    held = is_held(RunFolder(folder)) if rank == 0 else False
    if held:
        raise InputError(_IN_USE.format(folder))
    if held is None:  # a disk without locks, for which filelock has a substitute, or another user's folder
        with run_lock(folder, rank):
            pass


def require_own(folder: Path, settings: Settings | EvaluateSettings) -> bool:
    """Return whether `folder` holds the run of `settings`; InputError where it holds a run of other settings."""
    run = RunFolder(folder)
    if not run.exists or all(_is_left_by_false_starts(run, entry.name) for entry in folder.iterdir()):
        return False
    differing = differences(run.settings, as_dict(settings))
    if differing:
        raise InputError(f"{folder} was written by other settings ({', '.join(differing[:4])}); give another out=")
    return True


def claim_run_folder(folder: Path, settings: Settings | EvaluateSettings) -> None:
    """Write the settings into `folder`, or check that the settings there are the same.

    InputError where they are not, or where the folder cannot be written. Settings that change no result (model.kernels,
    processes, ..) may differ, which is recorded for each start.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        run, values = RunFolder(folder), as_dict(settings)
        if not require_own(folder, settings):
            run.resumed_file.unlink(missing_ok=True)
            write_json(run.settings_file, values, sort_keys=True)
            return
        changed = changed_on_resume(run.latest_settings, values)
        if changed:
            write_json(run.resumed_file, {"starts": [*run.resumed, changed]})
    except OSError as error:
        raise InputError(f"out={folder}: {error.strerror}; give a folder that can be written") from error


def _is_left_by_false_starts(run: RunFolder, name: str) -> bool:
    """Return whether `name` is a file that a run leaves when it fails before its first result.

    A folder that holds no other files may be used by a corrected command.
    """
    files = run.settings_file, run.log_file, run.failure_file, run.wandb, run.lock_file
    return name in {path.name for path in (*files, run.resumed_file)} or is_draft_of(run.settings_file, name)


def is_false_start(run: RunFolder) -> bool:
    """Return whether the folder of `run` is empty, or holds only what a run leaves that ends before it trains.

    Other programs use names such as `wandb` and `manifests`, too. So a folder that is not empty counts only if a run
    has claimed it, and if the folders of these names in it hold what a run writes there.
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
    return all(entry.name in before or _is_left_by_false_starts(run, entry.name) for entry in entries)


def _holds_only(folder: Path, suffixes: set[str]) -> bool:
    """Return whether everything in `folder` has one of these suffixes; true for a folder that is missing or empty."""
    return all(path.suffix in suffixes for path in folder.glob("*"))


def withdraw(folder: Path) -> bool:
    """Delete `folder` if it holds only a false start; return whether it is gone. The caller holds its lock.

    The lock file is deleted last, so that a start that waits for the lock finds either that file or an empty folder.
    """
    run = RunFolder(folder)
    if not is_false_start(run):
        return False
    for path in (*(inner for inner in folder.iterdir() if inner != run.lock_file), run.lock_file):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                path.unlink()
    with suppress(OSError):  # not empty: a start has come in between, or a file is another user's
        folder.rmdir()
    return not folder.exists()


@contextmanager
def withdrawn_on_input_error(folder: Path, rank: int) -> Iterator[None]:
    """Delete the folder of a run if an InputError ends the block before its first result. Only rank 0 deletes.

    A folder that held a run before the block stays: it may be another run's, for which this one was refused.
    """
    was_there = RunFolder(folder).exists
    try:
        yield
    except InputError:
        if rank == 0 and not was_there:
            withdraw(folder)
        raise


def start_over(folder: Path) -> None:
    """Delete what a run left in `folder`, also its lists of pictures, but not its log; other folders are left alone."""
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
        run.settings_file,  # last: if this start is killed here, the next one still knows a run's folder by it
    ):
        delete_left_drafts(path)
        path.unlink(missing_ok=True)
