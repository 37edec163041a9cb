"""The starting checkpoints of RAPO: their entropy, what RAPO made of them, and rules that pick one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from aes_r1.inference.token_entropy import pick_start, regret
from experiments.reading import Run, over_seeds, paired
from experiments.study import PROTOCOL

FLOOR = 0.9  # share of readable answers that a start must reach
FIXED = ("1 epochs", "2 epochs")  # rules that look at nothing: always this start

Found = Mapping[str, Mapping[int, Run]]


def start_of(run: Run) -> dict[str, float]:
    """Entropy and share of readable answers of the outputs that RAPO's first step drew from the starting checkpoint."""
    first = next(row for row in run.metrics("rapo") if "policy/entropy" in row)
    return {"entropy": first["policy/entropy"], "answered": 1 - first["rollout/parse_failure_rate"]}


def gains(found: Found, place: str, n_bootstrap: int) -> list[dict[str, Any]]:
    """What RAPO adds to its own cold start, by condition; "srcc" and "plcc" are None where no cold start was asked.

    0 epochs have no cold start, and the study does not ask the base model: the gain is not defined.
    """
    rows = []
    for condition, by_seed in found.items():
        starts = [start_of(run) for run in by_seed.values()]
        asked = {seed: run for seed, run in by_seed.items() if "cold_start" in run.evaluation["stages"]}
        added = paired(asked, asked, ("cold_start", "rapo"), place, PROTOCOL, n_bootstrap) if asked else {}
        rows.append(
            {
                "condition": condition,
                "entropy": over_seeds(one["entropy"] for one in starts),
                "answered": over_seeds(one["answered"] for one in starts),
                "srcc": added.get("srcc"),
                "plcc": added.get("plcc"),
            }
        )
    return rows


def by_seed(found: Found, place: str, added: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per seed: the starts, where RAPO ended and what it added (None: not defined), the peak, the picks, their regret.

    Regret is in final SRCC, against the best start that is defined; None where the picked one is not.
    """
    differences = {row["condition"]: row["srcc"]["seeds"] for row in added if row["srcc"]}
    rows = []
    for seed in sorted({seed for runs in found.values() for seed in runs}):
        mine = {condition: runs[seed] for condition, runs in found.items() if seed in runs}
        starts = {condition: start_of(run) for condition, run in mine.items()}
        ends = {
            condition: run.evaluation["stages"]["rapo"][place][PROTOCOL]["srcc"]["value"]
            for condition, run in mine.items()
        }
        known = {condition: value for condition, value in ends.items() if value is not None}
        readable = {name: (one["entropy"], one["answered"]) for name, one in starts.items()}
        picks = {"entropy": pick_start(readable, floor=FLOOR), **{name: name for name in FIXED if name in mine}}
        rows.append(
            {
                "seed": seed,
                "starts": starts,
                "ends": ends,
                "gains": {
                    name: cells[seed]["difference"] for name, cells in differences.items() if seed in cells
                },
                "peak": pick_start(readable, floor=0.0),
                "peak_during": peak_during(list(mine.values())[-1]),
                "best": max(known, key=lambda name: known[name]) if known else None,
                "picked": picks,
                "regret": {rule: regret(pick, known) if pick in known else None for rule, pick in picks.items()},
            }
        )  # fmt: skip
    return rows


def peak_during(run: Run) -> dict[str, float | None] | None:
    """Step, epoch and height of the highest entropy that was measured during a run's cold start; None if it was not."""
    rows = run.folder.entropy
    if not rows:
        return None
    highest = max(rows, key=lambda row: row["entropy"])
    steps = run.folder.stage_values("cold_start").get("steps")
    epoch = highest["step"] * run.settings["cold_start"]["epochs"] / steps if steps else None
    return {"step": highest["step"], "epoch": epoch, "entropy": highest["entropy"], "last": rows[-1]["step"]}


def relations(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's correlation over starts of their entropy with what came of them: per seed, and its mean over seeds.

    "gains" are of starts with a cold start; "ends" are final SRCC, of all starts and of the readable ones alone. A
    start whose outcome is not defined cannot be ranked: "starts" says how many of how many could.
    """
    found = []
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
        summary = over_seeds(one["rho"] for one in seeds.values())
        found.append({"outcome": outcome, "floor": floor, **summary, "seeds": seeds})
    return found


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """None with fewer than three pairs, or where one side is constant."""
    from scipy import stats

    if len(pairs) < 3 or any(len(set(side)) == 1 for side in zip(*pairs, strict=True)):
        return None
    rho = float(stats.spearmanr(*zip(*pairs, strict=True)).statistic)
    return rho if math.isfinite(rho) else None
