"""Read the runs of a study from their folders, and compute means and differences over seeds and pictures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.evaluation.metrics import paired_bootstrap
from aes_r1.runs.cells import Evaluation
from aes_r1.runs.folder import RunFolder, runs_below
from aes_r1.runs.identity import differences
from aes_r1.settings import InputError

METRICS = ("srcc", "plcc", "mae")
REPLICATE = ("seed", "model.pretrain.seed", "data.root")  # settings in which the runs of one condition may differ
NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Run:
    """One finished run, whose settings and evaluation were read once."""

    folder: RunFolder
    settings: Mapping[str, Any]
    evaluation: Evaluation

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    @property
    def lists(self) -> Mapping[str, str]:
        """The SHA-256 of every list of pictures, by "DATASET/SPLIT"."""
        return self.evaluation.get("manifests", {})

    @property
    def origin(self) -> Mapping[str, Any]:
        """The commits and the base model that the folder records; empty where it records none."""
        return self.folder.origin

    def metrics(self, stage: str) -> list[dict]:
        return self.folder.metrics(stage)

    def answers(self, stage: str, dataset: str, protocol: str) -> dict[str, tuple[float | None, float]]:
        """Return {picture: (score or None, MOS)} of one set ("DATASET/SPLIT")."""
        return {
            row["id"]: (row["score"], row["mos"])
            for row in self.folder.predictions(stage, protocol)
            if f"{row['dataset']}/{row['split']}" == dataset
        }


RunsByCondition = Mapping[str, Mapping[int, Run]]  # {condition: {seed: run}}


def read_runs(folder: Path) -> tuple[list[Run], list[RunFolder]]:
    """Return finished runs below `folder`, and the others. InputError when there is no finished one."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; run the study's sweep first")
    runs, unfinished = [], []
    for run in runs_below(folder):
        if run.stage_done("evaluation"):
            runs.append(Run(run, run.settings, run.evaluation))
        else:
            unfinished.append(run)
    if not runs:
        raise InputError(f"{folder}: no finished run in it; run the study's sweep first")
    return runs, unfinished


def why_unfinished(runs: Iterable[RunFolder]) -> list[str]:
    """Return a line for each run: its folder, and why it is not finished."""
    return [f"{run.path.name}: {run.failure or 'stopped before its evaluation'}" for run in runs]


def by_condition(
    runs: Sequence[Run], label: Callable[[Mapping[str, Any]], str], axes: Sequence[str]
) -> dict[str, dict[int, Run]]:
    """Return {condition: {seed: run}}. InputError when runs differ outside of `axes` (key prefixes) and the seed.

    Runs of one condition differ in what a replicate is (REPLICATE) and in nothing else. So a leftover run of another
    recipe in the same folder cannot enter a table.
    """
    for run in runs[1:]:
        keys = differences(dict(runs[0].settings), dict(run.settings))
        strange = [key for key in keys if key != "seed" and not key.startswith(tuple(axes))]
        if strange:
            raise InputError(
                f"{run.folder} and {runs[0].folder} are of different recipes ({', '.join(strange[:3])}); keep one"
            )
    grouped: dict[str, dict[int, Run]] = {}
    for run in runs:
        name = label(run.settings)
        seeds = grouped.setdefault(name, {})
        other = next(iter(seeds.values()), run)
        strange = [key for key in differences(dict(other.settings), dict(run.settings)) if key not in REPLICATE]
        if strange:
            raise InputError(
                f"{run.folder} and {other.folder} are one condition ({name}) and differ in {', '.join(strange[:3])}; "
                "keep one"
            )
        if run.seed in seeds:
            raise InputError(f"{run.folder} and {seeds[run.seed].folder} are the same condition and seed; keep one")
        seeds[run.seed] = run
    return grouped


def check_pictures(runs: Sequence[Run]) -> None:
    """Raise InputError when two runs of one seed answered different lists of pictures and cannot be paired."""
    first: dict[tuple[int, str], Run] = {}
    for run in runs:
        for dataset, digest in run.lists.items():
            other = first.setdefault((run.seed, dataset), run)
            if other.lists[dataset] != digest:
                raise InputError(
                    f"{run.folder} and {other.folder} answered different pictures of {dataset}; "
                    "evaluate both on the same list"
                )


def origins(runs: Sequence[Run]) -> dict[str, dict[str, int]]:
    """Return {"commits": {commit: number of runs}, "base": {digest: number of runs}}, or "not recorded".

    InputError when two runs of one seed started from different base models: nothing pairs them.
    """
    commits, bases = Counter[str](), Counter[str]()
    first: dict[int, Run] = {}
    for run in runs:
        commits["+".join(run.origin.get("commits", [])) or NOT_RECORDED] += 1
        base = run.origin.get("base") or NOT_RECORDED
        bases[base] += 1
        if base == NOT_RECORDED:
            continue
        other = first.setdefault(run.seed, run)
        if other.origin["base"] != base:
            raise InputError(f"{run.folder} and {other.folder} started from different base models; keep one")
    return {"commits": dict(commits), "base": dict(bases)}


def over_seeds(values: Iterable[float | None]) -> dict[str, Any]:
    """Return the mean over seeds and its 95% t-interval: {"mean", "low", "high", "n", "run"}.

    No interval from one seed.

    `run` counts the seeds, `n` those whose value is defined and in the mean. A run without answers, or with constant
    ones, has no correlation, so with n < run the mean is over a selection.
    """
    from scipy import stats

    values = list(values)
    finite = [value for value in values if value is not None and math.isfinite(value)]
    count = {"n": len(finite), "run": len(values)}
    if not finite:
        return {"mean": None, "low": None, "high": None, **count}
    mean = float(np.mean(finite))
    if len(finite) < 2:
        return {"mean": mean, "low": None, "high": None, **count}
    half = float(stats.t.ppf(0.975, len(finite) - 1) * np.std(finite, ddof=1) / math.sqrt(len(finite)))
    return {"mean": mean, "low": mean - half, "high": mean + half, **count}


def paired(
    before: Mapping[int, Run],
    after: Mapping[int, Run],
    stages: tuple[str, str],
    dataset: str,
    protocol: str,
    n_bootstrap: int,
) -> dict[str, Any]:
    """Compute differences after - before of runs of the same seed on the same pictures.

    {METRIC: {"mean", "low", "high", "n", "run", "seeds": {seed: {"difference", "low", "high", "p"}}}}: the outer
    interval is over seeds (t), the inner ones over pictures (paired bootstrap). One seed has only the inner one. Raises
    InputError when the two answered different pictures, or pictures with different opinions.
    """
    per_seed = {}
    for seed in sorted(before.keys() & after.keys()):
        first = before[seed].answers(stages[0], dataset, protocol)
        second = after[seed].answers(stages[1], dataset, protocol)
        if {key: mos for key, (_, mos) in first.items()} != {key: mos for key, (_, mos) in second.items()}:
            raise InputError(
                f"{after[seed].folder} ({stages[1]}) and {before[seed].folder} ({stages[0]}) answered different "
                f"pictures of {dataset}; evaluate both on the same list"
            )
        if not second:
            continue
        scores = ([first[key][0] for key in second], [value for value, _ in second.values()])
        mos = [value for _, value in second.values()]
        per_seed[seed] = paired_bootstrap(*scores, mos, n_bootstrap=n_bootstrap, seed=seed)
    return {
        metric: {
            **over_seeds(comparison[metric]["difference"] for comparison in per_seed.values()),
            "seeds": {seed: comparison[metric] for seed, comparison in per_seed.items()},
        }
        for metric in METRICS
    }
