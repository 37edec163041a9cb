"""Show all studies: as W&B workspaces and a report, or, without an account, as a static page.

python -m aes_r1.dashboard runs=runs entity=TEAM
"""

from __future__ import annotations

from aes_r1.wrong_input import require_conf

if __name__ == "__main__":
    require_conf()  # before the imports, which read it

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aes_r1 import command
from aes_r1.report.studies import SECTIONS, analysis, axis_of, read_studies, shown, varied
from aes_r1.report.studies_page import static_page
from aes_r1.runs.files import make_folder, read_json, write_json, write_text_atomically
from aes_r1.runs.kinds import NAMED_TEXTS, OBJECT, TEXT_OR_NULL, require_kinds
from aes_r1.settings import DashboardSettings, InputError
from aes_r1.tracking.wandb_run import group_of, refusals

Runs = Sequence[Mapping[str, Any]]


def workspace(study: str, runs: Runs, *, entity: str, project: str) -> Any:
    """Build the workspace view of one study; runs are grouped by condition, so that curves are means over seeds."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    coordinates: list[Any] = [*(wr.Config(key) for key in varied(runs)), wr.SummaryMetric("headline/srcc")]
    sweep = [
        wr.ParallelCoordinatesPlot(
            title=study, columns=[wr.ParallelCoordinatesPlotColumn(metric=metric) for metric in coordinates]
        ),
        wr.ScatterPlot(title="PLCC by SRCC", x=wr.SummaryMetric("headline/srcc"), y=wr.SummaryMetric("headline/plcc")),
    ]
    panels = {section: _lines(shown(section, runs)) for section in SECTIONS}
    panels["Agreement"] = [*_bars(), *panels["Agreement"]]
    sections = [
        ws.Section(name=name, panels=drawings, is_open=True) for name, drawings in {"Sweep": sweep, **panels}.items()
    ]
    sections.append(ws.Section(name="Critiques", panels=[wr.WeavePanelSummaryTable(table_name="rapo/completions")]))
    return ws.Workspace(
        entity=entity,
        project=project,
        name=study,
        sections=sections,
        runset_settings=ws.RunsetSettings(
            filters=_filter(runs),
            groupby=[ws.Config(key) for key in varied(runs)] or [ws.Metric("Group")],
            order=[ws.Ordering(ws.Summary("headline/srcc"), ascending=False)],
            pinned_columns=_columns(runs),
        ),
    )


def _lines(names: Sequence[str]) -> list[Any]:
    import wandb_workspaces.reports.v2 as wr

    return [wr.LinePlot(title=name, x=axis_of(name), y=[name]) for name in names]


def _bars() -> list[Any]:
    """Build bar charts of the headline results, as means over the runs of a condition."""
    import wandb_workspaces.reports.v2 as wr

    bars = {
        f"{name.upper()}, low and high end of its 95% interval": [name, f"{name}_low", f"{name}_high"]
        for name in ("srcc", "plcc")
    }
    bars |= {"MAE": ["mae"], "Unanswered": ["parse_failure_rate"]}
    return [
        wr.BarPlot(title=title, metrics=[f"headline/{name}" for name in names], groupby_aggfunc="mean")
        for title, names in bars.items()
    ]


def _filter(runs: Runs) -> str:
    """Select the runs of a study by the W&B groups that their settings name."""
    return f"Metric('Group') in {sorted({group_of(run['settings']) or '' for run in runs})}"


def _columns(runs: Runs) -> list[str]:
    """Return the columns of the table of runs: first the settings that vary, then the results."""
    keys = [*varied(runs), "seed"]
    parts = [key.partition(".") for key in keys]
    measured = [f"{name}{end}" for name in ("srcc", "plcc") for end in ("", "_low", "_high")]
    return [
        *(f"config:{first}.value{dot}{rest}" for first, dot, rest in parts),
        *(f"summary:headline/{name}" for name in measured),
    ]


def build_report(studies: Mapping[str, Runs], analyses: Path, *, entity: str, project: str) -> Any:
    """Build a W&B report: per study its table of results, paper values included, beside the curves of its runs."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = []
    for study, runs in studies.items():
        grouped = [f"config.{key}" for key in varied(runs)] or ["group"]
        shown_runs = wr.Runset(
            entity=entity,
            project=project,
            name=study,
            filters=_filter(runs),
            groupby=grouped,
            pinned_columns=_columns(runs),
        )
        blocks += [
            wr.H1(study),
            wr.MarkdownBlock(analysis(study, analyses)),
            wr.PanelGrid(runsets=[shown_runs], panels=[*_bars(), *_lines(shown("Agreement", runs))]),
        ]
    return wr.Report(entity=entity, project=project, title="Aes-R1: studies", blocks=blocks)


