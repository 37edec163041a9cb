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


def arm_of(settings: Mapping[str, Any]) -> str:
    """What the model is asked for, in which order, and which tokens the score pays."""
    asked, credit = _PROMPTS[settings["model"]["prompt"]], settings["trainer"]["credit"]
    return asked if credit == "all" else f"{asked}; {credit} paid"


def taste_of(settings: Mapping[str, Any]) -> str:
    """The set that a replicate's pictures are of, from the path of its manifest (pictures.py)."""
    parts = Path(str(settings["data"]["root"])).parts
    return parts[-3] if len(parts) > 2 else f"data.root={settings['data']['root']}"


def condition_of(settings: Mapping[str, Any]) -> str:
    """Taste and arm of a run."""
    return f"{taste_of(settings)}: {arm_of(settings)}"


STUDY = Study(
    name="reasoning",
    axes=("model.prompt", "trainer.credit", "data.root", "model.pretrain.seed"),
    label=condition_of,
    order=tuple(f"{taste}: {arm}" for taste in TASTES for arm in ARMS),
    baseline=f"{TASTES[0]}: {SCORE}",
    protocol="mean",
)


def srcc(run: Run, stage: str, dataset: str, protocol: str) -> float | None:
    """Return a run's SRCC of one stage, set and protocol; None where the run was not asked so."""
    cell = run.evaluation["stages"].get(stage, {}).get(dataset, {}).get(protocol)
    return None if cell is None else cell["srcc"]["value"]


def analyse(folder: Path) -> tuple[dict[str, Any], dict[str, dict[int, Run]]]:
    """Return the result as plain values, and its runs by condition and seed."""
    finished, unfinished = read_runs(folder)
    check_pictures(finished)
    runs = by_condition(finished, condition_of, STUDY.axes)
    strange = sorted(set(runs) - set(STUDY.order))
    if strange:
        raise InputError(f"{folder}: conditions {', '.join(strange)} are not of the study {STUDY.name}")
    seeds = sorted({run.seed for run in finished})

    def values(stage: str, protocol: str, taste: str) -> dict[str, dict[int, float | None]]:
        """Return {arm: {replicate: SRCC}} of `taste`."""
        return {
            arm: {seed: srcc(run, stage, f"{taste}/test", protocol) for seed, run in sorted(by_seed.items())}
            for arm in ARMS
            if (by_seed := runs.get(f"{taste}: {arm}"))
        }

    rows, differences = [], []
    for taste in TASTES:
        for stage in STAGES:
            for protocol in PROTOCOLS:
                of_arms = values(stage, protocol, taste)
                key = {"taste": taste, "stage": stage, "protocol": protocol}
                rows += [
                    {**key, "arm": arm, **over_seeds(by_seed.values()), "seeds": by_seed}
                    for arm, by_seed in of_arms.items()
                ]
                differences += [
                    {**key, "difference": name, **_judged(contrast(of_arms, weights))}
                    for name, weights in CONTRASTS.items()
                ]
    both_tastes = {
        f"{taste}: {arm}": {(taste, seed): value for seed, value in by_seed.items()}
        for taste in TASTES
        for arm, by_seed in values("rapo", "mean", taste).items()
    }
    signs = zip(TASTES, (-1, 1), strict=True)
    interaction = {
        f"{taste}: {arm}": sign * weight for taste, sign in signs for arm, weight in CONTRASTS[PRIMARY].items()
    }
    result = {
        "study": STUDY.name,
        "seeds": seeds,
        "origins": origins(finished),
        "margin": MARGIN,
        "rows": rows,
        "differences": differences,
        # A block is a taste of a replicate, so no block holds all of this contrast; a replicate with both tastes does.
        "between_tastes": {**_judged(contrast(both_tastes, interaction)), "n": _replicates(both_tastes, interaction)},
        "missing": missing_points(STUDY, seeds, runs),
        "unfinished": why_unfinished(unfinished),
    }
    return result, runs


def _replicates(values: Mapping[str, Mapping[tuple[str, int], float | None]], names: Iterable[str]) -> int:
    """Count the replicates in which every condition of `names` has a value."""
    seeds = [{seed for (_, seed), value in values.get(name, {}).items() if value is not None} for name in names]
    return len(set.intersection(*seeds))


