"""Studies as one self-contained page: results of their runs, analysis, settings beside SRCC, curves, worst answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import fmean
from typing import Any

from aes_r1.evaluation.health import SIGNS, raised_in
from aes_r1.report.analysis_section import analysis_section
from aes_r1.report.charts import Line, line_chart, points_chart
from aes_r1.report.coordinates import Axis, parallel_coordinates
from aes_r1.report.html import figure, legend, number, page, percent, row, table
from aes_r1.report.studies import SECTIONS, analysis, setting, shown, stage_of, varied
from aes_r1.report.worst_section import worst_section
from aes_r1.tracking import definition

Runs = Sequence[Mapping[str, Any]]
COLORS = ("rapo", "cold", "third", "fourth", "base")


def static_page(studies: Mapping[str, Runs], analyses: Path) -> str:
    """The view of all studies as a document that loads nothing. `studies` as read_studies gives them.

    analyses: folder of STUDY/results/table.md.
    """
    body = ['<p class="kicker">Aes-R1</p><h1>Studies</h1>']
    for study, runs in studies.items():
        body += _study(study, runs, analysis(study, analyses))
    return page("Studies · Aes-R1", body)


def _study(study: str, runs: Runs, analysed: str) -> list[str]:
    keys = varied(runs)
    conditions = _conditions(runs, keys)
    colors = dict(zip(conditions, COLORS, strict=False))
    done = sum(run["state"] == "done" for run in runs)
    signs = {run["name"]: raised_in(run["folder"].log) for run in runs if run["folder"].log_file.exists()}
    parts = [
        f'<h2>{escape(study)}</h2><p class="note">{done} of {len(runs)} runs done. SRCC and PLCC of the last stage, '
        "first set and first protocol, with 95% intervals over pictures. The highest mean SRCC comes first.</p>",
        table(
            [keys[0] if len(keys) == 1 else "", "Seed", "SRCC", "PLCC", "MAE", "Unanswered", "Run"],
            _rows(conditions, signs),
        ),
        _health(signs),
        analysis_section(analysed),
    ]
    names = list(colors.items()) if len(conditions) <= len(COLORS) else []
    drawn = [(run, colors.get(name, "")) for name, members in conditions.items() for run in members]
    drawn = [(run, color) for run, color in drawn if "srcc" in run["headline"]]
    charts = {section: _curves(section, conditions, colors, runs) for section in SECTIONS}
    if drawn:
        parts.append("<h3>Settings and results</h3>")
    if drawn and keys:
        parts.append(figure("Settings and SRCC", _coordinates(study, drawn, keys), "A line per run.", names))
    if drawn:
        chart = figure("PLCC by SRCC", _scatter(study, drawn), "A dot per run.", names)
        parts.append(f'<div class="charts" style="margin: 20px 0">{chart}</div>')
    if any(charts.values()):
        said = "Means over the seeds of a condition, by optimizer step. At the right end: the last value."
        if len(conditions) > len(COLORS):
            said += f" Of {len(conditions)} conditions, the {len(COLORS)} of the highest SRCC."
        parts.append(f'<p class="note">{said}</p>{legend(colors.items())}')
    parts += [
        f'<h3>{escape(section)}</h3><div class="charts">{"".join(drawn_here)}</div>'
        for section, drawn_here in charts.items()
        if drawn_here
    ]
    labelled = [
        (f"{name}, seed {run['settings']['seed']}", run["folder"])
        for name, members in conditions.items()
        for run in members
    ]
    parts.append(worst_section(labelled))
    return parts


def _health(signs: Mapping[str, Mapping[str, int]]) -> str:
    """In how many of the runs that keep a log each sign of health.py showed."""
    counts = {sign.name: sum(sign.name in found for found in signs.values()) for sign in SIGNS}
    said = ", ".join(f"{name} in {count}" for name, count in counts.items() if count)
    runs = "1 run" if len(signs) == 1 else f"{len(signs)} runs"
    told = f"of {runs}: {said}" if said else f"none showed in {runs}"
    return f'<p class="note">Signs of bad health, {told}.</p>' if signs else ""


def _conditions(runs: Runs, keys: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """{what sets it apart: its runs by seed}, the highest mean SRCC first, those without any last."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run["settings"]["seed"]):
        found.setdefault(_label(run["settings"], keys), []).append(run)

    def srcc(name: str) -> float:
        known = [run["headline"]["srcc"] for run in found[name] if "srcc" in run["headline"]]
        return fmean(known) if known else -2.0

    return {name: found[name] for name in sorted(found, key=srcc, reverse=True)}


