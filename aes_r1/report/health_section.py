"""The report's section on the health of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from aes_r1.evaluation.health import health_rows
from aes_r1.report.html import number, row, table


def health_section(metrics: Sequence[Mapping[str, Any]], completions: Sequence[Mapping[str, Any]]) -> str:
    """A row per sign; the step at which it first showed, and then what to try. Empty without RAPO rows."""
    if not any(one.get("stage") == "rapo" for one in metrics):
        return ""
    found = health_rows(metrics, completions)
    shown = sum(one["step"] is not None for one in found)
    note = f"{shown} of {len(found)} signs showed." if shown else f"None of {len(found)} signs showed."
    lines = [
        row(
            [
                f"{escape(one['sign'])}<small>{escape(one['meaning'])}</small>",
                number(one["value"]),
                f"{one['sense']} {one['threshold']:g}",
                "–" if one["step"] is None else f"step {one['step']}<small>{escape(one['remedy'])}</small>",
            ]
        )
        for one in found
    ]
    head = ["Sign", "At the end", "Bad", "First shown"]
    return f'<h2>Health</h2><p class="note">{note} A dash at the end: too little was logged to tell.</p>' + table(
        head, lines
    )
