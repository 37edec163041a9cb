"""Measure how much results vary with the split of the pictures and with the seed of the run.

python -m experiments.splits.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

from aes_r1.runs.cells import format_cell
from experiments.reading import METRICS
from experiments.study import Study, analyse, drawn, folders, run_analysis, write
from experiments.tables import table

STUDY = Study(
    name="splits",
    axes=("data.split_seed",),
    label=lambda settings: f"split {settings['data']['split_seed']}",
    order=tuple(f"split {number}" for number in range(5)),
    baseline="split 0",
    same_pictures=False,  # splits have different test pictures, so they cannot be paired
)


def spread(rows: list[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    """Return standard deviations of a metric: over seeds, over splits beyond what seeds explain, and of one run.

    One-way random effects over a splits and n seeds: var_splits = (mean square between - mean square within) / n, at
    least 0. The 95% interval over seeds is that of chi-squared, the one over splits that of Williams (Biometrika 1962),
    p that of the F test that splits do not differ. "pictures" is the standard deviation that the bootstrap over the
    test pictures of a single run gives, from the mean width of its 95% intervals. n_splits and n_seeds count what was
    used: a split without the value of a seed is left out. All others are None with fewer than two splits.
    """
    cells = [list(row[metric]["seeds"].values()) for row in rows]
    seeds = max(map(len, cells), default=0)
    cells = [row for row in cells if len(row) == seeds and all(cell["value"] is not None for cell in row)]
    splits = len(cells)
    unknown = dict.fromkeys(("seeds", "splits", "one_run", "pictures", "p")) | {"n_splits": splits, "n_seeds": seeds}
    if splits < 2:
        return unknown
    table = np.array([[cell["value"] for cell in row] for row in cells])
    between = float(seeds * table.mean(axis=1).var(ddof=1))
    pictures = float(np.mean([(cell["high"] - cell["low"]) / (2 * 1.96) for row in cells for cell in row]))
    if seeds < 2:
        return {**unknown, "splits": {"value": math.sqrt(between), "low": None, "high": None}, "pictures": pictures}
    within = float(table.var(axis=1, ddof=1).mean())
    degrees = (splits - 1, splits * (seeds - 1))
    ends = []
    for share in (0.975, 0.025):
        beyond = between - within * stats.f.ppf(share, *degrees)
        ends.append(math.sqrt(max(0.0, degrees[0] * beyond / (seeds * stats.chi2.ppf(share, degrees[0])))))
    of_splits = max(0.0, (between - within) / seeds)
    squares = degrees[1] * within
    return {
        "seeds": {
            "value": math.sqrt(within),
            "low": math.sqrt(squares / stats.chi2.ppf(0.975, degrees[1])),
            "high": math.sqrt(squares / stats.chi2.ppf(0.025, degrees[1])),
        },
        "splits": {"value": math.sqrt(of_splits), "low": ends[0], "high": ends[1]},
        "one_run": math.sqrt(within + of_splits),
        "pictures": pictures,
        "p": float(stats.f.sf(between / within, *degrees)) if within else None,
        "n_splits": splits,
        "n_seeds": seeds,
    }


def section(result: Mapping[str, Any]) -> str:
    """Return the part of table.md that only this study has."""
    lines = ["", f"### Standard deviation on {result['rows'][0]['set']}", ""]
    used = result["spread"]["srcc"]
    lines += [
        f"{used['n_splits']} splits with {used['n_seeds']} seeds each. Over splits: beyond what seeds explain. p: F "
        "test that splits do not differ, not adjusted.",
        "",
    ]
    lines += [
        "| metric | over seeds | over splits | of one run | over its test pictures | p |",
        "|---|---|---|---|---|---|",
    ]
    for metric, deviations in result["spread"].items():
        parts = ["–" if deviations[name] is None else format_cell(deviations[name]) for name in ("seeds", "splits")]
        parts += [
            "–" if deviations[name] is None else f"{deviations[name]:.3f}" for name in ("one_run", "pictures", "p")
        ]
        lines.append(f"| {metric.upper()} | {' | '.join(parts)} |")
    if used["one_run"] is not None:
        apart = 1.96 * math.sqrt(2) * used["one_run"]
        lines += [
            "",
            f"By chance two runs of one recipe, each on a split of its own, differ by up to {apart:.3f} SRCC (95%).",
        ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    folder, out = folders(STUDY.name, arguments)
    result, runs = run_analysis(lambda: analyse(STUDY, folder))
    dataset = result["rows"][0]["set"]
    rows = [row for row in result["rows"] if (row["set"], row["protocol"]) == (dataset, STUDY.protocol)]
    result["spread"] = {metric: spread(rows, metric) for metric in METRICS}
    write(out, result, lambda: drawn(STUDY, result, out), table(result) + section(result), runs)


if __name__ == "__main__":
    main(sys.argv[1:])
