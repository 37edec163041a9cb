"""Write a page that compares runs: results side by side, differences on the same pictures, curves, settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order, paired_bootstrap
from aes_r1.report.charts import Figure, interval_chart, line_chart
from aes_r1.report.html import in_sentence, model_name, render
from aes_r1.report.results_section import CHARTED, chart_row, datasets, shared_metrics
from aes_r1.report.run_page import protocol_names
from aes_r1.report.studies import run_names
from aes_r1.report.training_section import curve
from aes_r1.runs.cells import Cell, Evaluation, last_model, measured_in
from aes_r1.runs.files import make_folder, write_text_atomically
from aes_r1.runs.folder import RunFolder, runs_inside
from aes_r1.settings import InputError
from aes_r1.tracking.secrets import without_secrets

COLORS = ("rapo", "cold", "third", "fourth", "base", "ink")
_CURVES = {
    "reward/total": "Reward",
    "policy/entropy": "Entropy",
    "policy/kl_k3": "Distance from the start (KL)",
    "rollout/parse_failure_rate": "Answers that cannot be read",
    "rollout/length_mean": "Completion length",
}
_OMITTED = ("out", "store", "run_name")
_LABEL_LENGTH = 15  # characters that a row of a chart has room for


@dataclass(frozen=True, eq=False)
class ComparedRun:
    """The content of a run folder, with the run's name on the page and its label in charts."""

    name: str
    label: str
    color: str
    settings: Mapping[str, Any]
    evaluation: Evaluation
    metrics: Sequence[Mapping[str, Any]]
    predictions: Sequence[Mapping[str, Any]]
    last_stage: str | None  # that of the run's final model; None where it is not known

    @property
    def stage(self) -> str | None:
        """The last model that was evaluated."""
        return last_model(measured_in(self.evaluation["stages"]), self.last_stage)

    @property
    def model(self) -> str:
        """What the page says of the model that stands for the run."""
        return "no model" if self.stage is None else model_name(self.stage, self.last_stage)

    @property
    def rapo(self) -> list[Mapping[str, Any]]:
        """The logged rows of RAPO."""
        return [row for row in self.metrics if row["stage"] == "rapo"]

    def cells(self, dataset: str) -> Mapping[str, Cell]:
        """Return {protocol: cell} of the last model on `dataset`."""
        return {} if self.stage is None else self.evaluation["stages"][self.stage].get(dataset, {})


def write_comparison(folders: Sequence[Path], out: Path, *, n_bootstrap: int = 1000) -> Path:
    """Write a page about `folders` to `out`; the others are compared with the first.

    Raises InputError for a folder without an evaluation, or a folder that is given twice.
    """
    names = _names(folders)
    labels = chart_labels(names)
    are_numbered = labels[0] == _numbered_label(1)
    runs = [
        _read_run(folder, name, label, COLORS[index % len(COLORS)])
        for index, (folder, name, label) in enumerate(zip(folders, names, labels, strict=True))
    ]
    html = render(
        "comparison_page.html",
        title="Runs compared",
        runs=names,
        labels=dict(zip(names, labels, strict=True)),
        names=[(f"{run.label}: {run.name}", run.color) for run in runs] if are_numbered else [],
        unshared=_unshared({run: run.label if are_numbered else run.name for run in runs}),
        models={run.name: run.model for run in runs},
        folders=dict(zip(names, map(str, folders), strict=True)),
        sets=list(_results(runs)),
        differences=list(_differences(runs, n_bootstrap)),
        charts=_training(runs),
        settings=_settings(runs),
    )
    make_folder(out.parent, out)
    return write_text_atomically(out, html)


