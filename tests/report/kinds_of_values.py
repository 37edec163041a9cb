"""The folder of a small finished run with every file that commands read, and values of wrong kinds for its keys."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aes_r1.evaluation.across_runs import across_runs
from aes_r1.export import export
from aes_r1.inference.asking import profile_of_run
from aes_r1.model import tiny
from aes_r1.report.comparison_page import write_comparison
from aes_r1.report.run_page import write_report
from aes_r1.report.side_by_side_page import side_by_side
from aes_r1.report.studies import read_studies
from aes_r1.report.studies_page import static_page
from aes_r1.runs.__main__ import print_runs
from aes_r1.runs.files import append_rows, write_json, write_rows
from aes_r1.runs.folder import RunFolder
from tests.experiments.runs import write_study

WRONG = (None, "0.5", "NaN", float("nan"), float("inf"), -3, 2.5, True, 7, [], [None], {}, {"a": 1})


def write_runs(folder: Path, evaluation: dict[str, Any]) -> RunFolder:
    """Write a study and return one of its runs, which has all files and the `evaluation`."""
    study = write_study(folder / "runs") / "reward_ablation"
    for name in ("rank0", "rank1"):
        run = RunFolder(study / name)
        shutil.copytree(tiny.shipped(), run.model)
        shutil.copytree(tiny.shipped(), run.best_model)
        write_json(run.best / "validation.json", {"step": 2, "srcc": 0.5})
        run.finish_stage("data", {"scenes/train": 40, "scenes/validation": 5, "scenes/test": 80})
        run.finish_stage("origin", {"commits": ["0123456789ab"], "base": "a" * 64})
        done = {"model": str(run.model), "records": 40, "epochs": 3, "steps": 9, "min_steps": 0}
        run.finish_stage("cold_start", done)
        run.finish_stage("rapo", {"steps": 3})
        write_json(run.resumed_file, {"starts": [{"trainer.micro_batch_size": 4}]})
        rows = [
            {"stage": "rapo", "step": step, "id": f"{number:03d}", "image": "a.png", "k": k, "text": "no", "score": 0.5}
            for step in (1, 2)
            for number in range(2)
            for k in range(2)
        ]
        append_rows(run.completions_file, [{**row, "advantage": 0.1, "truncated": False} for row in rows])
        said = {"scores": [0.5], "out_of_range": 0, "text": "no", "image": "a.png", "mos_std": 0.1, "origin": None}
        answers = [
            {
                **row,
                **said,
                "critique": f"The light of {row['id']} is soft and its colors are calm.",
                "votes": [1, 2, 1],
            }
            for row in run.predictions()
        ]
        write_rows(run.predictions_file, answers)
        append_rows(run.entropy_file, [{"step": 1, "entropy": 1.5}, {"step": 2, "entropy": 1.0}])
    run = RunFolder(study / "rank0")
    write_json(run.evaluation_file, evaluation)
    return run


def views(run: RunFolder, out: Path) -> dict[str, Callable[[], Any]]:
    runs, other = run.path.parents[1], run.path.with_name("rank1")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    return {
        "report": lambda: write_report(run.path),
        "comparison": lambda: write_comparison([run.path, other], out / "comparison.html"),
        "dashboard": lambda: static_page(read_studies(runs), runs),
        "runs": lambda: print_runs(runs),
        "facts": lambda: profile_of_run(run, run.model),
        "across": lambda: across_runs([run.path, other]),
        "starts": lambda: side_by_side([run.path, other], out, pictures=3, n_bootstrap=20, seed=0),
        "export": lambda: export(run.path, out / "last"),
        "export best": lambda: export(run.path, out / "best", step="best"),
    }


def places_in(value: Any, before: tuple = ()) -> Iterator[tuple]:
    """The path of every value, of lists that of their first item."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:1]) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*before, key)
        yield from places_in(inner, (*before, key))


def replaced(values: dict, path: tuple, other: Any) -> dict:
    values = inner = copy.deepcopy(values)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = other
    return values


def mutations(file: Path, seed: int) -> Iterator[tuple[str, str]]:
    """Yield (what was changed, content of `file`) in a random order; of a file of rows the third is changed."""
    text = file.read_text()
    lines = text.splitlines(keepends=True) if file.suffix == ".jsonl" else [text]
    number = min(2, len(lines) - 1)
    whole = json.loads(lines[number])
    pairs = [(path, other) for path in places_in(whole) for other in WRONG]
    random.Random(seed).shuffle(pairs)
    for path, other in pairs:
        changed = json.dumps(replaced(whole, path, other), indent=None if file.suffix == ".jsonl" else 1)
        yield f"{'.'.join(map(str, path))}={other!r}", "".join([*lines[:number], changed + "\n", *lines[number + 1 :]])
