"""Show all studies on one self-contained page: results, analysis, settings beside SRCC, curves, worst answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from aes_r1.evaluation.health import OF_EVALUATION, SIGNS, evaluation_rows, long_enough, raised_in
from aes_r1.prompts import parse_critique, written_order
from aes_r1.report.charts import Figure, Line, line_chart, points_chart
from aes_r1.report.coordinates import Axis, parallel_coordinates
from aes_r1.report.gallery import Plate, plates
from aes_r1.report.html import render
from aes_r1.report.studies import (
    SECTIONS,
    analysis,
    condition_names,
    numbered,
    setting,
    short_name,
    shown,
    stage_of,
    value_text,
    varied,
    with_measuring,
)
from aes_r1.runs.folder import RunFolder
from aes_r1.tracking.glossary import definition
from aes_r1.tracking.worst import worst_first

Runs = Sequence[Mapping[str, Any]]
COLORS = ("rapo", "cold", "third", "fourth", "base")
WORST, WORST_SIZE = 3, 240  # plates per study, and pixels of a picture: few, because one page holds every study


def static_page(studies: Mapping[str, Runs], analyses: Path) -> str:
    """Render the view of all studies as a self-contained page; `studies` is what read_studies returns.

    analyses: folder of STUDY/results/table.md.
    """
    sections = [
        {"id": f"study-{number}", **_study(study, runs, analysis(study, analyses))}
        for number, (study, runs) in enumerate(studies.items(), 1)
    ]
    links = [(section["id"], section["name"]) for section in sections]
    return render("studies_page.html", title="Studies", studies=sections, links=links)


def _study(study: str, runs: Runs, table: str) -> dict[str, Any]:
    keys = varied(runs)
    conditions = _conditions(runs, keys)
    colors = dict(zip(conditions, COLORS, strict=False))
    logged = [run for run in runs if run["folder"].log_file.exists()]
    signs = {run["name"]: _signs(run["folder"]) for run in logged}
    curves = {section: _curves(section, conditions, colors, runs) for section in SECTIONS}
    labelled = [
        (f"{name}, seed {run['settings']['seed']}", run["folder"])
        for name, members in conditions.items()
        for run in members
    ]
    return {
        "name": study,
        "done": sum(run["state"] == "done" for run in runs),
        "runs": len(runs),
        "ends": _ends(conditions),
        "sets": len(_sets(runs)),
        "trouble": next((run["state"] for run in runs if run["state"] != "done"), "no evaluation"),
        "setting": keys[0] if len(keys) == 1 else "",
        "conditions": {name: [_row(run, signs) for run in members] for name, members in conditions.items()},
        "logs": len(logged),
        "checked": sum(long_enough(run["metrics"]) for run in logged),
        "signs": {
            sign.name: n
            for sign in (*OF_EVALUATION, *SIGNS)
            if (n := sum(sign.name in steps for steps in signs.values()))
        },
        "analysis": _analysis(table),
        "results": _results(study, keys, conditions, colors),
        "legend": list(colors.items()),
        "curves": {section: figures for section, figures in curves.items() if figures},
        "worst": _worst(labelled),
    }


def _conditions(runs: Runs, keys: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Return {condition: its runs by seed}.

    They are grouped by the set that they were measured on, with the highest mean SRCC first; those without one are
    last.
    """
    names = _named(runs, keys)
    members: dict[str, list[Mapping[str, Any]]] = {}
    for run, name in sorted(zip(runs, names, strict=True), key=lambda pair: pair[0]["settings"]["seed"]):
        members.setdefault(name, []).append(run)
    sets = _sets(runs)

    def rank(name: str) -> tuple[int, float]:
        measured = _measured_on(members[name])
        srcc = _mean_srcc(members[name], measured)
        return (len(sets), 0.0) if srcc is None else (sets.index(measured), -srcc)

    return {name: members[name] for name in sorted(members, key=rank)}


