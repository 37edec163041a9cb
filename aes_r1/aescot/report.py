"""Build distill_report.json: what was asked, paid, kept and rejected, and how varied the kept critiques are."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from aes_r1.aescot.diversity import DIVERSITY_SAMPLE, diversity, ratio
from aes_r1.aescot.filters import FILTERS, decisions
from aes_r1.aescot.scenes_expert import PLANTS


class Tally:
    """Count the decisions of one distillation, picture by picture."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._examined = Counter[str]()
        self._failed = Counter[str]()
        self.kept = Counter[str]()
        self.rejected = Counter[str]()
        self.levels: dict[str, Counter[str]] = defaultdict(Counter)
        self.datasets: dict[str, Counter[str]] = defaultdict(Counter)
        self.words: list[int] = []
        self._critiques: list[str] = []
        self._rng = np.random.default_rng(seed)
        self._planted = Counter[str]()
        self._flagged = Counter[str]()
        self._caught = Counter[str]()

    def add(self, row: dict[str, Any], reasons: Iterable[str], passed: Collection[str], planted: str | None) -> None:
        """Count one picture: its record, the reasons for its rejection (empty: kept), the filters that it passed, and
        the error planted in it.
        """
        reasons = list(reasons)
        decision = "rejected" if reasons else "kept"
        self.kept["pictures"] += not reasons
        self.rejected.update(reasons)
        self.rejected["pictures"] += bool(reasons)
        for cell in (self.levels[row["level"]], self.datasets[row["dataset"]]):
            cell[decision] += 1
            cell.update(f"rejected/{reason}" for reason in reasons)
        for name, rejects in decisions(reasons, passed).items():
            self._examined[name] += rejects is not None
            self._failed[name] += rejects is True
        for name in PLANTS:
            self._planted[name] += planted == name
            self._flagged[name] += name in reasons
            self._caught[name] += planted == name and name in reasons
        if not reasons:
            self._keep(row["critique"])

    def _keep(self, critique: str) -> None:
        self.words.append(len(critique.split()))
        if len(self._critiques) < DIVERSITY_SAMPLE:
            self._critiques.append(critique)
        elif (index := int(self._rng.integers(len(self.words)))) < DIVERSITY_SAMPLE:
            self._critiques[index] = critique

    def summary(self) -> dict[str, Any]:
        """Return the entries of distill_report.json that are counted here."""
        reasons = {name: count for name, count in sorted(self.rejected.items()) if name != "pictures"}
        return {
            "kept": self.kept["pictures"],
            "rejected": self.rejected["pictures"],
            "rejected_by_reason": reasons,
            "filters": {
                name: {
                    "examined": self._examined[name],
                    "rejected": self._failed[name],
                    "pass_rate": ratio(self._examined[name] - self._failed[name], self._examined[name]),
                }
                for name in FILTERS
            },
            "levels": {name: dict(counts) for name, counts in sorted(self.levels.items())},
            "datasets": {name: dict(counts) for name, counts in sorted(self.datasets.items())},
            "critique_words": _distribution(self.words),
            "diversity": diversity(self._critiques),
        }

    def plants(self) -> dict[str, dict[str, float | int | None]]:
        """Compute precision and recall of each filter against the errors that the scenes expert planted."""
        return {
            name: {
                "planted": self._planted[name],
                "flagged": self._flagged[name],
                "caught": self._caught[name],
                "precision": ratio(self._caught[name], self._flagged[name]),
                "recall": ratio(self._caught[name], self._planted[name]),
            }
            for name in PLANTS
        }


def calls_summary(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Sum calls, tokens, USD and seconds per role (expert, align, fact) over the journal's rows.

    usd is null for a model whose price is unknown; seconds are summed over calls, some of which ran at the same time.
    """
    roles: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("given_up"):
            continue
        role = roles.setdefault(
            row["role"], {"calls": 0, "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0, "seconds": 0.0}
        )
        role["calls"] += 1
        role["prompt_tokens"] += row["prompt_tokens"]
        role["completion_tokens"] += row["completion_tokens"]
        role["seconds"] = round(role["seconds"] + row["seconds"], 3)
        role["usd"] = None if row["usd"] is None or role["usd"] is None else role["usd"] + row["usd"]
    return roles


def _distribution(values: Sequence[int]) -> dict[str, float] | None:
    if not values:
        return None
    low, middle, high = np.percentile(values, (5, 50, 95))
    return {"mean": float(np.mean(values)), "p5": float(low), "median": float(middle), "p95": float(high)}
