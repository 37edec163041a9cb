"""The table of docs/reliability.md, from the trials that were kept."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from pathlib import Path

BEGIN, END = "<!-- kills -->", "<!-- /kills -->"


def write_table(log: Path, page: Path) -> None:
    """Write the table of all trials in `log` between the marks of `page`."""
    trials = [json.loads(line) for line in log.read_text().splitlines()]
    head, rest = page.read_text().split(BEGIN)
    page.write_text(f"{head}{BEGIN}\n{table_of(trials)}\n{END}{rest.split(END)[1]}")


def table_of(trials: list[dict]) -> str:
    """A row for each command: its trials, disturbances by kind, and faults."""
    kinds = sorted({one["kind"] for trial in trials for one in trial["disturbed"]})
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for trial in trials:
        for name in (trial["subject"], "all"):
            counts[name]["trials"] += 1
            counts[name]["faults"] += trial["fault"] is not None
            counts[name].update(one["kind"] for one in trial["disturbed"])
    rows = [*(name for name in counts if name != "all"), "all"] if trials else []
    columns = ["trials", *kinds, "faults"]
    lines = [f"| command | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(str(counts[name][column]) for column in columns)} |" for name in rows]
    return "\n".join(lines)
