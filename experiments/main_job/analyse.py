"""Write the tables and the figure of the main job from its run folders.

    python -m experiments.main_job.analyse critique=RUN,RUN,RUN score_only=RUN

Each argument names a condition and its runs, one per seed. Writes results/result.json, results/table.md and
results/figure.svg and .png. Without arguments the tables and the figure are made again from result.json.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from aes_r1.runs.cells import format_cell
from aes_r1.runs.folder import RunFolder
from experiments.figures import TITLES, draw, save
from experiments.reading import over_seeds

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


def table(rows: list[dict], dataset: str, protocol: str) -> list[str]:
    lines = [
        f"### {dataset}, {protocol}",
        "",
        "| condition | seed | stage | n | SRCC [95%] | PLCC [95%] | failed |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['condition']} | {row['seed']} | {row['stage']} | {row['n']} | {format_cell(row['srcc'])} "
        f"| {format_cell(row['plcc'])} | {row['parse_failure_rate']:.1%} |"
        for row in rows
        if row["set"] == dataset and row["protocol"] == protocol and row["stage"] != "base"
    ]
    return [*lines, ""]


def comparisons(condition: str, run: RunFolder) -> list[dict]:
    seed = run.settings["seed"]
    return [{"condition": condition, "seed": seed, **comparison} for comparison in run.evaluation["comparisons"]]


def figure(all_rows: list[dict]) -> Any:
    """Draw SRCC of the critiques' scores before and after RAPO under each protocol, and the differences."""
    names = {"cold_start": "cold start", "rapo": "RAPO"}
    conditions: dict[tuple[str, str, str], dict[int, dict]] = {}
    for row in all_rows:
        if row["condition"] == "critique" and row["stage"] in names:
            key = (row["set"], row["protocol"], row["stage"])
            conditions.setdefault(key, {})[row["seed"]] = row
    rows = [
        {
            "condition": f"{names[stage]}, {TITLES[protocol]}",
            "set": dataset,
            "n": max(row["n"] for row in seeds.values()),
            "srcc": {
                **over_seeds(row["srcc"]["value"] for row in seeds.values()),
                "seeds": {seed: row["srcc"] for seed, row in seeds.items()},
            },
        }
        for (dataset, protocol, stage), seeds in sorted(
            conditions.items(), key=lambda item: (item[0][0], [*TITLES].index(item[0][1]), item[0][2])
        )
    ]
    baseline = f"{names['cold_start']}, {TITLES['sample']}"
    return draw(rows, form="3 protocols", baseline=baseline, starts={}, people={})


def main(arguments: list[str]) -> None:
    results = HERE / "results"
    results.mkdir(exist_ok=True)
    if arguments:
        runs = {
            name: [RunFolder(run) for run in folders.split(",")]
            for name, folders in (item.split("=") for item in arguments)
        }
        ran = [(condition, run) for condition, folders in runs.items() for run in folders]
        values = {
            "rows": [row for condition, run in ran for row in rows(condition, run)],
            "comparisons": [row for condition, run in ran for row in comparisons(condition, run)],
        }
        (results / "result.json").write_text(json.dumps(values, indent=1) + "\n")
    all_rows = json.loads((results / "result.json").read_text())["rows"]
    pairs = sorted({(row["set"], row["protocol"]) for row in all_rows})
    lines = [line for dataset, protocol in pairs for line in table(all_rows, dataset, protocol)]
    (results / "table.md").write_text("\n".join(lines))
    save(figure(all_rows), results)


if __name__ == "__main__":
    main(sys.argv[1:])
