"""The numbers that the paper prints, to stand beside ours and never among them."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parents[1]
TABLES = (_HERE / "conf" if (_HERE / "conf").is_dir() else _HERE.parent / "conf") / "paper_tables.json"


def paper_numbers(datasets: Collection[str]) -> dict[str, Any] | None:
    """{"source", "note", "systems": {SYSTEM: {DATASET: {"plcc", "srcc"}}}} of those of `datasets` that the paper has.

    The authors' own values; None when it has none of them. Means are not copied: recompute them from the sets.
    """
    tables = json.loads(TABLES.read_text(encoding="utf-8"))
    systems = {
        system: {name: values for name, values in row.items() if name in datasets}
        for system, row in tables["systems"].items()
    }
    if not any(systems.values()):
        return None
    return {**tables, "systems": {system: row for system, row in systems.items() if row}}
