"""Summarise several runs of one recipe over train/test splits and seeds: mean, spread, interval of the mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.evaluation.bootstrap import METRICS
from aes_r1.runs.folder import RunFolder
from aes_r1.runs.identity import differences
from aes_r1.settings import InputError

_POSSIBLE = {**dict.fromkeys(("plcc", "srcc", "krcc"), (-1.0, 1.0)), **dict.fromkeys(("mae", "rmse"), (0.0, math.inf))}
_TOO_FEW = "too few runs for an interval"


def across_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """Return {"runs": [{"run", "split", "seed"}], "stages": {STAGE: {SET: {PROTOCOL: {METRIC: ..}}}}}.

    split is data.split_seed (null: the published split). Each metric is summarised by `summarise_values`.
    Raises InputError for fewer than two runs, where a run has no evaluation, and where two runs differ in more than
    split and seed, or in neither.
    """
    runs: list[dict[str, Any]] = []
    for folder in folders:
        run = _run(folder)
        for earlier in runs:
            differing = set(differences(earlier["settings"], run["settings"]))
            if not_seeds := sorted(differing - {"seed", "data.split_seed"}):
                raise InputError(
                    f"{folder}: differs from {earlier['run']} in {', '.join(not_seeds)}, not only in its seed"
                )
            if not differing:
                raise InputError(f"{folder}: has the seed and split of {earlier['run']}; give each run once")
        runs.append(run)
    if len(folders) < 2:
        raise InputError(f"runs={[str(folder) for folder in folders]}: give two finished runs or more")
    stages = {
        stage: {
            name: {protocol: _over_runs(runs, stage, name, protocol) for protocol in protocols}
            for name, protocols in sets.items()
            if protocols
        }
        for stage, sets in runs[0]["stages"].items()
        if any(sets.values())
    }
    return {"runs": [{key: run[key] for key in ("run", "split", "seed")} for run in runs], "stages": stages}


def _over_runs(runs: Sequence[Mapping[str, Any]], stage: str, name: str, protocol: str) -> dict[str, Any]:
    """Summarise the metrics of one stage, set and protocol over the runs that have it."""
    cells = [(run, run["stages"].get(stage, {}).get(name, {}).get(protocol)) for run in runs]
    present = [(run, cell) for run, cell in cells if cell]
    shares = [_tested_per_trained(run, name, cell["n"]) for run, cell in present]
    largest = None if None in shares else max(share for share in shares if share is not None)
    return {
        metric: summarise_values(
            ((run["split"], cell[metric]["value"]) for run, cell in present),
            tested_per_trained=largest,
            possible=_POSSIBLE[metric],
        )
        for metric in METRICS
    }


def _tested_per_trained(run: Mapping[str, Any], name: str, tested: int) -> float | None:
    """Return test pictures per training picture of the set that data.split_seed re-splits; 0 for any other set.

    None where the run recorded no number of training pictures.
    """
    dataset = run["settings"].get("data", {}).get("name")
    if name in run["counts"] and name.rpartition("/")[0] != dataset:
        return 0.0
    trained = run["counts"].get(f"{dataset}/train")
    return tested / trained if trained else None


def summarise_values(
    values: Iterable[tuple[int | None, float | None]],
    *,
    tested_per_trained: float | None,
    possible: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, Any]:
    """Return {"value", "low", "high", "no_interval", "std", "std_splits", "std_seeds", "n"} of (split, value) pairs.

    value: the mean; low, high: its 95% t-interval. With several splits the runs of one split, which share their test
    pictures, are averaged first; the interval is over split means. Splits of one set share pictures, so their means
    scatter less than those of new sets would: the half-width is multiplied by sqrt(1 + n_splits * tested_per_trained),
    with the test pictures per training picture (Nadeau and Bengio 2003, eq. 7). Where that is None, a mean over several
    splits has no interval. The interval of a mean of two values is left out if it would leave `possible`, the smallest
    and the largest value of the metric, because it would then only reflect the t-distribution with one degree of
    freedom. no_interval: the reason why there is no interval, null where there is one. std: standard deviation of all
    values; std_seeds: the pooled one within splits; std_splits: that of split means.
    """
    from scipy import stats

    by_split: dict[int | None, list[float]] = {}
    for split, value in values:
        if value is not None:
            by_split.setdefault(split, []).append(value)
    all_values = [value for group in by_split.values() for value in group]
    means = [float(np.mean(group)) for group in by_split.values()]
    samples = means if len(means) > 1 else all_values
    degrees_of_freedom = sum(len(group) - 1 for group in by_split.values())
    squares = sum(float(np.var(group)) * len(group) for group in by_split.values())
    summary: dict[str, Any] = {"n": len(all_values), "value": None, "low": None, "high": None}
    if samples:
        summary["value"] = float(np.mean(samples))
    shared = tested_per_trained if len(means) > 1 else 0.0
    if len(samples) > 1 and shared is not None:
        half_width = stats.t.ppf(0.975, len(samples) - 1) * np.std(samples, ddof=1) / np.sqrt(len(samples))
        half_width *= np.sqrt(1 + len(samples) * shared)
        low, high = float(summary["value"] - half_width), float(summary["value"] + half_width)
        if len(samples) > 2 or possible[0] <= low <= high <= possible[1]:
            summary["low"], summary["high"] = low, high
    unknown = len(samples) > 1 and shared is None
    why = "a run recorded no number of training pictures" if unknown else _TOO_FEW
    summary["no_interval"] = why if samples and summary["low"] is None else None
    summary["std"] = float(np.std(all_values, ddof=1)) if len(all_values) > 1 else None
    summary["std_splits"] = float(np.std(means, ddof=1)) if len(means) > 1 else None
    summary["std_seeds"] = float(np.sqrt(squares / degrees_of_freedom)) if degrees_of_freedom else None
    return summary


def _run(folder: Path) -> dict[str, Any]:
    run = RunFolder(folder)
    for path in (run.evaluation_file, run.settings_file):
        if not path.exists():
            raise InputError(f"{path}: no such file; give the folder of a finished run")
    settings = run.settings
    return {
        "run": str(folder),
        "split": settings.get("data", {}).get("split_seed"),
        "seed": settings.get("seed"),
        "settings": settings,
        "counts": run.stage_values("data"),
        "stages": run.evaluation["stages"],
    }
