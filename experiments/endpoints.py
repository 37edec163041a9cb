"""Endpoints of a study beside PLCC, SRCC and MAE: numbers of a run's evaluation, by set, condition and replicate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aes_r1.settings import InputError
from experiments.blocks import contrasts
from experiments.reading import Run, RunsByCondition, over_seeds

Measure = Callable[[Run, str, str], float | None]  # of a run, a stage and a set
Row = Mapping[str, Any]
START = "cold start"  # a condition, too: that of the runs of the baseline, which most conditions start from


def endpoint_rows(
    measures: Mapping[str, Measure], runs: RunsByCondition, datasets: Sequence[str], baseline: str
) -> list[dict[str, Any]]:
    """Return a row for each set, endpoint and condition of the runs."""
    return compared(
        {
            (dataset, name): {
                START: {seed: measure(run, "cold_start", dataset) for seed, run in runs.get(baseline, {}).items()},
                **{
                    condition: {seed: measure(run, "rapo", dataset) for seed, run in by_seed.items()}
                    for condition, by_seed in runs.items()
                },
            }
            for dataset in datasets
            for name, measure in measures.items()
        },
        baseline,
    )


def compared(
    values: Mapping[tuple[str, str], Mapping[str, Mapping[Any, float | None]]], baseline: str
) -> list[dict[str, Any]]:
    """Return the rows of {(set, endpoint): {condition: {seed: value}}}.

    {"set", "endpoint", "condition", "mean", "low", "high", "n", "run", "seeds": {seed: value}, "difference": the
    contrast to `baseline` within replicates, or None}.
    """
    rows = []
    for (dataset, name), by_condition in values.items():
        after = {condition: by_seed for condition, by_seed in by_condition.items() if condition != START}
        differences = contrasts(after, baseline)
        rows += [
            {
                "set": dataset,
                "endpoint": name,
                "condition": condition,
                **over_seeds(by_seed.values()),
                "seeds": by_seed,
                "difference": differences.get(condition),
            }
            for condition, by_seed in by_condition.items()
        ]
    return rows


def join_endpoints(
    first: Sequence[Row], second: Sequence[Row], order: Sequence[str], baseline: str
) -> list[dict[str, Any]]:
    """Return the rows of the runs of both. InputError where both have a replicate with different values."""
    values: dict[tuple[str, str], dict[str, dict[Any, float | None]]] = {}
    for row in (*first, *second):
        by_condition = values.setdefault((row["set"], row["endpoint"]), {name: {} for name in (START, *order)})
        what = f"{row['endpoint']} of {row['condition']} ({row['set']})"
        by_condition[row["condition"]] = join_seeds(by_condition[row["condition"]], row["seeds"], what)
    present = {
        key: {condition: by_seed for condition, by_seed in by_condition.items() if by_seed}
        for key, by_condition in values.items()
    }
    return compared(present, baseline)


def join_seeds(first: Mapping[Any, Any], second: Mapping[Any, Any], what: str) -> dict[Any, Any]:
    """Return {seed: value} of both. InputError where both have a seed with different values."""
    for seed in first.keys() & second.keys():
        if first[seed] != second[seed]:
            raise InputError(f"both results hold {what}, replicate {seed}, with different values; leave one out")
    return {**first, **second}
