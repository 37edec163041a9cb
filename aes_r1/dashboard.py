"""One view of all studies: W&B workspaces and a report, or, without an account, the same view as a static page.

python -m aes_r1.dashboard runs=runs entity=TEAM
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1 import command
from aes_r1.evaluation.studies import SECTIONS, axis_of, read_studies, shown, varied
from aes_r1.evaluation.studies_page import static_page
from aes_r1.settings import DashboardSettings


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
