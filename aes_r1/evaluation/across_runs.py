"""Summarise several runs of one recipe over train/test splits and seeds: mean, spread, interval of the mean."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aes_r1.evaluation.bootstrap import METRICS
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError


def across_runs(folders: Sequence[Path]) -> dict[str, Any]:
    """Return {"runs": [{"run", "split", "seed"}], "stages": {STAGE: {SET: {PROTOCOL: {METRIC: ..}}}}}.

    split is data.split_seed (null: the published split). Each metric is summarised by `summarise_values`.
    Raises InputError where a run has no evaluation, or two runs differ in more than split and seed.
    """
    runs = [_run(folder) for folder in folders]
    if len(runs) < 2:
        raise InputError(f"runs={[str(folder) for folder in folders]}: give two finished runs or more")
    first = runs[0]
    for run in runs[1:]:
        if differing := sorted(key for key in first["recipe"] if first["recipe"][key] != run["recipe"].get(key)):
            raise InputError(
                f"{run['run']}: differs from {first['run']} in {', '.join(differing)}, not only in its seed"
            )
    stages: dict[str, Any] = {}
    for stage, sets in first["stages"].items():
        for name, protocols in sets.items():
            for protocol in protocols:
                cells = [(run, run["stages"].get(stage, {}).get(name, {}).get(protocol)) for run in runs]
                present = [(run["split"], cell) for run, cell in cells if cell]
                stages.setdefault(stage, {}).setdefault(name, {})[protocol] = {
                    metric: summarise_values((split, cell[metric]["value"]) for split, cell in present)
                    for metric in METRICS
                }
    return {"runs": [{key: run[key] for key in ("run", "split", "seed")} for run in runs], "stages": stages}


def summarise_values(values: Iterable[tuple[int | None, float | None]]) -> dict[str, Any]:
    """Return {"value", "low", "high", "std", "std_splits", "std_seeds", "n"} of (split, value) pairs.

    value: the mean; low, high: its 95% t-interval. With several splits the runs of one split, which share their test
    pictures, are averaged first; the interval is over split means. std_seeds: pooled standard deviation within splits;
    std_splits: standard deviation of split means.
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
    if len(samples) > 1:
        half_width = stats.t.ppf(0.975, len(samples) - 1) * np.std(samples, ddof=1) / np.sqrt(len(samples))
        summary["low"], summary["high"] = float(summary["value"] - half_width), float(summary["value"] + half_width)
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
    recipe = {name: settings.get(name) for name in ("model", "reward", "cold_start", "trainer")}
    recipe["data"] = _without(settings.get("data", {}), "split_seed")
    return {
        "run": str(folder),
        "split": settings.get("data", {}).get("split_seed"),
        "seed": settings.get("seed"),
        "recipe": recipe,
        "stages": run.evaluation["stages"],
    }


def _without(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != key}
