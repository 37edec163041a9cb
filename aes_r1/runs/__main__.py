"""List runs: `aes-r1 runs [FOLDER]`, or `python -m aes_r1.runs`.

`--clean` removes what false starts left, which are starts that ended before they had any result.
"""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

import argparse
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from aes_r1.arguments import OneLineParser, run_argparse
from aes_r1.report.studies import run_names
from aes_r1.runs.claim import is_false_start, is_held, run_lock, withdraw
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError, place
from aes_r1.tracking.headline import headline, headline_origin

_DEFAULT = "runs"  # the folder in which training writes its runs
_STATE_WIDTH = 60  # characters of the column of states


def run(parsed: argparse.Namespace) -> int:
    """List or clean; return the exit code."""
    root = place(parsed.folder)
    if parsed.folder == _DEFAULT and not root.exists():
        raise InputError(
            f"{root}/: not here, so nothing was trained from this folder yet; aes-r1 train +experiment=.. starts a run "
            "(aes-r1 train --help), and aes-r1 runs FOLDER lists those of another folder"
        )
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give the one that holds runs")
    if parsed.clean:
        clean(root)
    else:
        print_runs(root)
    return 0


def print_runs(root: Path) -> None:
    """Print a table of the runs of every study below `root`."""
    studies: dict[Path, list[RunFolder]] = {}
    for folder in _folders(root):
        studies.setdefault(folder.parent, []).append(RunFolder(folder))
    false_starts = sum(_is_left(run) for runs in studies.values() for run in runs)
    table = Table("run", "state", "SRCC", "measured on", "folder", box=None, pad_edge=False)
    if not studies:
        is_run = RunFolder(root).exists
        cure = f"it is a run itself; give {root.absolute().parent}" if is_run else "give the folder that holds runs"
        print(f"{root}: no run in it; {cure}")
        return
    for runs in studies.values():
        started = [run for run in runs if run.exists and not _is_left(run)]
        rows = [table_row(run) for run in started]
        names = run_names([row["settings"] for row in rows])
        for row, name in sorted(zip(rows, names, strict=True), key=lambda pair: pair[1]):
            study = Path(row["folder"]).parent.name
            table.add_row(f"{study}: {name}", row["state"], row["srcc"], row["measured_on"], row["folder"])
    Console(width=None if Console().is_terminal else 200, markup=False, emoji=False).print(table)
    if false_starts:
        print(f"{false_starts} left by false starts; aes-r1 runs --clean removes them")


def table_row(run: RunFolder) -> dict[str, Any]:
    """Return a run's settings, state, headline SRCC with its interval, where that was measured, and folder."""
    state = {True: "running", False: _short(run.state), None: _unknown(run)}[is_held(run)]
    return {
        "settings": run.settings,
        "state": state,
        "srcc": _srcc(headline(run.evaluation, run.last_stage)),
        "measured_on": headline_origin(run.evaluation, run.last_stage),
        "folder": str(run),
    }


def _unknown(run: RunFolder) -> str:
    """Return the state of a run whose lock cannot be tested: unless it is done, a process may work on it."""
    return run.state if run.state == "done" else f"unknown ({run.lock_file.name} cannot be read)"


def _short(state: str) -> str:
    """Return a run's state, shortened to the width of a column; failure.txt holds the whole reason of a failure."""
    reason = re.sub(r"^failed: rank \d+: (\w+: )?", "failed: ", state)
    return textwrap.shorten(reason, _STATE_WIDTH, placeholder=" ..")


def _srcc(headline: Mapping[str, float]) -> str:
    if "srcc" not in headline:
        return ""
    interval = f" [{headline['srcc_low']:.3f}, {headline['srcc_high']:.3f}]" if "srcc_low" in headline else ""
    return f"{headline['srcc']:.3f}{interval}"


def clean(root: Path) -> None:
    """Remove the folders below `root` that hold no result and that no process works in, and name them."""
    removed = []
    for folder in _folders(root):
        run = RunFolder(folder)
        if not _is_left(run):
            continue
        why = run.failure or ("nothing but settings" if run.exists else "empty")
        try:
            with run_lock(folder, 0):
                is_removed = withdraw(folder)  # unless a start has worked in it meanwhile
        except InputError:
            print(f"kept {folder}, in which a process works or nothing may be written")
            continue
        if is_removed:
            removed.append(folder)
            print(f"removed {folder} ({why})")
    for study in {folder.parent for folder in removed} - {root}:
        if not any(study.iterdir()):
            study.rmdir()
    print(f"removed {len(removed)} folder{'s' * (len(removed) != 1)}" if removed else "nothing to remove")


def _folders(root: Path) -> Sequence[Path]:
    """Return the folders of runs and of false starts in `root` and in the studies in it, but none inside a run."""
    children = _inside(root)
    folders = _of_study(children)
    for study in children:
        if study not in folders:
            folders += _of_study(_inside(study))
    return sorted(folders)


def _of_study(folders: Sequence[Path]) -> list[Path]:
    """Return the runs and false starts among `folders`, or none if no run was started there: it is then no study."""
    if not any(_is_started(folder) for folder in folders):
        return []
    return [folder for folder in folders if _is_started(folder) or is_false_start(RunFolder(folder))]


def _inside(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and path.name[0] != "." and path.name != "sweeps"]


def _is_started(folder: Path) -> bool:
    run = RunFolder(folder)
    return run.exists or run.failure_file.exists()


def _is_left(run: RunFolder) -> bool:
    """Return whether a false start left the folder: it holds no result, and no process works in it."""
    return is_false_start(run) and is_held(run) is False


def arguments() -> OneLineParser:
    """Build the parser of the command line."""
    parser = OneLineParser(
        prog="aes-r1 runs",
        description="List runs with the settings in which those of a study differ, their state, SRCC and folder.",
        examples="aes-r1 runs\naes-r1 runs runs/reward_ablation\naes-r1 runs --clean",
    )
    parser.add_argument(
        "folder", nargs="?", default=_DEFAULT, metavar="FOLDER", help=f"that holds runs (default: {_DEFAULT})"
    )
    parser.add_argument("--clean", action="store_true", help="remove folders without a result that false starts left")
    return parser


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    run_argparse(arguments(), run)


if __name__ == "__main__":
    main()
