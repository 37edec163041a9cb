"""The studies' page: what a study's runs answered when last sampled, where they erred most, each with its picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aes_r1.prompts import parse_critique
from aes_r1.report.gallery import plates
from aes_r1.runs.folder import RunFolder
from aes_r1.tracking import worst_first

MOST, SIZE = 3, 240  # plates per study, pixels of a picture: the page holds every study


def worst_section(runs: Sequence[tuple[str, RunFolder]]) -> str:
    """`runs`: (label, run). Unreadable answers take half of the places at most. Empty without completions."""
    rows = [{**row, "run": label} for label, run in runs for row in _last_answers(run)]
    worst = [
        {**row, "critique": parse_critique(row["text"]) if row["score"] is not None else None}
        for row in worst_first(rows, MOST)
    ]
    said = "Of the answers sampled last, those that err most or cannot be read."
    return f'<h3>Worst answers</h3><p class="note">{said}</p>{plates(worst, size=SIZE)}' if worst else ""


def _last_answers(run: RunFolder) -> list[dict[str, Any]]:
    """Rows of the last step that was logged, of pictures with a MOS."""
    return [row for row in run.last_completions() if row.get("mos") is not None]
