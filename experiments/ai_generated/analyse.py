"""Measure models that were trained on photographs on AVT-AI: agreement with opinions by kind of source.

python -m experiments.ai_generated.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from aes_r1.evaluation.metrics import correlations
from aes_r1.runs.files import read_rows
from experiments.reading import METRICS, Run, RunsByCondition, over_seeds
from experiments.study import PROTOCOL, Claim, Study, analyse, drawn, folders, run_analysis, write
from experiments.tables import interval, table

STUDY = Study(
    name="ai_generated",
    axes=("reward",),
    label=lambda settings: settings["reward"]["name"],
    order=("error", "rank", "rapo"),
    baseline="rapo",
    claims=(Claim("rank + error ranks photographs better than error alone", "rapo", "error", "srcc", +1),),
)


def by_source(run: Run, stage: str) -> dict[str, dict[str, Any]]:
    """Return {kind of source: correlations} over all AVT-AI pictures, whatever their split.

    "photographs" are the set's own, "generated" all others together; then each generator by name.
    """
    source = {
        row["id"]: row["attributes"]["source"]
        # Lists of one set may be numbered: avt_ai-train, avt_ai_2-validation, avt_ai_3-test.
        for path in sorted(run.folder.manifests.glob("avt_ai*-*.jsonl"))
        for row in read_rows(path)
    }
    answers = {
        key: value
        for split in ("train", "validation", "test")
        for key, value in run.answers(stage, f"avt_ai/{split}", PROTOCOL).items()
    }
    groups: dict[str, list[str]] = {"photographs": [], "generated": []}
    for picture, name in source.items():
        if picture in answers:
            groups["photographs" if name == "own" else "generated"].append(picture)
            if name != "own":
                groups.setdefault(name, []).append(picture)
    return {
        name: correlations(
            [answers[picture][0] for picture in pictures], [answers[picture][1] for picture in pictures], seed=run.seed
        )
        for name, pictures in groups.items()
        if pictures
    }


def sources(runs: RunsByCondition) -> list[dict[str, Any]]:
    """Return a row per condition, stage and kind of source; intervals over seeds, and per seed over pictures."""
    rows = []
    for condition, by_seed in runs.items():
        for stage in ("cold_start", "rapo"):
            cells = {seed: by_source(run, stage) for seed, run in by_seed.items() if stage in run.evaluation["stages"]}
            for kind in dict.fromkeys(kind for kinds in cells.values() for kind in kinds):
                of_kind = {seed: kinds[kind] for seed, kinds in cells.items() if kind in kinds}
                rows.append(
                    {
                        "condition": condition,
                        "stage": stage,
                        "source": kind,
                        "n": max(cell["n"] for cell in of_kind.values()),
                        **{
                            metric: {
                                **over_seeds(cell[metric]["value"] for cell in of_kind.values()),
                                "seeds": {seed: cell[metric] for seed, cell in of_kind.items()},
                            }
                            for metric in METRICS
                        },
                    }
                )
    return rows


def section(result: Mapping[str, Any]) -> str:
    """Return the part of table.md that only this study has."""
    lines = ["", "### AVT-AI by source", "", "| condition | stage | source | n | SRCC | PLCC | MAE |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in result["sources"]:
        cells = " | ".join(interval(row[metric]) for metric in METRICS)
        lines.append(f"| {row['condition']} | {row['stage']} | {row['source']} | {row['n']} | {cells} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    folder, out = folders(STUDY.name, arguments)
    result, runs = run_analysis(lambda: analyse(STUDY, folder))
    result["sources"] = sources(runs)
    write(out, result, lambda: drawn(STUDY, result, out), table(result) + section(result), runs)


if __name__ == "__main__":
    main(sys.argv[1:])
