"""Build the section of numbers: every set, stage and protocol with intervals, what stages changed, and means."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order
from aes_r1.report.charts import Estimate, Figure, interval_chart
from aes_r1.report.html import reached, short_protocol, stage_color, stage_name
from aes_r1.report.opinions_section import COMPARABLE, MEASURES, meanings, opinions_section
from aes_r1.runs.cells import Cell, Evaluation, MetricName, Stages

METRICS: tuple[MetricName, ...] = ("srcc", "plcc", "krcc", "mae", "rmse")
CHARTED: tuple[MetricName, ...] = ("srcc", "plcc")
_ORIGINS = {"photograph": "photographs", "ai": "AI-made"}


def results_section(evaluation: Evaluation, names: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the content of results.html, or None without an evaluated stage. `names` are those of the protocols."""
    stages, baselines = evaluation.get("stages", {}), evaluation.get("baseline_cells", {})
    if not stages and not baselines:
        return None
    paper = evaluation.get("paper")
    return {
        "sets": [
            _set(dataset, cells_by_protocol(stages, dataset), names, baselines.get(dataset, {}))
            for dataset in dict.fromkeys([*datasets(stages), *baselines])
        ],
        "means": list(_means(evaluation)),
        "sub_scores": list(_sub_scores(stages)),
        "opinions": opinions_section(evaluation),
        "opinion_measures": MEASURES,
        "meanings": [*meanings(), COMPARABLE.rstrip(".")],
        "origins": list(_origins(stages)),
        "sensitivity": list(_sensitivity(stages)),
        "baselines": evaluation.get("baselines", []),  # differences of the model from each baseline
        "paper": paper,
        "paper_sets": list(dict.fromkeys(name for cells in paper["systems"].values() for name in cells))
        if paper
        else [],
    }