def _label(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    """The value of the one setting that differs, or every one by its name."""
    values = [_short(setting(settings, key)) for key in keys]
    if len(keys) < 2:
        return "".join(values) or "all"
    return ", ".join(f"{_name(key, keys)} {value}" for key, value in zip(keys, values, strict=True))


def _name(key: str, keys: Sequence[str]) -> str:
    """The last part of a dotted key where that says enough."""
    last = key.rsplit(".", 1)[-1]
    alone = [one.rsplit(".", 1)[-1] for one in keys].count(last) == 1
    return last if alone and last not in ("name", "weight") else key


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _rows(conditions: Mapping[str, Runs], signs: Mapping[str, Mapping[str, int]]) -> list[str]:
    rows = []
    for name, runs in conditions.items():
        for place, run in enumerate(runs):
            found = run["headline"]
            measured = [number(found.get(metric)) + _interval(found, metric) for metric in ("srcc", "plcc")]
            measured += [number(found.get("mae")), percent(found.get("parse_failure_rate"))]
            notes = [] if run["state"] == "done" else [run["state"]]
            notes += [f"{sign}, step {step}" for sign, step in signs.get(run["name"], {}).items()]
            run_cell = f"<code>{escape(run['name'])}</code>" + "".join(f"<small>{escape(one)}</small>" for one in notes)
            rows.append(row([escape(name) if place == 0 else "", str(run["settings"]["seed"]), *measured, run_cell]))
    return rows


def _interval(found: Mapping[str, float], metric: str) -> str:
    low, high = found.get(f"{metric}_low"), found.get(f"{metric}_high")
    return "" if low is None else f"<small>{number(low)} to {number(high)}</small>"


def _coordinates(study: str, drawn: Sequence[tuple[Mapping[str, Any], str]], keys: Sequence[str]) -> str:
    axes = [Axis(_name(key, keys), [setting(run["settings"], key) for run, _ in drawn]) for key in keys]
    axes.append(Axis("SRCC", [run["headline"]["srcc"] for run, _ in drawn]))
    return parallel_coordinates(f"Settings and SRCC of {study}", axes, [color for _, color in drawn])


def _scatter(study: str, drawn: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    found = [(run["headline"], color or "base") for run, color in drawn]
    points = [(one["srcc"], one["plcc"], color) for one, color in found if "plcc" in one]
    return points_chart(f"PLCC by SRCC of the runs of {study}", points, ("SRCC", "PLCC"))


def _curves(section: str, conditions: Mapping[str, Runs], colors: Mapping[str, str], runs: Runs) -> list[str]:
    charts = []
    for name in shown(section, runs):
        lines = []
        for condition, color in colors.items():
            points = _mean_by_step(conditions[condition], name)
            lines.append(Line(condition, list(points), list(points.values()), color, dots=name.startswith("eval/")))
        charts.append(figure(name, line_chart(name, lines), definition(name)))
    return [chart for chart in charts if chart]


def _mean_by_step(runs: Runs, name: str) -> dict[int, float]:
    """The mean over runs at every step of the curve's stage that all of them have reached."""
    stage = stage_of(name)
    columns = [
        {one["step"]: one[name] for one in run["metrics"] if one["stage"] == stage and one.get(name) is not None}
        for run in runs
    ]
    columns = [column for column in columns if column]
    shared = sorted(set.intersection(*map(set, columns))) if columns else []
    return {step: fmean(column[step] for column in columns) for step in shared}