def _named(runs: Runs, keys: Sequence[str]) -> list[str]:
    """Name the condition of every run as `aes-r1 runs` does; by its value alone if only one setting differs."""
    if len(keys) == 1:
        names = [value_text(setting(run["settings"], keys[0])) for run in runs]
    else:
        settings = [run["settings"] for run in runs]
        names = [name or "all" for name in with_measuring(settings, condition_names(settings))]
    # Values that are alike in the digits shown have one name, but are different conditions.
    values = [tuple(str(setting(run["settings"], key)) for key in keys) for run in runs]
    name_of = dict(zip(values, names, strict=True))
    told_apart = dict(zip(name_of, numbered(list(name_of.values())), strict=True))
    return [told_apart[value] for value in values]


def _sets(runs: Runs) -> list[str]:
    """Return what the headline SRCCs of `runs` were measured on, in order of appearance."""
    return list(dict.fromkeys(run["set"] for run in runs if "srcc" in run["headline"]))


def _measured_on(runs: Runs) -> str:
    """Return what the headline SRCC of most runs of a condition was measured on; "" without any."""
    sets = [run["set"] for run in runs if "srcc" in run["headline"]]
    return max(sets, key=sets.count, default="")


def _mean_srcc(runs: Runs, measured_on: str) -> float | None:
    srccs = [run["headline"]["srcc"] for run in runs if "srcc" in run["headline"] and run["set"] == measured_on]
    return fmean(srccs) if srccs else None


def _ends(conditions: Mapping[str, Runs]) -> dict[str, list[tuple[float | None, str]]]:
    """Return {set: the highest and the lowest mean SRCC on it with their conditions}. Empty without any."""
    ends: dict[str, list[tuple[float | None, str]]] = {}
    for measured_on in dict.fromkeys(map(_measured_on, conditions.values())):
        means = [
            (srcc, name)
            for name, runs in conditions.items()
            if _measured_on(runs) == measured_on and (srcc := _mean_srcc(runs, measured_on)) is not None
        ]
        if means:
            ends[measured_on] = [means[0], means[-1] if len(means) > 1 else (None, "")]
    return ends


def _signs(run: RunFolder) -> dict[str, str]:
    """Return {sign: step at which it first showed} of a run; signs of its evaluation have no step."""
    rows = evaluation_rows(run.evaluation, run.last_stage)
    steps = {sign: f"step {step}" for sign, step in raised_in(run.log).items()}
    return {row["sign"]: "" for row in rows if row["shown"] is not None} | steps


