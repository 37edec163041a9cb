"""Measure how much results vary with the split of the pictures and with the seed of the run.

python -m experiments.splits.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.reading import METRICS
from experiments.study import Study, analyse, drawn, folders, run_analysis, write
from experiments.tables import table

STUDY = Study(
    name="splits",
    axes=("data.split_seed",),
    label=lambda settings: f"split {settings['data']['split_seed']}",
    order=tuple(f"split {one}" for one in range(5)),
    baseline="split 0",
    same_pictures=False,  # splits have different test pictures, so they cannot be paired
)


def spread(rows: list[Mapping[str, Any]], metric: str) -> dict[str, float | None]:
    """Return the standard deviation of a metric over seeds within a split, and over splits beyond what seeds explain.

    One-way random effects: var_splits = (mean square between - mean square within) / seeds, at least 0.
    """
    table = [[cell["value"] for cell in row[metric]["seeds"].values()] for row in rows]
    if len(table) < 2 or any(None in row or len(row) != len(table[0]) for row in table):
        return {"seeds": None, "splits": None}
    values = np.array(table)
    seeds = values.shape[1]
    between = seeds * values.mean(axis=1).var(ddof=1)
    if seeds < 2:
        return {"seeds": None, "splits": float(np.sqrt(between))}
    within = values.var(axis=1, ddof=1).mean()
    return {"seeds": float(np.sqrt(within)), "splits": float(np.sqrt(max(0.0, (between - within) / seeds)))}


def section(result: Mapping[str, Any]) -> str:
    """Return the part of table.md that only this study has."""
    lines = ["", f"### Standard deviation on {result['rows'][0]['set']}", ""]
    lines += ["| metric | over seeds | over splits |", "|---|---|---|"]
    for metric, one in result["spread"].items():
        cells = " | ".join("–" if value is None else f"{value:.3f}" for value in (one["seeds"], one["splits"]))
        lines.append(f"| {metric.upper()} | {cells} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    runs, out = folders(STUDY.name, arguments)
    result, found = run_analysis(lambda: analyse(STUDY, runs))
    place = result["rows"][0]["set"]
    mine = [row for row in result["rows"] if (row["set"], row["protocol"]) == (place, STUDY.protocol)]
    result["spread"] = {metric: spread(mine, metric) for metric in METRICS}
    write(out, result, lambda: drawn(STUDY, result, out), table(result) + section(result), found)


if __name__ == "__main__":
    main(sys.argv[1:])
