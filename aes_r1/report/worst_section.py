"""The studies' page: what a study's runs answered when last sampled, where they erred most, each with its picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aes_r1.prompts import parse_critique
from aes_r1.report.gallery import plates
from aes_r1.tracking import worst_first

MOST, SIZE = 3, 240  # plates per study, pixels of a picture: the page holds every study


def worst_section(runs: Sequence[tuple[str, Path]]) -> str:
    """`runs`: (label, run folder). Unreadable answers take half of the places at most. Empty without completions."""
    rows = [{**row, "run": label} for label, folder in runs for row in _last_answers(folder / "completions.jsonl")]
    worst = [
        {**row, "critique": parse_critique(row["text"]) if row["score"] is not None else None}
        for row in worst_first(rows, MOST)
    ]
    said = "Of the answers sampled last, those that err most or cannot be read."
    return f'<h3>Worst answers</h3><p class="note">{said}</p>{plates(worst, size=SIZE)}' if worst else ""


def _last_answers(path: Path) -> list[dict[str, Any]]:
    """Rows of the last step that was logged, of pictures with a MOS; the long rest of the file stays unread."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.exists() else []
    rows: list[dict[str, Any]] = []
    for line in reversed(lines):
        row = json.loads(line)
        if rows and (row["stage"], row["step"]) != (rows[-1]["stage"], rows[-1]["step"]):
            break
        rows.append(row)
    return [row for row in reversed(rows) if row.get("mos") is not None]
