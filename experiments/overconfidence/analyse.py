"""Does a reward for the raters' distribution mend the overconfidence that RAPO leaves? Coverage and CRPS of mean of 4.

python -m experiments.overconfidence.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt

from aes_r1.runs.cells import Cell, format_cell
from experiments.blocks import p_value
from experiments.endpoints import START, Measure, endpoint_rows, join_endpoints
from experiments.reading import Run
from experiments.study import Claim, Study, analyse, folders, run_analysis, write
from experiments.tables import interval, table

NOMINAL = 0.9  # level of the interval that a picture's four completions give
RAPO, DISTRIBUTION = "rapo", "distribution"

STUDY = Study(
    name="overconfidence",
    axes=("reward.name", "reward.error", "reward.distribution"),
    label=lambda settings: settings["reward"]["name"],
    order=(RAPO, DISTRIBUTION),
    baseline=RAPO,
    protocol="mean",
    claims=(Claim("SRCC is not lower than under RAPO by .02", DISTRIBUTION, RAPO, "srcc", +1, margin=0.02),),
)


def _of_cell(value: Any) -> Measure:
    def measure(run: Run, stage: str, dataset: str) -> float | None:
        cell: Cell = run.evaluation["stages"][stage][dataset]["mean"]
        return value(cell)

    return measure


def coverage(cell: Cell) -> float:
    """Return the share of pictures whose MOS lies in the interval that their completions give at level NOMINAL."""
    return next(one["coverage"] for one in cell["spread"]["curve"] if one["nominal"] == NOMINAL)


COVERAGE = f"MOS within the nominal {NOMINAL:.0%} interval"
ENDPOINTS: dict[str, Measure] = {
    COVERAGE: _of_cell(coverage),
    "mean standard deviation of completions": _of_cell(lambda cell: cell["spread"]["mean_std"]),
    "CRPS against the raters": _of_cell(lambda cell: cell["opinions"]["crps"]["value"]),
    "half-width of the calibrated 90% interval": _of_cell(lambda cell: cell["conformal"]["half_width"]),
    "SRCC, mean of 4": _of_cell(lambda cell: cell["srcc"]["value"]),
}


def join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the endpoints of two results of this study as those of one (`experiments.join`)."""
    return {"endpoints": join_endpoints(first["endpoints"], second["endpoints"], STUDY.order, STUDY.baseline)}


def draw(result: Mapping[str, Any]) -> Any:
    """Draw the coverage of the nominal interval by reward on each set, a line for each seed, and their mean."""
    datasets = list(dict.fromkeys(row["set"] for row in result["endpoints"]))
    with plt.rc_context({"font.size": 8}):
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(170 / 25.4, 75 / 25.4), sharey=True, squeeze=False, layout="constrained"
        )
        for axis, dataset in zip(axes[0], datasets, strict=True):
            rows = {
                row["condition"]: row
                for row in result["endpoints"]
                if (row["set"], row["endpoint"]) == (dataset, COVERAGE)
            }
            names = [name for name in (START, *STUDY.order) if name in rows]
            for seed in {seed for row in rows.values() for seed in row["seeds"]}:
                values = [rows[name]["seeds"].get(seed) for name in names]
                axis.plot(range(len(names)), values, color="#999999", lw=0.6)
            for at, name in enumerate(names):
                row = rows[name]
                if row["low"] is not None:
                    axis.plot([at, at], [row["low"], row["high"]], color="#0072b2", lw=1.5)
                axis.plot(at, row["mean"], "o", color="#0072b2", ms=5)
            axis.axhline(NOMINAL, color="black", ls="--", lw=0.8)
            axis.set_xticks(range(len(names)), names)
            axis.set_title(f"{dataset}; dashed: the nominal level", fontsize=8)
            axis.grid(axis="y", lw=0.3)
        axes[0][0].set_ylabel("share of pictures in the interval")
    return figure


def section(result: Mapping[str, Any]) -> str:
    """Return the part of table.md that only this study has: every endpoint by reward, and its difference to RAPO."""
    lines = [
        "",
        "## Endpoints, and differences to RAPO within seeds",
        "",
        "Mean over seeds with its 95% t-interval; difference within seeds with its interval and p (t-test). The "
        "first endpoint is the primary one.",
    ]
    for dataset in dict.fromkeys(row["set"] for row in result["endpoints"]):
        lines += [
            "",
            f"### {dataset}",
            "",
            "| endpoint | reward | mean | difference to RAPO | p |",
            "|---|---|---|---|---|",
        ]
        for row in result["endpoints"]:
            if row["set"] == dataset:
                estimate = row["difference"]
                p = None if estimate is None else p_value(estimate)
                difference = "–" if estimate is None else format_cell(estimate, "mean", signed=True)
                lines.append(
                    f"| {row['endpoint']} | {row['condition']} | {interval(row)} | {difference} "
                    f"| {'–' if p is None else f'{p:.3f}'} |"
                )
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    folder, out = folders(STUDY.name, arguments)
    result, runs = run_analysis(lambda: analyse(STUDY, folder))
    datasets = list(dict.fromkeys(row["set"] for row in result["rows"]))
    result["endpoints"] = endpoint_rows(ENDPOINTS, runs, datasets, STUDY.baseline)
    write(out, result, lambda: draw(result), table(result) + section(result), runs)


if __name__ == "__main__":
    main(sys.argv[1:])