def publish(settings: DashboardSettings, studies: Mapping[str, Runs]) -> None:
    """Save the views and the report; RUNS/dashboard.json keeps their addresses, so that they are updated next time."""
    assert settings.entity is not None
    account = {"entity": settings.entity, "project": settings.project}
    addresses = Path(settings.runs) / "dashboard.json"
    addresses_by_account = read_json(addresses) if addresses.exists() else {}
    require_kinds(addresses_by_account, dict.fromkeys(addresses_by_account, OBJECT), addresses)
    saved = addresses_by_account.setdefault(f"{settings.entity}/{settings.project}", {"views": {}})
    require_kinds(saved, {"views": NAMED_TEXTS, "report": TEXT_OR_NULL}, addresses)
    for study, runs in studies.items():
        view = _saved_view(workspace(study, runs, **account), saved["views"].get(study))
        saved["views"][study] = view.url
        write_json(addresses, addresses_by_account)
        print(f"{study}: {view.url}")
    saved_report = _saved_report(build_report(studies, Path(settings.analyses), **account), saved.get("report"))
    saved["report"] = saved_report.url
    write_json(addresses, addresses_by_account)
    print(f"report: {saved_report.url}")


def _saved_view(new: Any, url: str | None) -> Any:
    """Save `new` over the view at `url`, or as a new one when that view no longer exists."""
    from wandb_workspaces.workspaces import Workspace

    if url is None:
        return new.save()
    try:
        saved = Workspace.from_url(url)
    except ValueError as error:
        if "not found" not in str(error):
            raise
        return new.save()
    saved.sections, saved.runset_settings = new.sections, new.runset_settings
    return saved.save()


def _saved_report(new: Any, url: str | None) -> Any:
    """Save `new` over the report at `url`, or as a new one when that report no longer exists."""
    from wandb_workspaces.reports.v2 import Report

    if url is None:
        return new.save()
    try:
        saved = Report.from_url(url)
    except TypeError:  # from_url reads a field of the server's answer, which is null
        return new.save()
    saved.blocks = new.blocks
    return saved.save()


def show_studies(settings: DashboardSettings) -> None:
    """Write the page, or publish the views of the account in `settings`."""
    studies = read_studies(Path(settings.runs))
    if settings.entity is None:
        target = Path(settings.out)
        is_page = target.suffix.lower() in (".html", ".htm") and not target.is_dir()
        target = target if is_page else target / "dashboard.html"
        make_folder(target.parent, target)
        write_text_atomically(target, static_page(studies, Path(settings.analyses)))
        print(f"dashboard: {target}")
        return
    try:
        import wandb_workspaces  # noqa: F401, only to see whether it loads
    except ImportError as error:
        raise InputError(f"entity={settings.entity}: {error}; pip install -e '.[dashboards]'") from error
    with refusals(f"entity={settings.entity}", "wandb login, or leave entity out for a page", requests=True):
        publish(settings, studies)


def main() -> None:
    """Run the command with the arguments of the command line; does not return."""
    command.run("aes_r1.dashboard", show_studies, config_name="dashboard", schema=DashboardSettings)


if __name__ == "__main__":
    main()
