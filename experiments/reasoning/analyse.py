"""Does a critique before the score help, by its words or by its tokens, and does it help more where tastes differ?

python -m experiments.reasoning.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from aes_r1.runs.cells import format_cell
from aes_r1.settings import InputError
from experiments.blocks import contrast, equivalent
from experiments.figures import TITLES
from experiments.reading import Run, by_condition, check_pictures, origins, over_seeds, read_runs, why_unfinished
from experiments.reasoning.pictures import TASTES
from experiments.study import Study, folders, missing_points, run_analysis, write
from experiments.tables import commits, error_bars, interval, missing

MARGIN = 0.02  # of SRCC: a difference within it is none that matters
CRITIQUE, SCORE = "critique, score", "score, critique"
CRITIQUE_PAID, SCORE_PAID = f"{CRITIQUE}; answer paid", f"{SCORE}; answer paid"
FILLER, ALONE = "filler, score", "score alone"
ARMS = (CRITIQUE, SCORE, FILLER, ALONE, CRITIQUE_PAID, SCORE_PAID)
PRIMARY = "thinking before the score"
# Sums of weight * arm within a taste. The first is the primary one, named before the study was run.
CONTRASTS: dict[str, dict[str, float]] = {
    PRIMARY: {CRITIQUE: 1, SCORE: -1},
    "learning to explain": {SCORE: 1, ALONE: -1},
    "computing over as many tokens": {FILLER: 1, ALONE: -1},
    "words instead of filler": {CRITIQUE: 1, FILLER: -1},
    "paying the answer alone, critique first": {CRITIQUE_PAID: 1, CRITIQUE: -1},
    "paying the answer alone, score first": {SCORE_PAID: 1, SCORE: -1},
    "paying the answer alone, more where the critique comes first": {
        CRITIQUE_PAID: 1, CRITIQUE: -1, SCORE_PAID: -1, SCORE: 1,
    },
}  # fmt: skip
_PROMPTS = {"critique": CRITIQUE, "score_first": SCORE, "filler": FILLER, "score_only": ALONE}
STAGES = {"cold_start": "cold start", "rapo": "RAPO"}
PROTOCOLS = {name: TITLES[name] for name in ("mean", "sample", "greedy")}


def arm(settings: Mapping[str, Any]) -> str:
    """What the model is asked for, in which order, and which tokens the score pays."""
    asked, credit = _PROMPTS[settings["model"]["prompt"]], settings["trainer"]["credit"]
    return asked if credit == "all" else f"{asked}; {credit} paid"


def taste(settings: Mapping[str, Any]) -> str:
    """The set that a replicate's pictures are of, from the path of its manifest (pictures.py)."""
    parts = Path(str(settings["data"]["root"])).parts
    return parts[-3] if len(parts) > 2 else f"data.root={settings['data']['root']}"


def condition(settings: Mapping[str, Any]) -> str:
    """Taste and arm of a run."""
    return f"{taste(settings)}: {arm(settings)}"


STUDY = Study(
    name="reasoning",
    axes=("model.prompt", "trainer.credit", "data.root", "model.pretrain.seed"),
    label=condition,
    order=tuple(f"{one}: {name}" for one in TASTES for name in ARMS),
    baseline=f"{TASTES[0]}: {SCORE}",
    protocol="mean",
)


def srcc(run: Run, stage: str, place: str, protocol: str) -> float | None:
    """Return a run's SRCC of one stage, set and protocol; None where the run was not asked so."""
    cell = run.evaluation["stages"].get(stage, {}).get(place, {}).get(protocol)
    return None if cell is None else cell["srcc"]["value"]


