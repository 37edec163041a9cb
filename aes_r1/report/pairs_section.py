"""Show how well models compare two pictures: right choices, asked and by single scores, and bias towards a place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.table import Table

from aes_r1.report.html import percent, stage_name
from aes_r1.report.titled_table import titled_table
from aes_r1.runs.cells import Evaluation, Interval


def pairs_section(evaluation: Evaluation) -> dict[str, dict[str, Any]] | None:
    """Return the content of pairs.html, {set: {stage: measures}}; None where no model was asked about pairs."""
    return _by_set(evaluation) or None


def pairs_headline(evaluation: Evaluation, last_stage: str | None) -> dict[str, Any] | None:
    """Return the measures of the run's last model on its first set, with `set`; None where it was not asked."""
    sets = evaluation.get("pairs", {}).get(last_stage or "", {})
    return next(({"set": name, **measures} for name, measures in sets.items()), None)


def pairs_tables(evaluation: Evaluation) -> Iterator[Table]:
    """Yield a table per set, within 80 columns, of what evaluation.json holds under `pairs`."""
    for name, by_stage in _by_set(evaluation).items():
        n = max(measures["n"] for measures in by_stage.values())
        title = f"{name}: which of two is better, {n} pairs, % [95% intervals]"
        head = ("", "right", "by scores", "says first", "same twice", "failed")
        table = titled_table(title, head, no_wrap=True)
        for stage, measures in by_stage.items():
            cells = [_share(measures[key]) for key in ("accuracy", "by_scores", "first_share", "consistent")]
            table.add_row(stage_name(stage), *cells, percent(measures["unread_rate"]))
        yield table


def _by_set(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    by_set: dict[str, dict[str, Any]] = {}
    for stage, sets in evaluation.get("pairs", {}).items():
        for name, measures in sets.items():
            by_set.setdefault(name, {})[stage] = measures
    return by_set


def _share(cell: Interval) -> str:
    """Format a share and its interval in whole percent; None is a dash."""
    if cell["value"] is None or cell["low"] is None or cell["high"] is None:
        return "–"
    return f"{100 * cell['value']:.0f} [{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"
