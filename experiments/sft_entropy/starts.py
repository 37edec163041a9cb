"""The starting checkpoints of RAPO: their entropy, RAPO's results from them, and rules that pick one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.reading import Run, RunsByCondition, over_seeds, paired
from experiments.study import PROTOCOL

FLOOR = 0.9  # share of readable answers that a start must reach
FIXED = ("1 epochs", "2 epochs")  # rules that always pick the same start


def pick_start(candidates: Mapping[str, tuple[float, float]], *, floor: float = 0.9) -> str | None:
    """Pick the checkpoint to start RAPO from: the highest entropy among those whose answers can be read.

    `candidates`: {name: (entropy, share of readable answers)}. None when none reaches the `floor`.
    """
    readable = {name: entropy for name, (entropy, answered) in candidates.items() if answered >= floor}
    return max(readable, key=lambda name: readable[name]) if readable else None


def regret(picked: str, outcomes: Mapping[str, float]) -> float:
    """Return how much the best start ends above the picked one, in the metric of `outcomes`.

    It is 0 when the pick was the best.
    """
    return max(outcomes.values()) - outcomes[picked]


def start_of(run: Run) -> dict[str, float]:
    """Return entropy and share of readable answers of the completions that RAPO's first step drew from the start."""
    first = next(row for row in run.metrics("rapo") if "policy/entropy" in row)
    return {"entropy": first["policy/entropy"], "answered": 1 - first["rollout/parse_failure_rate"]}


def gains(runs: RunsByCondition, dataset: str, n_bootstrap: int) -> list[dict[str, Any]]:
    """Return RAPO's gain over its own cold start, by condition.

    "srcc" and "plcc" are None where no cold start was asked.

    With 0 epochs there is no cold start, and the study does not ask the base model, so the gain is not defined.
    """
    rows = []
    for condition, by_seed in runs.items():
        starts = [start_of(run) for run in by_seed.values()]
        asked = {seed: run for seed, run in by_seed.items() if "cold_start" in run.evaluation["stages"]}
        added = paired(asked, asked, ("cold_start", "rapo"), dataset, PROTOCOL, n_bootstrap) if asked else {}
        rows.append(
            {
                "condition": condition,
                "entropy": over_seeds(start["entropy"] for start in starts),
                "answered": over_seeds(start["answered"] for start in starts),
                "srcc": added.get("srcc"),
                "plcc": added.get("plcc"),
            }
        )
    return rows


def by_seed(runs: RunsByCondition, dataset: str, added: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return per seed the starts, RAPO's final SRCC and gain (None: not defined), the peak, the picks and their regret.

    Regret is the difference in final SRCC to the best defined start; None where the picked one is not defined.
    """
    differences = {row["condition"]: row["srcc"]["seeds"] for row in added if row["srcc"]}
    rows = []
    for seed in sorted({seed for seeds in runs.values() for seed in seeds}):
        of_seed = {condition: seeds[seed] for condition, seeds in runs.items() if seed in seeds}
        starts = {condition: start_of(run) for condition, run in of_seed.items()}
        ends = {
            condition: run.evaluation["stages"]["rapo"][dataset][PROTOCOL]["srcc"]["value"]
            for condition, run in of_seed.items()
        }
        known = {condition: value for condition, value in ends.items() if value is not None}
        readable = {name: (start["entropy"], start["answered"]) for name, start in starts.items()}
        picks = {"entropy": pick_start(readable, floor=FLOOR), **{name: name for name in FIXED if name in of_seed}}
        rows.append(
            {
                "seed": seed,
                "starts": starts,
                "ends": ends,
                "gains": {
                    name: cells[seed]["difference"] for name, cells in differences.items() if seed in cells
                },
                "peak": pick_start(readable, floor=0.0),
                "peak_during": peak_during(list(of_seed.values())[-1]),
                "best": max(known, key=lambda name: known[name]) if known else None,
                "picked": picks,
                "regret": {rule: regret(pick, known) if pick in known else None for rule, pick in picks.items()},
            }
        )  # fmt: skip
    return rows


def peak_during(run: Run) -> dict[str, float | None] | None:
    """Return step, epoch and value of the highest entropy measured during a run's cold start.

    None without measurements.
    """
    rows = run.folder.entropy
    if not rows:
        return None
    highest = max(rows, key=lambda row: row["entropy"])
    steps = run.folder.stage_values("cold_start").get("steps")
    epoch = highest["step"] * run.settings["cold_start"]["epochs"] / steps if steps else None
    return {"step": highest["step"], "epoch": epoch, "entropy": highest["entropy"], "last": rows[-1]["step"]}


def relations(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Correlate the starts' entropy with their outcomes (Spearman): per seed, and the mean over seeds.

    "gains" covers starts with a cold start; "ends" is the final SRCC, of all starts and of the readable ones alone. A
    start without a defined outcome cannot be ranked: "starts" says how many of how many could.
    """
    summaries = []
    for outcome, floor in (("gains", 0.0), ("ends", 0.0), ("ends", FLOOR)):
        seeds = {}
        for row in rows:
            wanted = [name for name in row[outcome] if row["starts"][name]["answered"] >= floor]
            pairs = [
                (row["starts"][name]["entropy"], row[outcome][name])
                for name in wanted
                if row[outcome][name] is not None
            ]
            seeds[row["seed"]] = {"rho": spearman(pairs), "starts": len(pairs), "of": len(wanted)}
        summary = over_seeds(cell["rho"] for cell in seeds.values())
        summaries.append({"outcome": outcome, "floor": floor, **summary, "seeds": seeds})
    return summaries


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Return Spearman's correlation; None with fewer than three pairs, or where one side is constant."""
    from scipy import stats

    if len(pairs) < 3 or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    rho = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    return rho if math.isfinite(rho) else None
