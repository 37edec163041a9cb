"""What of RAPO's gain is less sampling noise, and what a better order? From the arm `all` of the study grounding.

python -m experiments.certainty.analyse [RUNS [OUT]]

RUNS holds the runs of sweeps/grounding.yaml. A sampled score is the model's belief plus noise. Greedy decoding and the
mean of several samples remove the noise without any training, so what RAPO gains under them is gained in order.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from aes_r1.settings import InputError
from experiments.figures import TITLES
from experiments.grounding.analyse import STUDY, arm
from experiments.reading import Run, by_condition, check_pictures, origins, over_seeds, read_runs, why_unfinished
from experiments.study import folders, run_analysis, write
from experiments.tables import commits, error_bars, interval

PROTOCOLS = TITLES
STAGES = {"cold_start": "cold start", "rapo": "RAPO"}
# (difference, (stage, protocol) of the minuend, of the subtrahend)
DIFFERENCES = (
    ("RAPO's gain in one sample", ("rapo", "sample"), ("cold_start", "sample")),
    ("cold start, greedy instead of one sample", ("cold_start", "greedy"), ("cold_start", "sample")),
    ("cold start, mean of 4 instead of one sample", ("cold_start", "mean"), ("cold_start", "sample")),
    ("RAPO's gain under greedy decoding", ("rapo", "greedy"), ("cold_start", "greedy")),
    ("RAPO's gain in the mean of 4", ("rapo", "mean"), ("cold_start", "mean")),
)


def srcc(run: Run, stage: str, dataset: str, protocol: str) -> float | None:
    """Return a run's SRCC of one stage, set and protocol."""
    return run.evaluation["stages"][stage][dataset][protocol]["srcc"]["value"]


def difference(
    runs: Mapping[int, Run], dataset: str, after: tuple[str, str], before: tuple[str, str]
) -> dict[str, Any]:
    """Return the mean over replicates of SRCC `after` - `before`, with its t-interval."""
    pairs = [
        (srcc(run, after[0], dataset, after[1]), srcc(run, before[0], dataset, before[1])) for run in runs.values()
    ]
    return over_seeds(None if a is None or b is None else a - b for a, b in pairs)


def without_training(runs: Mapping[int, Run], dataset: str) -> dict[str, Any]:
    """Return the share of RAPO's gain in one sample that greedy decoding of the cold start has without training."""
    shares = []
    for run in runs.values():
        sampled = srcc(run, "cold_start", dataset, "sample")
        greedy, trained = srcc(run, "cold_start", dataset, "greedy"), srcc(run, "rapo", dataset, "sample")
        known = sampled is not None and greedy is not None and trained is not None
        shares.append((greedy - sampled) / (trained - sampled) if known else None)
    return over_seeds(shares)


def analyse(folder: Path) -> dict[str, Any]:
    """Return the result as plain values."""
    runs, unfinished = read_runs(folder)
    check_pictures(runs)
    published = by_condition(runs, arm, STUDY.axes).get("all", {})
    if not published:
        raise InputError(f"{folder}: no finished run of the arm all; run the sweep grounding first")
    datasets = list(next(iter(published.values())).evaluation["stages"]["rapo"])
    return {
        "study": "certainty",
        "seeds": sorted(published),
        "origins": origins(list(published.values())),
        "unfinished": why_unfinished(unfinished),
        "rows": [
            {
                "set": dataset,
                "stage": stage,
                "protocol": protocol,
                **over_seeds(srcc(run, stage, dataset, protocol) for run in published.values()),
                "seeds": {seed: srcc(run, stage, dataset, protocol) for seed, run in sorted(published.items())},
            }
            for dataset in datasets
            for stage in STAGES
            for protocol in PROTOCOLS
        ],
        "differences": [
            {"set": dataset, "difference": name, **difference(published, dataset, after, before)}
            for dataset in datasets
            for name, after, before in DIFFERENCES
        ],
        "shares": {dataset: without_training(published, dataset) for dataset in datasets},
    }


def table(result: Mapping[str, Any]) -> str:
    """Markdown: SRCC by stage and protocol, and the differences within replicates."""
    lines = [
        f"Replicates {', '.join(map(str, result['seeds']))}, each with its own base model, training pictures and cold "
        f"start; code: {commits(result)}. Means over replicates with 95% t-intervals.",
    ]
    for dataset, share in result["shares"].items():
        rows = [row for row in result["rows"] if row["set"] == dataset]
        lines += ["", f"## {dataset}", "", "| SRCC | " + " | ".join(PROTOCOLS.values()) + " |", "|---|---|---|---|"]
        for stage, name in STAGES.items():
            lines.append(f"| {name} | " + " | ".join(interval(row) for row in rows if row["stage"] == stage) + " |")
        lines += ["", "| difference within replicates | SRCC |", "|---|---|"]
        lines += [
            f"| {row['difference']} | {interval(row, signed=True)} |"
            for row in result["differences"]
            if row["set"] == dataset
        ]
        lines += ["", f"Share of the gain in one sample that greedy decoding has without training: {interval(share)}"]
    return "\n".join(lines) + "\n"


def draw(result: Mapping[str, Any]) -> Any:
    """Draw SRCC by protocol, cold start and RAPO: means with intervals, thin lines for replicates."""
    datasets = list(result["shares"])
    with plt.rc_context({"font.size": 8}):
        figure, axes = plt.subplots(
            1, len(datasets), figsize=(170 / 25.4, 75 / 25.4), sharey=True, layout="constrained", squeeze=False
        )
        for axis, dataset in zip(axes[0], datasets, strict=True):
            for stage, color, marker in (("cold_start", "#0072b2", "o"), ("rapo", "#d55e00", "s")):
                rows = [row for row in result["rows"] if (row["set"], row["stage"]) == (dataset, stage)]
                _stage(axis, rows, color, marker)
            axis.set_xticks(range(len(PROTOCOLS)), list(PROTOCOLS.values()))
            axis.set_title(dataset, fontsize=8)
            axis.grid(lw=0.3, axis="y")
        axes[0][0].set_ylabel("SRCC with the opinions")
        axes[0][0].legend(frameon=False, loc="lower right")
    return figure


def _stage(axis: Any, rows: Sequence[Mapping[str, Any]], color: str, marker: str) -> None:
    """Draw one stage; `rows` are in the order of PROTOCOLS."""
    for seed in rows[0]["seeds"]:
        axis.plot([row["seeds"][seed] for row in rows], color=color, lw=0.5, alpha=0.4)
    means = [row["mean"] for row in rows]
    name = f"{STAGES[rows[0]['stage']]} (n {rows[0]['n']})"
    axis.errorbar(
        range(len(rows)), means, yerr=error_bars(rows), color=color, marker=marker, lw=1.5, ms=4, capsize=2, label=name
    )


def main(arguments: list[str]) -> None:
    folder, _ = folders(STUDY.name, arguments)
    _, out = folders("certainty", arguments)
    result = run_analysis(lambda: analyse(folder))
    write(out, result, lambda: draw(result), table(result))


if __name__ == "__main__":
    main(sys.argv[1:])
