"""Read the numbers that the paper prints. They are shown beside measured numbers, never mixed with them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aes_r1.runs.files import read_json
from aes_r1.settings import CONF

TABLES = CONF / "paper_tables.json"


def paper_numbers(datasets: Collection[str]) -> dict[str, Any] | None:
    """Return the paper's {"source", "note", "systems": {SYSTEM: {DATASET: {"plcc", "srcc"}}}} for `datasets`.

    It is None when the paper has none of them. Means are not copied, because they can be recomputed from the sets.
    """
    tables = read_json(TABLES)
    systems = {
        system: {name: values for name, values in row.items() if name in datasets}
        for system, row in tables["systems"].items()
    }
    if not any(systems.values()):
        return None
    return {**tables, "systems": {system: row for system, row in systems.items() if row}}
