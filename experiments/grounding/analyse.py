"""Do critiques stay true while the score is trained? By which tokens the score pays, and what critiques are paid for.

python -m experiments.grounding.analyse [RUNS [OUT]]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from aes_r1.runs.cells import format_cell
from experiments.endpoints import Measure, endpoint_rows, join_endpoints, join_seeds
from experiments.reading import Run, RunsByCondition
from experiments.study import Claim, Study, analyse, folders, run_analysis, write
from experiments.tables import interval, table

MARGIN = 0.02  # of SRCC: a loss below it is none that matters
STEPS = (0, 20, 40, 80, 140)  # at which the curves are read
ARMS = (
    "all", "answer", "answer, critique KL .1", "rank .25", "rank 1", "squared .25", "squared 1", "information .25",
    "read_back 1",
)  # fmt: skip


def arm(settings: Mapping[str, Any]) -> str:
    """What pays the critique's tokens; of rewards of the critique the name and weight, of faithfulness its form."""
    trainer, reward = settings["trainer"], settings["reward"]
    if trainer["credit"] != "parts":
        held = trainer["critique_kl_coef"]
        return trainer["credit"] + ("" if held is None else f", critique KL {_short(held)}")
    names = {reward["faithfulness"]["form"]: "faithfulness", "read_back": "read_back", "information": "information"}
    return " + ".join(f"{name} {_short(reward[key]['weight'])}" for name, key in names.items() if reward[key]["weight"])


def _short(number: float) -> str:
    return f"{number:g}".removeprefix("0")


STUDY = Study(
    name="grounding",
    axes=(
        *(
            "trainer.credit",
            "trainer.critique_kl_coef",
            "reward.faithfulness",
            "reward.read_back",
            "reward.information",
        ),
        *("cold_start.blank_pictures", "data.root", "model.pretrain.seed"),
    ),
    label=arm,
    order=ARMS,
    baseline="all",
    claims=tuple(
        Claim(f"SRCC of {name} is not lower than of all by {MARGIN}", name, "all", "srcc", +1, MARGIN)
        for name in ARMS[1:]
    ),
    protocol="mean",
)


def _score(protocol: str, metric: str = "srcc") -> Measure:
    def value(run: Run, stage: str, dataset: str) -> float | None:
        cell = run.evaluation["stages"][stage][dataset][protocol]
        return cell[metric] if metric == "parse_failure_rate" else cell[metric]["value"]

    return value


def _words(name: str) -> Measure:
    def value(run: Run, stage: str, dataset: str) -> float | None:
        cell = (run.evaluation["stages"][stage][dataset]["greedy"].get("critiques") or {}).get(name)
        return None if cell is None else cell["value"]

    return value


def _share_distinct(run: Run, stage: str, dataset: str) -> float | None:
    cell = run.evaluation["stages"][stage][dataset]["greedy"]
    return _words("distinct")(run, stage, dataset) / cell["n"] if cell.get("critiques") else None


ENDPOINTS: dict[str, Measure] = {
    "SRCC, mean of 4": _score("mean"),
    "SRCC, one sample": _score("sample"),
    "SRCC, greedy": _score("greedy"),
    "failed, one sample": _score("sample", "parse_failure_rate"),
    "words against opinions, SRCC": _words("words_srcc"),
    "different critiques, share": _share_distinct,
    "known of the picture, words, nats": _words("information_nats"),
    "known of the picture, score, nats": _words("score_information_nats"),
    "words against true factors, SRCC": _words("faithfulness"),
    "score follows another critique": _words("follow_critique"),
    "score follows another picture": _words("follow_picture"),
}