def _judged(estimate: dict[str, Any]) -> dict[str, Any]:
    """Add what the interval of a contrast shows: higher or lower, and equal by the margin; else open."""
    if estimate["low"] is None:
        return {**estimate, "verdict": "–"}
    shown = ["higher"] if estimate["low"] > 0 else ["lower"] if estimate["high"] < 0 else []
    shown += [f"equal within {MARGIN:g}"] if equivalent(estimate, MARGIN) else []
    return {**estimate, "verdict": ", ".join(shown) or "open"}


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
    for taste in TASTES:
        lines += ["", f"### {taste}", "", "| difference | replicates | SRCC | verdict |", "|---|---|---|---|"]
        lines += [
            _line(row["difference"], row)
            for row in result["differences"]
            if (row["taste"], row["stage"], row["protocol"]) == (taste, "rapo", "mean")
        ]
    lines += ["", "### between the tastes", "", "| difference | replicates | SRCC | verdict |", "|---|---|---|---|"]
    lines.append(_line(f"{PRIMARY}, more in {TASTES[1]} than in {TASTES[0]}", result["between_tastes"]))
    for taste in TASTES:
        lines += ["", f"## SRCC, {taste}", "", "Means over replicates with 95% t-intervals.", ""]
        lines += ["| arm | stage | replicates | " + " | ".join(PROTOCOLS.values()) + " |", "|---|---|---|" + "---|" * 3]
        rows = {(row["arm"], row["stage"], row["protocol"]): row for row in result["rows"] if row["taste"] == taste}
        for arm, stage in dict.fromkeys((arm, stage) for arm, stage, _ in sorted(rows, key=_order)):
            cells = [rows[arm, stage, protocol] for protocol in PROTOCOLS]
            shown = " | ".join(interval(cell) for cell in cells)
            lines.append(f"| {arm} | {STAGES[stage]} | {cells[0]['run']} | {shown} |")
    return "\n".join([*lines, "", *missing(result)]).rstrip() + "\n"


def _order(key: tuple[str, str, str]) -> tuple[int, int]:
    return ARMS.index(key[0]), list(STAGES).index(key[1])


def _line(name: str, row: Mapping[str, Any]) -> str:
    return f"| {name} | {row['n']} | {format_cell(row, 'mean', signed=True)} | {row['verdict']} |"


def draw(result: Mapping[str, Any]) -> Any:
    """Draw SRCC after RAPO by arm, mean of 4: means with intervals, thin lines for replicates, a panel per taste."""
    with plt.rc_context({"font.size": 8}):
        tastes = [taste for taste in TASTES if any(row["taste"] == taste for row in result["rows"])]
        arms = [arm for arm in ARMS if any(row["arm"] == arm for row in result["rows"])]
        size = ((35 + 24 * len(arms) * len(tastes)) / 25.4, 85 / 25.4)
        figure, grid = plt.subplots(1, len(tastes), figsize=size, sharey=True, layout="constrained", squeeze=False)
        for axis, taste in zip(grid[0], tastes, strict=True):
            for stage, color, marker, aside in (("cold_start", "#0072b2", "o", -0.06), ("rapo", "#d55e00", "s", 0.06)):
                rows = {
                    row["arm"]: row
                    for row in result["rows"]
                    if (row["taste"], row["stage"], row["protocol"]) == (taste, stage, "mean")
                }
                for seed in result["seeds"]:
                    line = [(x + aside, rows[arm]["seeds"].get(seed)) for x, arm in enumerate(arms) if arm in rows]
                    defined = [(x, value) for x, value in line if value is not None]
                    if defined:
                        axis.plot(*zip(*defined, strict=True), color=color, lw=0.5, alpha=0.4)
                means = [(x + aside, rows[arm]) for x, arm in enumerate(arms) if arm in rows]
                means = [(x, row) for x, row in means if row["mean"] is not None]
                positions, heights = [x for x, _ in means], [row["mean"] for _, row in means]
                axis.errorbar(
                    positions,
                    heights,
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
            axis.set_title(taste, fontsize=8)
            axis.grid(lw=0.3, axis="y")
        grid[0][0].set_ylabel("SRCC with the opinions, mean of 4")
        grid[0][0].legend(frameon=False)
    return figure


def main(arguments: list[str]) -> None:
    folder, out = folders(STUDY.name, arguments)
    result, runs = run_analysis(lambda: analyse(folder))
    write(out, result, lambda: draw(result), table(result), runs)


if __name__ == "__main__":
    main(sys.argv[1:])
