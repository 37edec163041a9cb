"""Write the tables and curves of the main job from its run folders.

    python experiments/main_job/analyse.py critique=RUN,RUN,RUN score_only=RUN

Each argument names a condition and its runs, one per seed. Writes results/result.json, results/table.md and
results/curves.svg.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

from aes_r1.runs.cells import format_cell
from aes_r1.runs.folder import RunFolder

HERE = Path(__file__).parent
METRICS = ("srcc", "plcc")


def rows(condition: str, run: RunFolder) -> list[dict]:
    """Return one row per set, protocol and stage of a run."""
    seed = run.settings["seed"]
    return [
        {
            "condition": condition,
            "seed": seed,
            "set": dataset,
            "protocol": protocol,
            "stage": stage,
            "n": cell["n"],
            "parse_failure_rate": cell["parse_failure_rate"],
            **{metric: cell[metric] for metric in (*METRICS, "krcc", "mae")},
        }
        for stage, sets in run.evaluation["stages"].items()
        for dataset, protocols in sets.items()
        for protocol, cell in protocols.items()
    ]


def table(found: list[dict], dataset: str, protocol: str) -> list[str]:
    lines = [
        f"### {dataset}, {protocol}",
        "",
        "| condition | seed | stage | n | SRCC [95%] | PLCC [95%] | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['condition']} | {row['seed']} | {row['stage']} | {row['n']} | {format_cell(row['srcc'])} "
        f"| {format_cell(row['plcc'])} | {row['parse_failure_rate']:.1%} |"
        for row in found
        if row["set"] == dataset and row["protocol"] == protocol and row["stage"] != "base"
    ]
    return [*lines, ""]


def comparisons(condition: str, run: RunFolder) -> list[dict]:
    seed = run.settings["seed"]
    return [{"condition": condition, "seed": seed, **comparison} for comparison in run.evaluation["comparisons"]]


def curves(runs: dict[str, list[RunFolder]], target: Path) -> None:
    """Draw reward, divergence, entropy and validation SRCC by RAPO step."""
    names = ("reward/total", "policy/kl_k3", "policy/entropy", "eval/scenes/srcc")
    figure, axes = plt.subplots(1, len(names), figsize=(14, 3), layout="constrained")
    for axis, name in zip(axes, names, strict=True):
        for color, (condition, folders) in enumerate(runs.items()):
            for index, folder in enumerate(folders):
                points = [(row["step"], row[name]) for row in folder.metrics("rapo") if name in row]
                axis.plot(*zip(*points, strict=True), color=f"C{color}", lw=1, label=condition if index == 0 else None)
        axis.set_title(name, fontsize=9)
        axis.set_xlabel("RAPO step", fontsize=8)
    axes[0].legend(fontsize=8, frameon=False)
    figure.savefig(target)


def main(arguments: list[str]) -> None:
    runs = {
        name: [RunFolder(run) for run in folders.split(",")]
        for name, folders in (item.split("=") for item in arguments)
    }
    found = [row for condition, folders in runs.items() for run in folders for row in rows(condition, run)]
    compared = [row for condition, folders in runs.items() for run in folders for row in comparisons(condition, run)]
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    (results / "result.json").write_text(json.dumps({"rows": found, "comparisons": compared}, indent=1) + "\n")
    places = sorted({(row["set"], row["protocol"]) for row in found})
    lines = [line for dataset, protocol in places for line in table(found, dataset, protocol)]
    (results / "table.md").write_text("\n".join(lines))
    curves(runs, results / "curves.svg")


if __name__ == "__main__":
    main(sys.argv[1:])