def _row(run: Mapping[str, Any], signs: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    values = run["headline"]
    notes = [] if run["state"] == "done" else [run["state"]]
    notes += [", ".join(filter(None, sign)) for sign in signs.get(run["name"], {}).items()]
    cells = {
        metric: {"value": values.get(metric), "low": values.get(f"{metric}_low"), "high": values.get(f"{metric}_high")}
        for metric in ("srcc", "plcc")
    }
    return {
        "name": run["name"],
        "seed": run["settings"]["seed"],
        "set": run["set"],
        **cells,
        "mae": values.get("mae"),
        "unanswered": values.get("parse_failure_rate"),
        "notes": notes,
    }


def _results(
    study: str, keys: Sequence[str], conditions: Mapping[str, Runs], colors: Mapping[str, str]
) -> dict[str, Figure]:
    """Draw the runs with results: settings beside SRCC, if any differ, and PLCC by SRCC."""
    runs_and_colors = [(run, colors.get(name, "")) for name, members in conditions.items() for run in members]
    runs_and_colors = [(run, color) for run, color in runs_and_colors if "srcc" in run["headline"]]
    names = list(colors.items()) if len(conditions) <= len(COLORS) else []
    of_table = ", on the set that the table names" if len(_sets([run for run, _ in runs_and_colors])) > 1 else ""
    figures = {}
    if runs_and_colors and keys:
        axes = [
            Axis(short_name(key, keys), [_drawable(setting(run["settings"], key)) for run, _ in runs_and_colors])
            for key in keys
        ]
        axes.append(Axis("SRCC", [run["headline"]["srcc"] for run, _ in runs_and_colors]))
        chart = parallel_coordinates(f"Settings and SRCC of {study}", axes, [color for _, color in runs_and_colors])
        figures["settings"] = Figure("Settings and SRCC", chart, f"A line per run{of_table}.", names)
    if runs_and_colors:
        headlines = [(run["headline"], color or "base") for run, color in runs_and_colors]
        points = [(values["srcc"], values["plcc"], color) for values, color in headlines if "plcc" in values]
        chart = points_chart(f"PLCC by SRCC of the runs of {study}", points, ("SRCC", "PLCC"))
        figures["plcc"] = Figure("PLCC by SRCC", chart, f"A dot per run{of_table}.", names)
    return figures


def _drawable(value: Any) -> float | str:
    """Return a setting as an Axis takes it: a number as it is, all else as text."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else value_text(value)


def _curves(section: str, conditions: Mapping[str, Runs], colors: Mapping[str, str], runs: Runs) -> list[Figure]:
    charts = []
    for name in shown(section, runs):
        lines = []
        for condition, color in colors.items():
            points = _mean_by_step(conditions[condition], name)
            lines.append(Line(condition, list(points), list(points.values()), color, dots=name.startswith("eval/")))
        share = name.endswith(("srcc", "plcc", "_rate"))
        charts.append(Figure(name, line_chart(name, lines, share=share), definition(name)))
    return [chart for chart in charts if chart.chart]


def _mean_by_step(runs: Runs, name: str) -> dict[int, float]:
    """Return {step: mean over runs} for the steps of the metric's stage that all runs with the metric have reached."""
    stage = stage_of(name)
    columns = [
        {row["step"]: row[name] for row in run["metrics"] if row["stage"] == stage and row.get(name) is not None}
        for run in runs
    ]
    columns = [column for column in columns if column]
    shared = sorted(set.intersection(*map(set, columns))) if columns else []
    return {step: fmean(column[step] for column in columns) for step in shared}


def _analysis(text: str) -> dict[str, list[dict[str, Any]]]:
    """Split what analyse.py wrote: the text up to the first table and the footnotes are shown, the rest is folded."""
    blocks = [block.strip() for block in re.split(r"\n\s*\n", text.strip())]
    tables = [index for index, block in enumerate(blocks) if block.startswith("|")]
    opening = tables[0] + 1 if tables else len(blocks)
    footnotes = [block for block in blocks[opening:] if block.startswith(r"\*")]
    rest = [block for block in blocks[opening:] if block not in footnotes]
    return {
        "shown": [_block(block) for block in [*blocks[:opening], *footnotes]],
        "folded": [_block(block) for block in rest],
    }


def _block(block: str) -> dict[str, Any]:
    """Parse a heading, a table or a paragraph, the only blocks of a table.md."""
    if block.startswith("|"):
        head, _, *rows = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.split("\n"))
        return {"kind": "table", "head": head, "rows": rows}
    kind = "heading" if block.startswith("#") else "paragraph"
    return {"kind": kind, "text": (block.lstrip("# ") if kind == "heading" else block).replace(r"\*", "*")}


def _worst(runs: Sequence[tuple[str, RunFolder]]) -> list[Plate]:
    """Return the completions of the last logged step that err most (see `worst_first`); runs: (label, run)."""
    rows = [{**row, "run": label} for label, run in runs for row in _last_answers(run)]
    return plates(
        (
            {
                **row,
                "critique": None if row["score"] is None else parse_critique(row["text"], written_order(row["text"])),
            }
            for row in worst_first(rows, WORST)
        ),
        size=WORST_SIZE,
    )


def _last_answers(run: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of the last logged step that are about one picture with a MOS: a plate cannot show a pair."""
    return [row for row in run.last_completions() if row.get("mos") is not None and "second" not in row]
