"""Choose the numbers of an evaluation that tables of runs show and are sorted by."""

from __future__ import annotations

from collections.abc import Mapping

from aes_r1.runs.cells import DISTANCES, METRIC, Evaluation, MetricName, Stages, last_model, measured_in

HEADLINE_METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "mae")
SUMMARY_METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "krcc", "mae")


def headline_key(stages: Stages, last_stage: str | None = None) -> tuple[str, str, str]:
    """Return (last model, its first set, its first protocol there), whose cell holds a run's headline numbers.

    The last model is that of cells.last_model, or the last stage where no stage is a model. evaluation.json holds the
    protocols of a set in a fixed order, in which sample, a single sampled answer, is first.
    """
    stage = last_model(measured_in(stages), last_stage) or next(reversed(stages))
    dataset, cells = next(iter(stages[stage].items()))
    return stage, dataset, next(iter(cells))


def headline(evaluation: Evaluation, last_stage: str | None = None) -> dict[str, float]:
    """Return srcc, plcc and mae with _low and _high, and parse_failure_rate, of the headline cell.

    Empty where `last_stage` (RunFolder.last_stage) was not evaluated, because the numbers of an earlier model are not
    the run's. With `last_stage` None the last model that was evaluated counts; a no-reference metric is not a model.
    """
    stages = evaluation.get("stages")
    if not stages or not _is_headed(stages, last_stage):
        return {}
    stage, dataset, protocol = headline_key(stages, last_stage)
    cell = stages[stage][dataset][protocol]
    values: dict[str, float | None] = {}
    for metric in HEADLINE_METRICS:
        interval = cell[metric]
        values |= {metric: interval["value"], f"{metric}_low": interval["low"], f"{metric}_high": interval["high"]}
    values["parse_failure_rate"] = cell.get("parse_failure_rate")
    return {name: value for name, value in values.items() if value is not None}


def _is_headed(stages: Stages, last_stage: str | None) -> bool:
    """Return whether the run's last model is among `stages`, or any model where `last_stage` is None."""
    model = last_model(measured_in(stages), last_stage)
    return model is not None and last_stage in (None, model)


def headline_set(evaluation: Evaluation, last_stage: str | None = None) -> str:
    """Return set and protocol of the headline numbers, "scenes/test, sample"; empty without a headline.

    Only headline numbers of the same set and protocol can be compared.
    """
    stages = evaluation.get("stages")
    if not stages or not _is_headed(stages, last_stage):
        return ""
    _, dataset, protocol = headline_key(stages, last_stage)
    return f"{dataset}, {protocol}"


def headline_origin(evaluation: Evaluation, last_stage: str | None = None) -> str:
    """Return protocol, set and size of the headline numbers, "sample, scenes/test, n 600"; empty without an evaluation.

    Where `last_stage` was not evaluated, return the stages that were: "base alone".
    """
    stages = evaluation.get("stages")
    if not stages:
        return ""
    if not _is_headed(stages, last_stage):
        return f"{', '.join(stages)} alone"
    stage, dataset, protocol = headline_key(stages, last_stage)
    return f"{protocol}, {dataset}, n {stages[stage][dataset][protocol]['n']}"


def headline_metrics(evaluation: Evaluation, last_stage: str | None = None) -> dict[str, float]:
    """Return headline/* and STAGE/DATASET/SPLIT/PROTOCOL/metric, the columns by which runs can be sorted."""
    columns = {f"headline/{name}": value for name, value in headline(evaluation, last_stage).items()}
    for stage, sets in evaluation["stages"].items():
        for dataset, protocols in sets.items():
            for protocol, cell in protocols.items():
                prefix = f"{stage}/{dataset}/{protocol}"
                values: dict[str, float | None] = {metric: cell[metric]["value"] for metric in SUMMARY_METRICS}
                for name, measured in cell.get("critiques", {}).items():
                    if isinstance(measured, Mapping):
                        values[f"critiques/{name}"] = measured["value"]
                if protocol != METRIC and (opinions := cell.get("opinions")):
                    values |= {f"opinions/{name}": opinions[name]["value"] for name in DISTANCES}
                columns |= {f"{prefix}/{name}": value for name, value in values.items() if value is not None}
    return columns