def analyse(folder: Path) -> tuple[dict[str, Any], dict[str, dict[int, Run]]]:
    """Return the result as plain values, and its runs by condition and seed."""
    runs, unfinished = read_runs(folder)
    check_pictures(runs)
    found = by_condition(runs, condition, STUDY.axes)
    strange = sorted(set(found) - set(STUDY.order))
    if strange:
        raise InputError(f"{folder}: conditions {', '.join(strange)} are not of the study {STUDY.name}")
    seeds = sorted({run.seed for run in runs})

    def values(stage: str, protocol: str, name: str) -> dict[str, dict[int, float | None]]:
        """Return {arm: {replicate: SRCC}} of the taste `name`."""
        return {
            one: {seed: srcc(run, stage, f"{name}/test", protocol) for seed, run in sorted(by_seed.items())}
            for one in ARMS
            if (by_seed := found.get(f"{name}: {one}"))
        }

    rows, differences = [], []
    for name in TASTES:
        for stage in STAGES:
            for protocol in PROTOCOLS:
                of_arms = values(stage, protocol, name)
                key = {"taste": name, "stage": stage, "protocol": protocol}
                rows += [{**key, "arm": one, **over_seeds(by.values()), "seeds": by} for one, by in of_arms.items()]
                differences += [
                    {**key, "difference": what, **_judged(contrast(of_arms, weights))}
                    for what, weights in CONTRASTS.items()
                ]
    both = {
        f"{name}: {one}": {(name, seed): value for seed, value in by_seed.items()}
        for name in TASTES
        for one, by_seed in values("rapo", "mean", name).items()
    }
    ends = zip(TASTES, (-1, 1), strict=True)
    more = {f"{name}: {one}": sign * weight for name, sign in ends for one, weight in CONTRASTS[PRIMARY].items()}
    result = {
        "study": STUDY.name,
        "seeds": seeds,
        "origins": origins(runs),
        "margin": MARGIN,
        "rows": rows,
        "differences": differences,
        # A block is a taste of a replicate, so no block holds all of this contrast; a replicate with both tastes does.
        "between_tastes": {**_judged(contrast(both, more)), "n": _replicates(both, more)},
        "missing": missing_points(STUDY, seeds, found),
        "unfinished": why_unfinished(unfinished),
    }
    return result, found


def _replicates(values: Mapping[str, Mapping[tuple[str, int], float | None]], names: Iterable[str]) -> int:
    """Count the replicates in which every condition of `names` has a value."""
    seeds = [{seed for (_, seed), value in values.get(name, {}).items() if value is not None} for name in names]
    return len(set.intersection(*seeds))


def _judged(found: dict[str, Any]) -> dict[str, Any]:
    """Add what the interval of a contrast shows: higher or lower, and equal by the margin; else open."""
    if found["low"] is None:
        return {**found, "verdict": "–"}
    said = ["higher"] if found["low"] > 0 else ["lower"] if found["high"] < 0 else []
    said += [f"equal within {MARGIN:g}"] if equivalent(found, MARGIN) else []
    return {**found, "verdict": ", ".join(said) or "open"}


def table(result: Mapping[str, Any]) -> str:
    """Markdown: contrasts within replicates, then SRCC by arm, stage and protocol."""
    lines = [
        f"Replicates {', '.join(map(str, result['seeds']))}, each with its own base model, training pictures and cold "
        f"starts; code: {commits(result)}.",
        "",
        "## Differences of SRCC within replicates, after RAPO, mean of 4",
        "",
        "95% intervals from one error pooled over the arms of a taste (randomised blocks), not adjusted for their "
        f"number. Equal: two one-sided tests at .05 with the margin {MARGIN:g}. The first row of a taste is primary.",
    ]
    for name in TASTES:
        lines += ["", f"### {name}", "", "| difference | replicates | SRCC | verdict |", "|---|---|---|---|"]
        lines += [
            _line(row["difference"], row)
            for row in result["differences"]
            if (row["taste"], row["stage"], row["protocol"]) == (name, "rapo", "mean")
        ]
    lines += ["", "### between the tastes", "", "| difference | replicates | SRCC | verdict |", "|---|---|---|---|"]
    lines.append(_line(f"{PRIMARY}, more in {TASTES[1]} than in {TASTES[0]}", result["between_tastes"]))
    for name in TASTES:
        lines += ["", f"## SRCC, {name}", "", "Means over replicates with 95% t-intervals.", ""]
        lines += ["| arm | stage | replicates | " + " | ".join(PROTOCOLS.values()) + " |", "|---|---|---|" + "---|" * 3]
        mine = {(row["arm"], row["stage"], row["protocol"]): row for row in result["rows"] if row["taste"] == name}
        for one, stage in dict.fromkeys((one, stage) for one, stage, _ in sorted(mine, key=_place)):
            cells = [mine[one, stage, protocol] for protocol in PROTOCOLS]
            shown = " | ".join(interval(cell) for cell in cells)
            lines.append(f"| {one} | {STAGES[stage]} | {cells[0]['run']} | {shown} |")
    return "\n".join([*lines, "", *missing(result)]).rstrip() + "\n"


