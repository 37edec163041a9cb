"""The one number of a run that a search over settings maximises."""

from __future__ import annotations

import json
from pathlib import Path


def headline_srcc(run: Path) -> float | None:
    """SRCC of the last stage in RUN/evaluation.json, by its first protocol, as the mean over the sets trained on.

    The sets are of the split that the run evaluated (data.split). None without an evaluation, or where the answers are
    too few or all alike.
    """
    path = run / "evaluation.json"
    if not path.exists():
        return None
    means = json.loads(path.read_text(encoding="utf-8")).get("means", {})
    if not means:
        return None
    by_protocol = list(means.values())[-1]
    groups = next(iter(by_protocol.values()))
    return groups["seen"]["srcc"]["value"] if "seen" in groups else groups["all"]["srcc"]["value"]
