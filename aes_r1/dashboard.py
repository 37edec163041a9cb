"""One view of all studies: W&B workspaces and a report, or, without an account, the same view as a static page.

python -m aes_r1.dashboard runs=runs entity=TEAM
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from aes_r1 import command
from aes_r1.evaluation.page import figure, number, page, row, table
from aes_r1.settings import DashboardSettings, InputError, differences
from aes_r1.tracking import definition, headline

# What the view shows, section by section, for W&B and page alike; each name has a line in the glossary, and <dataset>
# stands for every set that a study's runs validated on.
SECTIONS = {
    "Agreement": ("eval/<dataset>/srcc", "eval/<dataset>/plcc", "eval/<dataset>/parse_failure_rate"),
    "Reward": ("reward/total", "reward/rank", "reward/error", "rollout/zero_spread_groups"),
    "Policy": ("policy/entropy", "policy/kl_k3", "policy/clip_low_fraction", "policy/clip_high_fraction"),
    "Cold start": ("sft/loss",),
    "Speed": ("perf/tokens_per_s", "time/step_s"),
}
COLUMNS = ("srcc", "srcc_low", "srcc_high", "plcc", "plcc_low", "plcc_high", "mae", "parse_failure_rate")


def axis_of(name: str) -> str:
    """The W&B metric that `name` is drawn over: each stage counts its own steps."""
    return "sft/step" if name.startswith("sft/") else "rapo/step"


# -- runs of a folder --------------------------------------------------------------------------------------------------
def read_studies(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """{study: [{"name", "settings", "metrics", "headline"}]} of runs/STUDY/HASH. InputError when there is none."""
    studies: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(runs.glob("*/*/settings.json")):
        run = path.parent
        evaluation, metrics = run / "evaluation.json", run / "metrics.jsonl"
        lines = metrics.read_text().split("\n")[:-1] if metrics.exists() else []
        studies.setdefault(run.parent.name, []).append(
            {
                "name": run.name,
                "settings": json.loads(path.read_text()),
                "metrics": [json.loads(line) for line in lines],
                "headline": headline(json.loads(evaluation.read_text())) if evaluation.exists() else {},
            }
        )
    if not studies:
        raise InputError(f"runs={runs}: no run folder in it (runs/STUDY/HASH/settings.json)")
    return studies


def varied(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted settings in which the runs of a study differ: the columns of its table and coordinates."""
    keys: dict[str, None] = {}
    for run in runs[1:]:
        keys |= dict.fromkeys(differences(runs[0]["settings"], run["settings"]))
    return list(keys)


def shown(section: str, runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Metric names of a section, one for every set that the runs validated on."""
    logged = sorted({name for run in runs for one in run["metrics"] for name in one})
    names = []
    for name in SECTIONS[section]:
        start, marked, end = name.partition("<dataset>")
        names += [one for one in logged if one.startswith(start) and one.endswith(end)] if marked else [name]
    return names


def setting(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


# -- W&B ---------------------------------------------------------------------------------------------------------------
def workspace(study: str, runs: Sequence[Mapping[str, Any]], *, entity: str, project: str) -> Any:
    """The workspace view of one study: its group alone, sections as above, coordinates of what its runs differ in."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    coordinates: list[Any] = [*(wr.Config(key) for key in varied(runs)), wr.SummaryMetric("headline/srcc")]
    sections = [
        ws.Section(
            name=section,
            panels=[wr.LinePlot(title=name, x=axis_of(name), y=[name]) for name in shown(section, runs)],
            is_open=True,
        )
        for section in SECTIONS
    ]
    sections.insert(
        0,
        ws.Section(
            name="Sweep",
            panels=[
                wr.ParallelCoordinatesPlot(
                    title=study, columns=[wr.ParallelCoordinatesPlotColumn(metric=one) for one in coordinates]
                ),
                wr.ScatterPlot(
                    title="PLCC by SRCC", x=wr.SummaryMetric("headline/srcc"), y=wr.SummaryMetric("headline/plcc")
                ),
            ],
            is_open=True,
        ),
    )
    sections.append(ws.Section(name="Critiques", panels=[wr.MediaBrowser(media_keys=["rapo/completions"])]))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=study,
        sections=sections,
        runset_settings=ws.RunsetSettings(
            filters=[ws.Metric("Group") == study],
            groupby=[ws.Metric("JobType")],
            order=[ws.Ordering(ws.Summary("headline/srcc"), ascending=False)],
        ),
    )