def _place(key: tuple[str, str, str]) -> tuple[int, int]:
    return ARMS.index(key[0]), list(STAGES).index(key[1])


def _line(name: str, row: Mapping[str, Any]) -> str:
    return f"| {name} | {row['n']} | {format_cell(row, 'mean', signed=True)} | {row['verdict']} |"


def draw(result: Mapping[str, Any]) -> Any:
    """Draw SRCC after RAPO by arm, mean of 4: means with intervals, thin lines for replicates, a panel per taste."""
    with plt.rc_context({"font.size": 8}):
        tastes = [name for name in TASTES if any(row["taste"] == name for row in result["rows"])]
        arms = [one for one in ARMS if any(row["arm"] == one for row in result["rows"])]
        size = ((35 + 24 * len(arms) * len(tastes)) / 25.4, 85 / 25.4)
        figure, grid = plt.subplots(1, len(tastes), figsize=size, sharey=True, layout="constrained", squeeze=False)
        for axis, name in zip(grid[0], tastes, strict=True):
            for stage, color, marker, aside in (("cold_start", "#0072b2", "o", -0.06), ("rapo", "#d55e00", "s", 0.06)):
                rows = {
                    row["arm"]: row
                    for row in result["rows"]
                    if (row["taste"], row["stage"], row["protocol"]) == (name, stage, "mean")
                }
                for seed in result["seeds"]:
                    line = [(x + aside, rows[one]["seeds"].get(seed)) for x, one in enumerate(arms) if one in rows]
                    known = [(x, value) for x, value in line if value is not None]
                    if known:
                        axis.plot(*zip(*known, strict=True), color=color, lw=0.5, alpha=0.4)
                means = [(x + aside, rows[one]) for x, one in enumerate(arms) if one in rows]
                means = [(x, row) for x, row in means if row["mean"] is not None]
                at, height = [x for x, _ in means], [row["mean"] for _, row in means]
                axis.errorbar(
                    at,
                    height,
                    yerr=error_bars([row for _, row in means]),
                    fmt=marker,
                    color=color,
                    ms=4,
                    capsize=2,
                    label=STAGES[stage],
                )
            axis.set_xticks(
                range(len(arms)), arms, rotation=30 * (len(arms) > 2), ha="right" if len(arms) > 2 else "center"
            )
            axis.set_xlim(-0.5, len(arms) - 0.5)
            axis.set_title(name, fontsize=8)
            axis.grid(lw=0.3, axis="y")
        grid[0][0].set_ylabel("SRCC with the opinions, mean of 4")
        grid[0][0].legend(frameon=False)
    return figure


def main(arguments: list[str]) -> None:
    runs, out = folders(STUDY.name, arguments)
    result, found = run_analysis(lambda: analyse(runs))
    write(out, result, lambda: draw(result), table(result), found)


if __name__ == "__main__":
    main(sys.argv[1:])
