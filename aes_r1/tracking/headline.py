"""Choose the numbers by which tables of runs are sorted."""

from __future__ import annotations

from collections.abc import Mapping

from aes_r1.runs.cells import Evaluation, MetricName, Stages

HEADLINE_METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "mae")
SUMMARY_METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "krcc", "mae")


def headline_key(stages: Stages) -> tuple[str, str, str]:
    """Return (last stage, its first set, its first protocol there), whose cell holds a run's headline numbers.

    evaluation.json holds the protocols of a set in their fixed order, the one sampled answer first.
    """
    stage, sets = list(stages.items())[-1]
    dataset, cells = next(iter(sets.items()))
    return stage, dataset, next(iter(cells))


def headline(evaluation: Evaluation) -> dict[str, float]:
    """Return srcc, plcc and mae with _low and _high, and parse_failure_rate, of the headline cell.

    Empty without an evaluated stage.
    """
    stages = evaluation.get("stages")
    if not stages:
        return {}
    stage, dataset, protocol = headline_key(stages)
    cell = stages[stage][dataset][protocol]
    values: dict[str, float | None] = {}
    for metric in HEADLINE_METRICS:
        interval = cell[metric]
        values |= {metric: interval["value"], f"{metric}_low": interval["low"], f"{metric}_high": interval["high"]}
    values["parse_failure_rate"] = cell.get("parse_failure_rate")
    return {name: value for name, value in values.items() if value is not None}


def headline_origin(evaluation: Evaluation) -> str:
    """Say what the headline numbers were measured on: "sample, scenes/test, n 600"; empty without any."""
    stages = evaluation.get("stages")
    if not stages:
        return ""
    stage, dataset, protocol = headline_key(stages)
    return f"{protocol}, {dataset}, n {stages[stage][dataset][protocol]['n']}"


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