def report(studies: Mapping[str, Sequence[Mapping[str, Any]]], *, entity: str, project: str) -> Any:
    """A W&B report: per study its table of results, paper values included, beside the curves of its runs."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = []
    for study, runs in studies.items():
        written = Path("experiments") / study / "results" / "table.md"
        said = written.read_text() if written.exists() else "Not analysed yet: run its analyse.py."
        blocks += [
            wr.H1(study),
            wr.MarkdownBlock(said),
            wr.PanelGrid(
                runsets=[wr.Runset(entity=entity, project=project, name=study, filters=f'Group == "{study}"')],
                panels=[wr.LinePlot(title=name, x=axis_of(name), y=[name]) for name in shown("Agreement", runs)],
            ),
        ]
    return wr.Report(entity=entity, project=project, title="Aes-R1: studies", blocks=blocks)


# -- static page -------------------------------------------------------------------------------------------------------
def static_page(studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The same sections as one self-contained page."""
    body = ['<p class="kicker">Aes-R1</p><h1>Studies</h1>']
    for study, runs in studies.items():
        keys = varied(runs)
        ranked = sorted(runs, key=lambda run: run["headline"].get("srcc", -2), reverse=True)
        rows = [
            row(
                [escape(run["name"])]
                + [escape(str(setting(run["settings"], key))) for key in keys]
                + [number(run["headline"].get(name)) for name in COLUMNS]
            )
            for run in ranked
        ]
        body.append(f"<h2>{escape(study)}</h2>" + table(["run", *keys, *COLUMNS], rows))
        body.append(figure("Sweep", _picture(_coordinates(runs, keys), f"Settings and SRCC of {study}")))
        for section in SECTIONS:
            charts = [
                figure(name, _picture(_curves(runs, name), f"{name} of {study}"), definition(name))
                for name in shown(section, runs)
                if any(one.get(name) is not None for run in runs for one in run["metrics"])
            ]
            if charts:
                body.append(f'<h3>{escape(section)}</h3><div class="charts">{"".join(charts)}</div>')
    return page("Studies · Aes-R1", body)


def _picture(drawing: Any, title: str) -> str:
    from matplotlib import pyplot

    file = io.BytesIO()
    drawing.savefig(file, format="svg")
    pyplot.close(drawing)
    return f'<img alt="{escape(title)}" src="data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}">'


def _axes() -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(4.6, 2.8), layout="constrained")


def _curves(runs: Sequence[Mapping[str, Any]], name: str) -> Any:
    drawing, axis = _axes()
    for run in runs:
        points = [(one["step"], one[name]) for one in run["metrics"] if one.get(name) is not None]
        if points:
            axis.plot(*zip(*points, strict=True), lw=1, marker="o" if len(points) < 3 else None, ms=3)
    axis.set_xlabel(axis_of(name), fontsize=8)
    return drawing


def _coordinates(runs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> Any:
    """A line per run through its settings (numbers by size, words in their order) to its SRCC."""
    drawing, axis = _axes()
    columns: list[list[Any]] = [[setting(run["settings"], key) for run in runs] for key in keys]
    columns.append([run["headline"].get("srcc") for run in runs])
    heights = [_heights(column) for column in columns]
    for place in range(len(runs)):
        axis.plot([height[place] for height in heights], lw=1)
    axis.set_xticks(range(len(columns)), [*keys, "srcc"], fontsize=6, rotation=20)
    axis.set_yticks([])
    return drawing


def _heights(column: Sequence[Any]) -> list[float]:
    if all(isinstance(value, int | float) or value is None for value in column):
        known = [float(value) for value in column if value is not None] or [0.0]
        span = (max(known) - min(known)) or 1.0
        return [float("nan") if value is None else (value - min(known)) / span for value in column]
    names = sorted({str(value) for value in column})
    return [names.index(str(value)) / max(1, len(names) - 1) for value in column]


def build(settings: DashboardSettings) -> None:
    studies = read_studies(Path(settings.runs))
    if settings.entity is None:
        target = Path(settings.out)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(static_page(studies), encoding="utf-8")
        print(f"dashboard: {target}")
        return
    for study, runs in studies.items():
        view = workspace(study, runs, entity=settings.entity, project=settings.project)
        view.save()
        print(f"{study}: {view.url}")
    made = report(studies, entity=settings.entity, project=settings.project)
    made.save()
    print(f"report: {made.url}")


def main() -> None:
    command.run("aes_r1.dashboard", build, config_name="dashboard", schema=DashboardSettings)


if __name__ == "__main__":
    main()