def _read_run(folder: Path, name: str, label: str, color: str) -> ComparedRun:
    run = RunFolder(folder)
    evaluation = run.evaluation
    if not evaluation.get("stages"):
        if run.exists and run.state != "done":
            raise InputError(f"{folder}: {run.state_in_words} and has no evaluation yet; let it end, or leave it out")
        advice = runs_inside(
            folder, "an evaluation", lambda inner: inner.evaluation_file if inner.evaluation.get("stages") else None
        )
        raise InputError(f"{folder}: {run.evaluation_file.name} is missing; {advice}")
    return ComparedRun(
        name,
        label,
        color,
        without_secrets(run.settings),
        evaluation,
        run.metrics(),
        list(run.predictions()),
        run.last_stage,
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """Name the runs by the settings in which they differ; InputError for a folder that is given twice."""
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise InputError("a run is named twice; give different folders")
    return run_names([RunFolder(folder).settings for folder in folders])


def chart_labels(names: Sequence[str]) -> list[str]:
    """Shorten the names of runs to what a chart has room for, where each still says what distinguishes its run.

    A beginning that all share is cut, by no more whole words than needed. Where the rest of a name is still too long,
    the runs are numbered.
    """
    # A point inside a number ends no word.
    ends = [match.end() for match in re.finditer(r"[ =]|(?<!\d)\.", names[0])]
    for cut in (0, *(end for end in ends if all(name.startswith(names[0][:end]) for name in names))):
        labels = [name if cut == 0 else f"…{name[cut:]}" for name in names]
        if max(map(len, labels)) <= _LABEL_LENGTH:
            return labels
    return [_numbered_label(number) for number in range(1, len(names) + 1)]


def _numbered_label(number: int) -> str:
    return f"run {number}"


def _unshared(runs: Mapping[ComparedRun, str]) -> str:
    """Say which of `runs`, {run: its name}, share no test set with any other run; empty where each shares one."""
    sets = {run: {dataset for dataset in _sets([run]) if run.cells(dataset)} for run in runs}
    alone = [run for run in runs if not any(sets[run] & sets[other] for other in runs if other is not run)]
    if not alone:
        return ""
    if len(alone) == len(runs):
        return "These runs share no test set: none of the numbers below compares them."
    verb, they = ("shares", "it") if len(alone) == 1 else ("share", "any of them")
    names = ", ".join(runs[run] for run in alone)
    return f"{names} {verb} no test set with another run: no number below compares {they} with one."


def _protocol(runs: Sequence[ComparedRun], dataset: str) -> str | None:
    """Return the first protocol that every run with this set has."""
    protocols = [set(run.cells(dataset)) for run in runs if run.cells(dataset)]
    shared = set.intersection(*protocols) if protocols else set()
    return next(iter(in_order(shared, PROTOCOL_ORDER)), None)


def _protocol_name(protocol: str, runs: Sequence[ComparedRun]) -> str:
    """Return the name of a protocol, without temperature and number of samples where `runs` differ in them."""
    names = {protocol_names(run.settings).get(protocol, protocol) for run in runs}
    plain = protocol_names({"evaluation": {"temperature": None}}).get(protocol, protocol)
    return names.pop() if len(names) == 1 else plain


def _sets(runs: Sequence[ComparedRun]) -> list[str]:
    return list(dict.fromkeys(dataset for run in runs for dataset in datasets(run.evaluation["stages"])))


def _results(runs: Sequence[ComparedRun]) -> Iterator[dict[str, Any]]:
    """Yield charts and every run's cell for each set that all runs with it answered under one protocol."""
    for dataset in _sets(runs):
        protocol = _protocol(runs, dataset)
        if protocol is None:
            continue
        cells = {run: run.cells(dataset)[protocol] for run in runs if run.cells(dataset)}
        name = in_sentence(_protocol_name(protocol, list(cells)))
        charts = []
        for metric in CHARTED:
            estimates = [chart_row(run.label, cell[metric], run.color) for run, cell in cells.items()]
            charts.append(Figure(metric.upper(), interval_chart(f"{metric.upper()} on {dataset}", [(name, estimates)])))
        yield {
            "name": dataset,
            "charts": charts,
            "metrics": shared_metrics(cells.values()),
            "cells": {run.name: cell for run, cell in cells.items()},
            "other_lists": len({run.evaluation.get("manifests", {}).get(dataset) for run in cells}) > 1,
        }


def _differences(runs: Sequence[ComparedRun], n_bootstrap: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (run, set, the run less the first run) on the pictures that both answered under one protocol."""
    for dataset in _sets(runs):
        for run in runs[1:]:
            protocol = _protocol([runs[0], run], dataset)
            before, after = _answers(runs[0], dataset, protocol), _answers(run, dataset, protocol)
            shared = [key for key in before if key in after and after[key][1] == before[key][1]]
            if len(shared) >= 3:
                result = paired_bootstrap(
                    [before[key][0] for key in shared],
                    [after[key][0] for key in shared],
                    [before[key][1] for key in shared],
                    n_bootstrap=n_bootstrap,
                )
                yield run.name, dataset, result


def _answers(run: ComparedRun, dataset: str, protocol: str | None) -> dict[str, tuple[float | None, float]]:
    return {
        row["id"]: (row["score"], row["mos"])
        for row in run.predictions
        if (row["stage"], row["protocol"], f"{row['dataset']}/{row['split']}") == (run.stage, protocol, dataset)
        and row["mos"] is not None
    }


def _training(runs: Sequence[ComparedRun]) -> list[Figure]:
    validation = sorted({name for run in runs for row in run.metrics for name in row if name.endswith("/srcc")})
    curves = {name: f"Validation SRCC, {name.split('/')[1]}" for name in validation} | _CURVES
    charts = []
    for name, title in curves.items():
        lines = [curve(run.rapo, name, run.label, run.color, dots=name in validation) for run in runs]
        lines = [line for line in lines if line.xs]
        chart = line_chart(title, lines, share=name in validation or name.endswith("_rate"))
        charts.append(Figure(title, chart, names=[(line.name, line.color) for line in lines]))
    return [chart for chart in charts if chart.chart]


def _settings(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """Return {key: value of every run} of the settings in which the runs differ."""
    settings_of_run = [_flat(run.settings) for run in runs]
    keys = [
        key for key in dict.fromkeys(key for settings in settings_of_run for key in settings) if key not in _OMITTED
    ]
    return {
        key: [_cell_text(settings.get(key, "–")) for settings in settings_of_run]
        for key in keys
        if len({str(settings.get(key)) for settings in settings_of_run}) > 1
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def _cell_text(value: Any) -> str:
    return "null" if value is None else str(value)
