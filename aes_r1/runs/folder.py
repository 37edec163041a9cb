"""A run's folder on disk: stage markers, rows, log, failure reason, progress bars."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from aes_r1.runs.files import read_rows, write_rows
from aes_r1.runs.stopping import Stopped
from aes_r1.runs.watchdog import Watch
from aes_r1.settings import _LEFT_BY_FALSE_STARTS, InputError, Settings, as_dict, differences

log = logging.getLogger("aes_r1")


def stage_done(folder: Path, stage: str) -> bool:
    return (folder / "stages" / f"{stage}.json").exists()


def stage_values(folder: Path, stage: str) -> dict:
    """What the stage's done-marker says, {} while it is not done."""
    path = folder / "stages" / f"{stage}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def finish_stage(folder: Path, stage: str, values: dict) -> None:
    """Leave the done-marker RUN/stages/NAME.json."""
    path = folder / "stages" / f"{stage}.json"
    path.parent.mkdir(exist_ok=True)
    beside = path.with_suffix(".partial")
    beside.write_text(json.dumps(values) + "\n")
    beside.replace(path)  # a marker is whole or not there


@contextmanager
def worked_on(folder: Path, rank: int) -> Iterator[None]:
    """One process works on a run: InputError while another one does. Rank 0 is the one of several; the others pass.

    The kernel lets go of the lock when its holder ends, however it ends.
    """
    if rank > 0:
        yield
        return
    lock = FileLock(folder / ".lock")
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


def start_over(folder: Path) -> None:
    for name in (
        "checkpoints",
        "best",
        ".best.before",
        ".best.partial",
        "stages",
        "model",
        "wandb",
        "parts",
        "interventions",
        "information",
    ):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (
        "settings.json",
        "metrics.jsonl",
        "completions.jsonl",
        "predictions.jsonl",
        "evaluation.json",
        "failure.txt",
    ):
        (folder / name).unlink(missing_ok=True)


def log_to(folder: Path, rank: int) -> None:
    """What is said goes to the terminal and to RUN/run.log; ranks above 0 only warn."""
    log.handlers.clear()
    log.disabled = False  # Hydra switches off every logger that it finds
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    log.propagate = False
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if rank == 0:
        handlers.append(logging.FileHandler(folder / "run.log", encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
        log.addHandler(handler)


@contextmanager
def failure_file(folder: Path, rank: int, watch: Watch | None = None) -> Iterator[None]:
    """Leave the one-line reason of a failure in RUN/failure.txt; a new start takes an old one away.

    Of several processes the first to fail says it, or names the one that went without a word.
    """
    path = folder / "failure.txt"
    if rank == 0:
        path.unlink(missing_ok=True)
    try:
        yield
    except Stopped:
        raise  # asked for, and nothing is lost
    except BaseException as error:
        lines = str(error).splitlines()
        reason = f"rank {rank}: {type(error).__name__}: {lines[0] if lines else ''}"
        if watch is not None:
            reason = watch.cause(error) or reason
            watch.failed(reason)
            log.error("rank %d leaves because of %s", rank, reason)
        write_failure(path, reason)
        raise
    finally:
        if watch is not None:
            watch.end()


def write_failure(path: Path, reason: str) -> None:
    """The first reason stays: what fails later fails because of it."""
    with suppress(OSError), path.open("x") as file:
        file.write(reason + "\n")


def watch_over(folder: Path, rank: int, size: int) -> Watch:
    """Watch over the processes that a launcher started."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return Watch(rank, size, host, port, lambda reason: write_failure(folder / "failure.txt", reason))


@contextmanager
def progress_bars() -> Iterator[Callable[[str], Callable[[int, int, str], None]]]:
    """Progress bars: `bar(name)` makes one, which is then called with (done, total, text)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[text]}"),
    )
    with Progress(*columns) as progress:

        def bar(name: str) -> Callable[[int, int, str], None]:
            task = progress.add_task(name, total=None, text="")
            return lambda done, total, text: progress.update(task, completed=done, total=total, text=text)

        yield bar


def cut_rows(path: Path, step: int) -> None:
    """Forget metric rows after `step`: training goes on from there."""
    if path.exists():
        write_rows(path, [row for row in read_rows(path) if row["step"] <= step])


def claim_run_folder(folder: Path, settings: Settings) -> None:
    """Write settings.json into `folder`, or check that the one there says the same; other settings are refused."""
    path = folder / "settings.json"
    mine = as_dict(settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if path.exists() and any(entry.name not in _LEFT_BY_FALSE_STARTS for entry in folder.iterdir()):
            theirs = json.loads(path.read_text())
            differing = differences(theirs, mine)
            if differing:
                raise InputError(
                    f"{folder} was written by other settings ({', '.join(differing[:4])}); give another out="
                )
            return
        beside = path.with_suffix(".partial")
        beside.write_text(json.dumps(mine, indent=2, sort_keys=True) + "\n")
        beside.replace(path)
    except OSError as error:
        raise InputError(f"out={folder}: {error.strerror}; give a folder that can be written") from error
