"""Length of the cold start, token entropy and what RAPO gains; a rule that picks the start, and what it costs.

python -m experiments.sft_entropy.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import matplotlib.pyplot as plt

from aes_r1.evaluation.entropy import KINDS, pick_start, regret
from aes_r1.settings import InputError
from experiments.reading import Run, over_seeds, paired, read_rows
from experiments.study import PAPER, PROTOCOL, Claim, Study, analyse, folders, write
from experiments.tables import interval

EPOCHS = (0, 1, 2, 3, 5, 10)
FLOOR = 0.9  # share of readable answers that a start must reach

STUDY = Study(
    name="sft_entropy",
    axes=("cold_start.epochs",),
    label=lambda settings: f"{settings['cold_start']['epochs']} epochs",
    order=tuple(f"{one} epochs" for one in EPOCHS),
    baseline="1 epochs",
    claims=(
        Claim("10 epochs, then RAPO ends below 1 epoch, then RAPO", "10 epochs", "1 epochs", "srcc", -1),
        Claim("2 epochs, then RAPO ends below 1 epoch, then RAPO", "2 epochs", "1 epochs", "srcc", -1),
        Claim("RAPO from the base model ends below 1 epoch, then RAPO", "0 epochs", "1 epochs", "srcc", -1),
    ),
    paper={
        f"{one} epochs": PAPER["sft_epochs"][f"{one} epochs + RAPO"]
        for one in EPOCHS
        if "note" not in PAPER["sft_epochs"].get(f"{one} epochs + RAPO", {"note": ""})
    },
)


def start_of(run: Run) -> dict[str, float]:
    """Entropy and share of readable answers of the outputs that RAPO's first step drew from the starting checkpoint."""
    first = run.metrics("rapo")[0]
    return {"entropy": first["policy/entropy"], "answered": 1 - first["rollout/parse_failure_rate"]}


def rule(found: Mapping[str, Mapping[int, Run]], place: str) -> list[dict[str, Any]]:
    """Per seed: which start the rule picks, what the best was, and the regret in final SRCC."""
    rows = []
    for seed in sorted({seed for by_seed in found.values() for seed in by_seed}):
        mine = {condition: by_seed[seed] for condition, by_seed in found.items() if seed in by_seed}
        starts = {condition: start_of(run) for condition, run in mine.items()}
        ends = {
            condition: run.evaluation["stages"]["rapo"][place][PROTOCOL]["srcc"]["value"]
            for condition, run in mine.items()
        }
        ends = {condition: value for condition, value in ends.items() if value is not None}
        picked = pick_start({name: (one["entropy"], one["answered"]) for name, one in starts.items()}, floor=FLOOR)
        rows.append(
            {
                "seed": seed,
                "picked": picked,
                "best": max(ends, key=lambda name: ends[name]) if ends else None,
                "regret": regret(picked, ends) if picked in ends else None,
                "starts": starts,
                "ends": ends,
            }
        )
    return rows


def gains(found: Mapping[str, Mapping[int, Run]], place: str, n_bootstrap: int) -> list[dict[str, Any]]:
    """What RAPO adds to its own cold start, by condition; 0 epochs have no cold start."""
    return [
        {
            "condition": condition,
            "entropy": over_seeds(start_of(run)["entropy"] for run in by_seed.values()),
            **paired(by_seed, by_seed, ("cold_start", "rapo"), place, PROTOCOL, n_bootstrap),
        }
        for condition, by_seed in found.items()
        if all("cold_start" in run.evaluation["stages"] for run in by_seed.values())
    ]


def probes(found: Mapping[str, Mapping[int, Run]]) -> dict[str, dict[int, list[dict]]]:
    """Measurements during the cold start, RUN/entropy.jsonl, by condition and seed."""
    return {
        condition: {seed: read_rows(run.folder / "entropy.jsonl") for seed, run in by_seed.items()}
        for condition, by_seed in found.items()
    }


def draw(result: Mapping[str, Any]) -> Any:
    """Entropy by step, by kind and by position, and final SRCC against entropy at the start of RAPO."""
    figure, (by_step, by_kind, by_place, outcome) = plt.subplots(1, 4, figsize=(15, 3.2), layout="constrained")
    longest = [condition for condition in result["probes"] if any(result["probes"][condition].values())][-1:]
    for condition, seeds in result["probes"].items():
        for rows in seeds.values():
            by_step.plot([row["step"] for row in rows], [row["entropy"] for row in rows], lw=1, label=condition)
    for condition in longest:
        rows = next(rows for rows in result["probes"][condition].values() if rows)
        for kind in KINDS:
            points = [(row["step"], row["by_kind"][kind]["entropy"]) for row in rows]
            by_kind.plot(*zip(*points, strict=True), lw=1, label=kind)
        for row in (rows[0], rows[len(rows) // 2], rows[-1]):
            by_place.plot(range(len(row["by_position"])), row["by_position"], lw=1, label=f"step {row['step']}")
    for one in result["rule"]:
        for condition, end in one["ends"].items():
            outcome.plot(one["starts"][condition]["entropy"], end, "o", color="C0", ms=4)
            outcome.annotate(condition, (one["starts"][condition]["entropy"], end), fontsize=6)
    for axis, title in (
        (by_step, "token entropy by step of the cold start"), (by_kind, "by kind of token"),
        (by_place, "by tenth of the answer"), (outcome, "final SRCC by entropy at the start of RAPO"),
    ):  # fmt: skip
        axis.set_title(title, fontsize=9)
        if axis.get_legend_handles_labels()[0]:
            handles = dict(zip(*reversed(axis.get_legend_handles_labels())))
            axis.legend(handles.values(), handles.keys(), fontsize=7, frameon=False)
    return figure


def lines(result: Mapping[str, Any]) -> str:
    """The part of table.md that only this study has."""
    text = ["", "### What RAPO adds to its cold start", "", "| start | entropy | SRCC | PLCC |", "|---|---|---|---|"]
    text += [
        f"| {one['condition']} | {interval(one['entropy'])} | {interval(one['srcc'], signed=True)} "
        f"| {interval(one['plcc'], signed=True)} |"
        for one in result["gains"]
    ]
    text += ["", f"### The rule: highest entropy with at least {FLOOR:.0%} readable answers", ""]
    text += ["| seed | picked | best | regret in SRCC |", "|---|---|---|---|"]
    text += [
        f"| {one['seed']} | {one['picked'] or 'none reaches the floor'} | {one['best'] or '–'} "
        f"| {'–' if one['regret'] is None else format(one['regret'], '.3f')} |"
        for one in result["rule"]
    ]
    return "\n".join(text) + "\n"


def main(arguments: list[str]) -> None:
    runs, out = folders(STUDY.name, arguments)
    try:
        result, found = analyse(STUDY, runs)
    except InputError as error:
        sys.exit(f"aes_r1: {error}")
    place = result["rows"][0]["set"]
    result |= {"gains": gains(found, place, 1000), "rule": rule(found, place), "probes": probes(found)}
    write(out, result, draw(result))
    with (out / "table.md").open("a") as file:
        file.write(lines(result))
    print((out / "table.md").read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