def _set(
    dataset: str,
    by_protocol: Mapping[str, Mapping[str, Mapping]],
    names: Mapping[str, str],
    baselines: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    protocols = [(names.get(protocol, protocol), cells) for protocol, cells in by_protocol.items()]
    return {
        "name": dataset,
        "protocols": protocols,
        "baseline_cells": baselines,
        "baselines_title": _baselines_title(baselines),
        "metrics": shared_metrics(cell for cells in by_protocol.values() for cell in cells.values()),
        "charts": [
            Figure(
                metric.upper(),
                interval_chart(
                    f"{metric.upper()} on {dataset}",
                    [(name, _stage_estimates(cells, metric)) for name, cells in protocols],
                    baselines=_baseline_estimates(baselines, metric),
                ),
            )
            for metric in CHARTED
        ],
    }


def _stage_estimates(cells: Mapping[str, Mapping], metric: str) -> list[Estimate]:
    return [chart_row(stage_name(stage), cell[metric], stage_color(stage)) for stage, cell in cells.items()]


def _baseline_estimates(baselines: Mapping[str, Mapping], metric: str) -> tuple[str, list[Estimate]] | None:
    """Return the group of baselines that have the metric: the mean opinion, for one, ranks no pictures."""
    estimates = [
        chart_row(name, reached(cell, metric), "muted")
        for name, cell in baselines.items()
        if reached(cell, metric)["value"] is not None
    ]
    return (f"{_baselines_title(baselines)} (dashed)", estimates) if estimates else None


def _baselines_title(baselines: Mapping[str, Any]) -> str:
    """Name the group of baselines: people stand alone where no other was asked for."""
    return "People" if set(baselines) == {"people"} else "Baselines"


def chart_row(name: str, cell: Mapping, color: str) -> Estimate:
    """Turn a metric's cell into a row of a chart."""
    return Estimate(name, cell["value"], cell["low"], cell["high"], color)


def shared_metrics(cells: Iterable[Mapping]) -> list[MetricName]:
    """Return the metrics that every cell has."""
    cells = list(cells)
    return [metric for metric in METRICS if all(metric in cell for cell in cells)]


def _means(evaluation: Evaluation) -> Iterator[tuple[str, str, str, Mapping]]:
    """Yield the means over seen sets, unseen sets and all, under the first protocol of every stage."""
    for stage, protocols in evaluation.get("means", {}).items():
        for protocol in in_order(protocols, PROTOCOL_ORDER)[:1]:  # evaluation.json holds the other protocols
            for kind, cell in protocols[protocol].items():
                if (len(cell["sets"]) > 1 or kind != "all") and cell["mae"]["value"] is not None:
                    yield stage, protocol, kind, cell


def _sub_scores(stages: Stages) -> Iterator[tuple[str, str, str, str, Mapping]]:
    """Yield the agreement of sub-scores with the ratings of their dimensions, by stage, set and protocol."""
    for dataset in datasets(stages):
        for stage, protocol, cell in cells_by_stage(stages, dataset):
            for dimension, rated in cell.get("sub_scores", {}).items():
                yield stage, dataset, protocol, dimension.replace("_", " "), rated


def _origins(stages: Stages) -> Iterator[tuple[str, str, str, Mapping]]:
    """Yield photographs and AI-made pictures separately, where a set says which is which."""
    for stage, dataset, _, cell in _of_first_protocol(stages):
        for origin, measures in cell.get("origins", {}).items():
            if measures["mae"]["value"] is not None:
                yield stage, dataset, _ORIGINS.get(origin, origin), measures


def _sensitivity(stages: Stages) -> Iterator[tuple[str, str, str, str, Mapping]]:
    """Yield (stage, protocol, set, edit, measures) under the first protocol, where edits were asked about."""
    for stage, dataset, protocol, cell in _of_first_protocol(stages):
        for edit, measures in cell.get("sensitivity", {}).items():
            yield stage, protocol, dataset, edit, measures


def _of_first_protocol(stages: Stages) -> Iterator[tuple[str, str, str, Cell]]:
    """Yield (stage, set, protocol, cell) of the first protocol of every stage and set."""
    for stage, sets in stages.items():
        for dataset, cells in sets.items():
            for protocol in in_order(cells, PROTOCOL_ORDER)[:1]:
                yield stage, dataset, protocol, cells[protocol]


def changes_section(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the content of changes.html: per set the differences that each stage made."""
    comparisons = evaluation.get("comparisons", [])
    sections = []
    for dataset in dict.fromkeys(comparison["set"] for comparison in comparisons):
        steps: dict[str, list[Mapping]] = {}
        for comparison in comparisons:
            if comparison["set"] == dataset:
                steps.setdefault(f"{stage_name(comparison['from'])} → {stage_name(comparison['to'])}", []).append(
                    comparison
                )
        charts = []
        for metric in CHARTED:
            title = f"Change of {metric.upper()}"
            groups = [(step, [_difference(row, metric) for row in rows]) for step, rows in steps.items()]
            charts.append(Figure(title, interval_chart(f"{title} on {dataset}", groups, zero=True)))
        metrics = shared_metrics(row for rows in steps.values() for row in rows)
        sections.append({"name": dataset, "charts": charts, "metrics": metrics, "steps": steps})
    return sections


def _difference(comparison: Mapping, metric: str) -> Estimate:
    cell = comparison[metric]
    label, color = short_protocol(comparison["protocol"]), stage_color(comparison["to"])
    return Estimate(label, cell["difference"], cell["low"], cell["high"], color)


def datasets(stages: Stages) -> list[str]:
    """List the sets of any stage, in order of appearance."""
    return list(dict.fromkeys(dataset for sets in stages.values() for dataset in sets))


def cells_by_protocol(stages: Stages, dataset: str) -> dict[str, dict[str, Mapping]]:
    """Return {protocol: {stage: cell}} of one set."""
    protocols = dict.fromkeys(protocol for sets in stages.values() for protocol in sets.get(dataset, {}))
    return {
        protocol: {
            stage: sets[dataset][protocol] for stage, sets in stages.items() if protocol in sets.get(dataset, {})
        }
        for protocol in in_order(protocols, PROTOCOL_ORDER)
    }


def cells_by_stage(stages: Stages, dataset: str) -> Iterator[tuple[str, str, Mapping]]:
    """Yield (stage, protocol, cell) of one set."""
    for stage, sets in stages.items():
        for protocol in in_order(sets.get(dataset, {}), PROTOCOL_ORDER):
            yield stage, protocol, sets[dataset][protocol]
