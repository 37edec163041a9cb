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

    split is data.split_seed (null: the published split). Each metric is what `over` makes of its values by split.
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
                there = [(run["split"], cell) for run, cell in cells if cell]
                stages.setdefault(stage, {}).setdefault(name, {})[protocol] = {
                    metric: over((split, cell[metric]["value"]) for split, cell in there) for metric in METRICS
                }
    return {"runs": [{key: run[key] for key in ("run", "split", "seed")} for run in runs], "stages": stages}


def over(values: Iterable[tuple[int | None, float | None]]) -> dict[str, Any]:
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
    everything = [value for group in by_split.values() for value in group]
    means = [float(np.mean(group)) for group in by_split.values()]
    units = means if len(means) > 1 else everything
    freedom = sum(len(group) - 1 for group in by_split.values())
    within = sum(float(np.var(group)) * len(group) for group in by_split.values())
    answer: dict[str, Any] = {"n": len(everything), "value": None, "low": None, "high": None}
    if units:
        answer["value"] = float(np.mean(units))
    if len(units) > 1:
        reach = stats.t.ppf(0.975, len(units) - 1) * np.std(units, ddof=1) / np.sqrt(len(units))
        answer["low"], answer["high"] = float(answer["value"] - reach), float(answer["value"] + reach)
    answer["std"] = float(np.std(everything, ddof=1)) if len(everything) > 1 else None
    answer["std_splits"] = float(np.std(means, ddof=1)) if len(means) > 1 else None
    answer["std_seeds"] = float(np.sqrt(within / freedom)) if freedom else None
    return answer


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