def with_signs(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of endpoints with the sign test of each condition that is compared with the baseline."""
    baselines = {(row["set"], row["endpoint"]): row["seeds"] for row in rows if row["condition"] == STUDY.baseline}
    return [
        {**row, "signs": row["difference"] and _signs(row["seeds"], baselines[row["set"], row["endpoint"]])}
        for row in rows
    ]


def join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return the endpoints and curves of two results of this study as those of one (`experiments.join`)."""
    curves = {
        condition: join_seeds(
            *(result["curves"].get(condition, {}) for result in (first, second)), f"curves of {condition}"
        )
        for condition in ARMS
    }
    rows = join_endpoints(first["endpoints"], second["endpoints"], ARMS, STUDY.baseline)
    return {
        "endpoints": with_signs(rows),
        "curves": {condition: by_seed for condition, by_seed in curves.items() if by_seed},
    }


def _signs(values: Mapping[int, float | None], baseline: Mapping[int, float | None]) -> dict[str, Any]:
    """Count the replicates whose difference to `baseline` lies above -MARGIN; the sign test assumes no distribution.

    "lowest": the smallest difference; "p": the chance of so many or more where the median difference is -MARGIN.
    """
    pairs = [(value, baseline.get(seed)) for seed, value in values.items()]
    differences = [value - other for value, other in pairs if value is not None and other is not None]
    above = sum(difference > -MARGIN for difference in differences)
    p = float(stats.binomtest(above, len(differences), alternative="greater").pvalue)
    return {"lowest": min(differences), "above": above, "n": len(differences), "p": p}


def curves(runs: RunsByCondition) -> dict[str, dict[int, list[dict[str, float]]]]:
    """Validations of RAPO by condition and replicate: {"step", "words", "score", "words_srcc", "distinct"} each."""
    names = {
        "words": "critique/information_nats",
        "score": "critique/score_information_nats",
        "words_srcc": "critique/words_srcc",
        "distinct": "critique/distinct",
    }
    return {
        condition: {
            seed: [
                {"step": row["step"], **{short: row[name] for short, name in names.items()}}
                for row in run.metrics("rapo")
                if row.get(names["words"]) is not None
            ]
            for seed, run in by_seed.items()
        }
        for condition, by_seed in runs.items()
    }


def paths(rows: Mapping[int, list[dict[str, float]]]) -> np.ndarray:
    """[steps, 2] nats of information about the picture in score and words at STEPS, means over replicates."""
    replicates = [{row["step"]: (row["score"], row["words"]) for row in validations} for validations in rows.values()]
    steps = [step for step in STEPS if replicates and all(step in by_step for by_step in replicates)]
    return np.array([np.mean([by_step[step] for by_step in replicates], axis=0) for step in steps]).reshape(-1, 2)


COLORS = ("#000000", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#66c2a5", "#cc79a7", "#999999")


def draw(result: Mapping[str, Any]) -> Any:
    """Where the information is: in the words (up) and in the score (right), from the cold start to the end of RAPO."""
    with plt.rc_context({"font.size": 8}):
        figure, axis = plt.subplots(figsize=(170 / 25.4, 110 / 25.4), layout="constrained")
        for color, condition in zip(COLORS, ARMS, strict=True):
            rows = result["curves"].get(condition)
            if not rows:
                continue
            for alone in rows.items() if len(rows) > 1 else ():
                axis.plot(*paths(dict([alone])).T, color=color, lw=0.5, alpha=0.35)
            path = paths(rows)
            axis.plot(*path.T, "-", color=color, lw=1.8, label=f"{condition} (n {len(rows)})")
            axis.plot(*path[1:].T, "o", color=color, ms=3)
            axis.plot(*path[:1].T, "o", color=color, ms=6, mfc="white")
            axis.plot(*path[-1:].T, "o", color=color, ms=6)
        axis.set_xlim(left=min(0.0, axis.get_xlim()[0]))  # or a small loss would look like a whole one
        axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
        axis.set_xlabel("information about the picture in the score, nats")
        axis.set_ylabel("information about the picture in the words, nats")
        axis.set_title(f"RAPO's steps {', '.join(map(str, STEPS))}; open: the cold start, full: the end", fontsize=8)
        axis.grid(lw=0.3)
        axis.legend(frameon=False, fontsize=7)
    return figure


def section(result: Mapping[str, Any]) -> str:
    """Markdown: every endpoint by condition, and the differences to the baseline in blocks."""
    lines = [
        "",
        f"## Endpoints, and differences to {STUDY.baseline} within replicates",
        "",
        "Mean over replicates with its 95% t-interval; then the difference within replicates, 95% interval from one "
        "error pooled over all arms (randomised blocks). Critiques are greedy. Follow: share of the way that the "
        "score goes when the critique or the picture is exchanged. Where SRCC's interval lies above "
        f"-{MARGIN}, the arm is not worse by that margin. Last column, of SRCC: the lowest difference, and in how many "
        "replicates it lies above the margin, with the p of a sign test, which was not named before the study was run "
        "and makes no assumption about the size of differences. The arm read_back has a cold start of its own.",
    ]
    for dataset in dict.fromkeys(row["set"] for row in result["endpoints"]):
        for name in ENDPOINTS:
            rows = [row for row in result["endpoints"] if (row["set"], row["endpoint"]) == (dataset, name)]
            lines += [
                "",
                f"### {dataset}: {name}",
                "",
                "| arm | replicates | mean | difference to all | by the margin | lowest, above it |",
            ]
            lines += ["|---|---|---|---|---|---|"]
            for row in rows:
                lines.append(
                    f"| {row['condition']} | {row['run']} | {interval(row)} | {_difference(row)} | {_margin(row)} "
                    f"| {_above(row)} |"
                )
    return "\n".join(lines) + "\n"


def _difference(row: Mapping[str, Any]) -> str:
    difference = row["difference"]
    return "–" if difference is None else format_cell(difference, "mean", signed=True)


def _margin(row: Mapping[str, Any]) -> str:
    difference = row["difference"]
    if difference is None or difference["low"] is None or not row["endpoint"].startswith("SRCC"):
        return "–"
    if difference["low"] > -MARGIN:
        return "not worse"
    return "worse" if difference["high"] < -MARGIN else "open"


def _above(row: Mapping[str, Any]) -> str:
    signs = row["signs"]
    if signs is None or not row["endpoint"].startswith("SRCC"):
        return "–"
    return f"{signs['lowest']:+.3f}, {signs['above']} of {signs['n']}, p {signs['p']:.3f}"


def main(arguments: list[str]) -> None:
    folder, out = folders(STUDY.name, arguments)
    result, runs = run_analysis(lambda: analyse(STUDY, folder))
    datasets = list(dict.fromkeys(row["set"] for row in result["rows"]))
    result["endpoints"] = with_signs(endpoint_rows(ENDPOINTS, runs, datasets, STUDY.baseline))
    result["curves"] = curves(runs)
    write(out, result, lambda: draw(result), table(result) + section(result), runs)


if __name__ == "__main__":
    main(sys.argv[1:])
