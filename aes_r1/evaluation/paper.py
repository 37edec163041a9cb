"""The numbers that the paper prints, to stand beside ours and never among them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aes_r1.runs.files import read_json
from aes_r1.settings import CONF

TABLES = CONF / "paper_tables.json"


def paper_numbers(datasets: Collection[str]) -> dict[str, Any] | None:
    """{"source", "note", "systems": {SYSTEM: {DATASET: {"plcc", "srcc"}}}} of those of `datasets` that the paper has.

    The authors' own values; None when it has none of them. Means are not copied: recompute them from the sets.
    """
    tables = read_json(TABLES)
    systems = {
        system: {name: values for name, values in row.items() if name in datasets}
        for system, row in tables["systems"].items()
    }
    if not any(systems.values()):
        return None
    return {**tables, "systems": {system: row for system, row in systems.items() if row}}
