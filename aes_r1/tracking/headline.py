"""Choose the numbers by which tables of runs are sorted."""

from __future__ import annotations

from collections.abc import Mapping

from aes_r1.runs.cells import Evaluation, MetricName

HEADLINE_METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "mae")
SUMMARY_METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "krcc", "mae")


def headline(evaluation: Evaluation) -> dict[str, float]:
    """Return srcc, plcc and mae with _low and _high, and parse_failure_rate, of the headline cell.

    The headline cell is that of the last stage, first set and first protocol. Empty without an evaluated stage.
    """
    stages = evaluation.get("stages")
    if not stages:
        return {}
    sets = list(stages.values())[-1]
    cell = next(iter(next(iter(sets.values())).values()))
    values: dict[str, float | None] = {}
    for metric in HEADLINE_METRICS:
        interval = cell[metric]
        values |= {metric: interval["value"], f"{metric}_low": interval["low"], f"{metric}_high": interval["high"]}
    values["parse_failure_rate"] = cell.get("parse_failure_rate")
    return {name: value for name, value in values.items() if value is not None}


def summary_of(evaluation: Evaluation) -> dict[str, float]:
    """Return headline/* and STAGE/DATASET/SPLIT/PROTOCOL/metric, the columns by which runs can be sorted."""
    columns = {f"headline/{name}": value for name, value in headline(evaluation).items()}
    for stage, sets in evaluation["stages"].items():
        for dataset, protocols in sets.items():
            for protocol, cell in protocols.items():
                prefix = f"{stage}/{dataset}/{protocol}"
                values: dict[str, float | None] = {metric: cell[metric]["value"] for metric in SUMMARY_METRICS}
                for name, measured in cell.get("critiques", {}).items():
                    if isinstance(measured, Mapping):
                        values[f"critiques/{name}"] = measured["value"]
                columns |= {f"{prefix}/{name}": value for name, value in values.items() if value is not None}
    return columns
