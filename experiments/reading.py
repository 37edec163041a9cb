"""Runs of a study, read from their folders alone, and what seeds and pictures say about them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.evaluation.metrics import paired_bootstrap
from aes_r1.settings import InputError, differences

METRICS = ("srcc", "plcc", "mae")


@dataclass(frozen=True)
class Run:
    """One finished run folder."""

    folder: Path
    settings: Mapping[str, Any]
    evaluation: Mapping[str, Any]

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    def metrics(self, stage: str) -> list[dict]:
        return [row for row in read_rows(self.folder / "metrics.jsonl") if row["stage"] == stage]

    def answers(self, stage: str, place: str, protocol: str) -> dict[str, tuple[float | None, float]]:
        """{picture: (score or None, MOS)} of one set ("DATASET/SPLIT")."""
        return {
            row["id"]: (row["score"], row["mos"])
            for row in read_rows(self.folder / "predictions.jsonl")
            if row["stage"] == stage and row["protocol"] == protocol and f"{row['dataset']}/{row['split']}" == place
        }


def read_rows(path: Path) -> list[dict]:
    """JSON lines; a last line cut short by a kill is left out."""
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def read_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """Finished runs below `folder`, and one line for each that is not. InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; run the study's sweep first")
    runs, unfinished = [], []
    for path in sorted(folder.glob("*/settings.json")):
        evaluation = path.parent / "evaluation.json"
        if (path.parent / "stages" / "evaluation.json").exists():
            runs.append(Run(path.parent, json.loads(path.read_text()), json.loads(evaluation.read_text())))
        else:
            failure = path.parent / "failure.txt"
            reason = failure.read_text().strip() if failure.exists() else "stopped before its evaluation"
            unfinished.append(f"{path.parent.name}: {reason}")
    if not runs:
        raise InputError(f"{folder}: no finished run in it; run the study's sweep first")
    return runs, unfinished


def by_condition(
    runs: Sequence[Run], label: Callable[[Mapping[str, Any]], str], axes: Sequence[str]
) -> dict[str, dict[int, Run]]:
    """{condition: {seed: run}}. InputError when runs differ outside of `axes` (key prefixes) and the seed.

    So a leftover of another recipe in the same folder cannot slip into a table.
    """
    for run in runs[1:]:
        keys = differences(dict(runs[0].settings), dict(run.settings))
        strange = [key for key in keys if key != "seed" and not key.startswith(tuple(axes))]
        if strange:
            raise InputError(
                f"{run.folder} and {runs[0].folder} are of different recipes ({', '.join(strange[:3])}); keep one"
            )
    found: dict[str, dict[int, Run]] = {}
    for run in runs:
        seeds = found.setdefault(label(run.settings), {})
        if run.seed in seeds:
            raise InputError(f"{run.folder} and {seeds[run.seed].folder} are the same condition and seed; keep one")
        seeds[run.seed] = run
    return found


def over_seeds(values: Iterable[float | None]) -> dict[str, Any]:
    """Mean over seeds and its 95% t-interval: {"mean", "low", "high", "n"}; no interval from fewer than two."""
    from scipy import stats

    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not finite:
        return {"mean": None, "low": None, "high": None, "n": 0}
    mean = float(np.mean(finite))
    if len(finite) < 2:
        return {"mean": mean, "low": None, "high": None, "n": 1}
    half = float(stats.t.ppf(0.975, len(finite) - 1) * np.std(finite, ddof=1) / math.sqrt(len(finite)))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": len(finite)}


def paired(
    before: Mapping[int, Run],
    after: Mapping[int, Run],
    stages: tuple[str, str],
    place: str,
    protocol: str,
    n_bootstrap: int,
) -> dict[str, Any]:
    """Differences after - before of runs of the same seed on the same pictures.

    {METRIC: {"mean", "low", "high", "n", "seeds": {seed: {"difference", "low", "high", "p"}}}}: the outer interval is
    over seeds (t), the inner ones over pictures (paired bootstrap). With one seed only the inner one is there.
    """
    per_seed = {}
    for seed in sorted(before.keys() & after.keys()):
        first = before[seed].answers(stages[0], place, protocol)
        second = after[seed].answers(stages[1], place, protocol)
        shared = [key for key in second if key in first]
        if shared:
            scores = ([first[key][0] for key in shared], [second[key][0] for key in shared])
            mos = [second[key][1] for key in shared]
            per_seed[seed] = paired_bootstrap(*scores, mos, n_bootstrap=n_bootstrap, seed=seed)
    return {
        metric: {
            **over_seeds(found[metric]["difference"] for found in per_seed.values()),
            "seeds": {seed: found[metric] for seed, found in per_seed.items()},
        }
        for metric in METRICS
    }
