"""One page that compares runs: their results beside each other, differences on the same pictures, curves, settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from aes_r1.evaluation.metrics import PROTOCOL_ORDER, in_order, paired_bootstrap
from aes_r1.report.charts import Estimate, Line, interval_chart, line_chart
from aes_r1.report.html import figure, interval, number, page, percent, row, table
from aes_r1.report.results_section import METRIC_NAMES, change, datasets, inside
from aes_r1.report.run_page import protocol_names
from aes_r1.runs.cells import Cell, Evaluation
from aes_r1.runs.files import write_text_atomically
from aes_r1.runs.folder import RunFolder
from aes_r1.settings import InputError
from aes_r1.tracking import without_secrets

COLORS = ("rapo", "cold", "third", "fourth", "base", "ink")
_CURVES = {
    "reward/total": "Reward",
    "policy/entropy": "Entropy",
    "policy/kl_k3": "Distance from the start (KL)",
    "rollout/parse_failure_rate": "Answers that cannot be read",
    "rollout/length_mean": "Completion length",
}
_SAID_ELSEWHERE = ("out", "store", "run_name")


@dataclass(frozen=True, eq=False)
class Run:
    """What a run folder holds, under a name of its own on the page."""

    name: str
    color: str
    settings: Mapping[str, Any]
    evaluation: Evaluation
    metrics: Sequence[Mapping[str, Any]]
    predictions: Sequence[Mapping[str, Any]]

    @property
    def stage(self) -> str | None:
        """The last stage that was evaluated."""
        return next(reversed(self.evaluation.get("stages") or {}), None)

    def cells(self, dataset: str) -> Mapping[str, Cell]:
        """{protocol: cell} of the last stage on `dataset`."""
        return {} if self.stage is None else self.evaluation["stages"][self.stage].get(dataset, {})


def write_comparison(folders: Sequence[Path], out: Path, *, n_bootstrap: int = 1000) -> Path:
    """Write a page about `folders` to `out`; the first is what the others are compared with.

    InputError for a folder without an evaluation, or one named twice.
    """
    names = _names(folders)
    runs = [_read(folder, name, place) for place, (folder, name) in enumerate(zip(folders, names, strict=True))]
    body = [
        f'<p class="kicker">Aes-R1</p><h1>{len(runs)} runs compared</h1>'
        '<p class="note">Final models, 95% bootstrap intervals over pictures. A picture without a readable answer '
        "counts as the mean answer.</p>",
        _results(runs),
        _differences(runs, n_bootstrap),
        _training(runs),
        _settings(runs),
    ]
    out.parent.mkdir(parents=True, exist_ok=True)
    return write_text_atomically(out, page("Runs compared · Aes-R1", body))


def _read(folder: Path, name: str, place: int) -> Run:
    run = RunFolder(folder)
    evaluation = run.evaluation
    if not evaluation.get("stages"):
        raise InputError(f"{folder}: {run.evaluation_file.name} is missing; give folders of evaluated runs")
    return Run(
        name,
        COLORS[place % len(COLORS)],
        without_secrets(run.settings),
        evaluation,
        run.metrics(),
        list(run.predictions()),
    )


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the folders apart."""
    parts = [folder.absolute().parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise InputError("a run is named twice; give different folders")
    length = next(n for n in range(1, 1 + max(map(len, parts))) if len({one[-n:] for one in parts}) == len(parts))
    return ["/".join(one[-length:]) for one in parts]


def _protocol(runs: Sequence[Run], dataset: str) -> str | None:
    """The first protocol that every run with this set has."""
    shared = [set(run.cells(dataset)) for run in runs if run.cells(dataset)]
    return next((one for one in in_order(set.intersection(*shared), PROTOCOL_ORDER)), None) if shared else None


def _sets(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(dataset for run in runs for dataset in datasets(run.evaluation["stages"])))


def _results(runs: Sequence[Run]) -> str:
    parts = ["<h2>Results</h2>"]
    for dataset in _sets(runs):
        protocol = _protocol(runs, dataset)
        if protocol is None:
            continue
        cells = {run: run.cells(dataset)[protocol] for run in runs if run.cells(dataset)}
        names = next(protocol_names(run.settings) for run in runs if run.cells(dataset))
        charts = [
            figure(
                METRIC_NAMES[metric],
                interval_chart(
                    f"{METRIC_NAMES[metric]} on {dataset}",
                    [
                        (
                            inside(names.get(protocol, protocol)),
                            [_estimate(run, cell[metric]) for run, cell in cells.items()],
                        )
                    ],
                ),
            )
            for metric in ("srcc", "plcc")
        ]
        metrics = [metric for metric in METRIC_NAMES if all(metric in cell for cell in cells.values())]
        rows = [
            row(
                [
                    escape(run.name),
                    *(number(cell[metric]["value"]) + interval(cell[metric]) for metric in metrics),
                    percent(cell["parse_failure_rate"]),
                    str(cell["n"]),
                ]
            )
            for run, cell in cells.items()
        ]
        heads = ["", *(METRIC_NAMES[metric] for metric in metrics), "Unanswered", "n"]
        parts.append(f'<h3>{escape(dataset)}</h3><div class="charts pair">{"".join(charts)}</div>{table(heads, rows)}')
        lists = {run.evaluation.get("manifests", {}).get(dataset) for run in cells}
        if len(lists) > 1:
            parts.append('<p class="note">These runs were measured on different lists of pictures of this set.</p>')
    return "".join(parts)


def _estimate(run: Run, cell: Mapping[str, Any]) -> Estimate:
    return Estimate(_short(run.name), cell["value"], cell["low"], cell["high"], run.color)


def _short(name: str, most: int = 15) -> str:
    return name if len(name) <= most else "…" + name[1 - most :]


def _differences(runs: Sequence[Run], n_bootstrap: int) -> str:
    """Each run less the first, on the pictures that both answered about under one protocol."""
    rows = []
    for dataset in _sets(runs):
        for run in runs[1:]:
            protocol = _protocol([runs[0], run], dataset)
            before, after = _answers(runs[0], dataset, protocol), _answers(run, dataset, protocol)
            shared = [key for key in before if key in after and after[key][1] == before[key][1]]
            if len(shared) < 3:
                continue
            result = paired_bootstrap(
                [before[key][0] for key in shared],
                [after[key][0] for key in shared],
                [before[key][1] for key in shared],
                n_bootstrap=n_bootstrap,
            )
            values = [change(result[metric]) for metric in ("srcc", "plcc", "mae")]
            rows.append(row([escape(run.name), escape(dataset), *values, str(result["n"])]))
    if not rows:
        return ""
    note = (
        f'<p class="note">Each run less {escape(runs[0].name)}, on the same pictures, with 95% paired bootstrap '
        "intervals; p is two-sided and not corrected for the number of comparisons. Pictures are resampled, seeds are "
        "not: two runs that differ in the seed alone differ by more than these intervals say.</p>"
    )
    return f"<h2>Differences from the first</h2>{note}" + table(["", "Set", "SRCC", "PLCC", "MAE", "n"], rows)


def _answers(run: Run, dataset: str, protocol: str | None) -> dict[str, tuple[float | None, float]]:
    return {
        one["id"]: (one["score"], one["mos"])
        for one in run.predictions
        if (one["stage"], one["protocol"], f"{one['dataset']}/{one['split']}") == (run.stage, protocol, dataset)
        and one["mos"] is not None
    }


def _training(runs: Sequence[Run]) -> str:
    validation = sorted({name for run in runs for one in run.metrics for name in one if name.endswith("/srcc")})
    curves = {name: f"Validation SRCC, {name.split('/')[1]}" for name in validation} | _CURVES
    charts = []
    for name, title in curves.items():
        lines = []
        for run in runs:
            known = [
                (one["step"], one[name]) for one in run.metrics if one["stage"] == "rapo" and one.get(name) is not None
            ]
            if known:
                steps, values = [step for step, _ in known], [value for _, value in known]
                lines.append(Line(run.name, steps, values, run.color, name in validation))
        charts.append(figure(title, line_chart(title, lines), names=[(line.name, line.color) for line in lines]))
    shown = "".join(charts)
    return f'<h2>Training</h2><p class="note">Across: RAPO step.</p><div class="charts">{shown}</div>' if shown else ""


def _settings(runs: Sequence[Run]) -> str:
    """The settings in which the runs differ, and the hash of all of them."""
    flat = [_flat(run.settings) for run in runs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key not in _SAID_ELSEWHERE]
    rows = [
        row([f"<code>{escape(key)}</code>", *(escape(_plain(one.get(key, "–"))) for one in flat)])
        for key in keys
        if len({str(one.get(key)) for one in flat}) > 1
    ]
    note = '<p class="note">Only what differs.</p>' if rows else '<p class="note">All settings are the same.</p>'
    heads = ["", *(run.name for run in runs)]
    return f"<h2>Settings</h2>{note}" + (table(heads, rows) if rows else "")


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def _plain(value: Any) -> str:
    return "null" if value is None else str(value)
