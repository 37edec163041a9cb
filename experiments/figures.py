"""Draw a study: SRCC by condition on each set, and each condition's difference to the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from scipy import stats

from experiments.answers import read_answers
from experiments.blocks import contrasts

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

WIDTH = 170 / 25.4  # inches: the width of a journal's page of text
BLUE, ORANGE, GREEN, GRAY = "#0072b2", "#d55e00", "#009e73", "#999999"  # told apart by colour-blind readers
TITLES = {"sample": "one sample", "greedy": "greedy", "mean": "mean of 4"}
Starts = Mapping[tuple[str, str], float]  # {(condition, set): SRCC of the cold start, mean over seeds}


def starts_of(answers: Path, protocol: str) -> Starts:
    """Return the SRCC of the cold starts whose answers are in the file `answers`; nothing where it does not exist.

    A picture without a readable answer counts as the mean answer, as in the study's other numbers.
    """
    values: dict[tuple[str, str], list[float]] = {}
    cells = read_answers(answers) if answers.exists() else {}
    for (condition, _, stage, dataset, cell_protocol), pairs in cells.items():
        if (stage, cell_protocol) != ("cold_start", protocol):
            continue
        readable = [score for score, _ in pairs.values() if score is not None]
        if len(set(readable)) > 1:
            middle = sum(readable) / len(readable)
            scores = [middle if score is None else score for score, _ in pairs.values()]
            rho = stats.spearmanr(scores, [mos for _, mos in pairs.values()]).statistic
            values.setdefault((condition, dataset), []).append(float(rho))
    return {key: sum(by_seed) / len(by_seed) for key, by_seed in values.items()}


def draw(
    rows: Sequence[Mapping[str, Any]],
    *,
    form: str,
    baseline: str | None,
    starts: Starts,
    people: Mapping[str, float],
) -> Any:
    """Draw a row of panels per set; without `baseline` no differences are drawn.

    rows: one per condition and set, {"condition", "set", "n", "srcc": {"mean", "low", "high", "n", "run", "seeds":
    {seed: {"value"}}}}. form: how the scores were read, in words. people: {set: SRCC of one half of its raters
    with the other}.

    Left: SRCC by condition, a dot per seed (thin lines join the dots of one seed, where its conditions have the same
    pictures) and the mean with its 95% interval over seeds; dashed, the cold start and the agreement of
    two halves of the people, where they are known. Right: the difference to `baseline` within seeds, with the 95%
    interval from the error of all conditions. Intervals have at least two degrees of freedom.
    """
    datasets = list(dict.fromkeys(row["set"] for row in rows))
    conditions = list(dict.fromkeys(row["condition"] for row in rows))
    of_dataset = {dataset: [row for row in rows if row["set"] == dataset] for dataset in datasets}
    size = (WIDTH, 0.4 + len(datasets) * (0.55 + 0.24 * len(conditions)))
    with plt.rc_context({"font.size": 8, "axes.titlesize": 8}):
        figure, grid = plt.subplots(
            len(datasets), 1 if baseline is None else 2, figsize=size, sharex="col", sharey=True, squeeze=False,
            layout="constrained", gridspec_kw={"width_ratios": [1] if baseline is None else [3, 2]},
        )  # fmt: skip
        for panels, dataset in zip(grid, datasets, strict=True):
            known = {
                condition: starts[condition, dataset] for condition in conditions if (condition, dataset) in starts
            }
            _values(panels[0], of_dataset[dataset], known, people.get(dataset), joined=baseline is not None)
            panels[0].set_title(f"{dataset}, n {max(row['n'] for row in of_dataset[dataset])}", loc="left")
            if baseline is not None:
                _differences(panels[1], of_dataset[dataset], baseline)
        grid[0][0].set_ylim(len(conditions) - 0.4, -0.6)  # the first condition on top
        grid[-1][0].set_xlabel(f"SRCC with the opinions, {form}")
        if baseline is not None:
            grid[-1][1].set_xlabel(f"difference in SRCC to\n{baseline}")
        handles = {label: handle for panels in grid for handle, label in zip(*_legend(panels[0]), strict=True)}
        figure.legend(handles.values(), handles, loc="outside lower center", ncols=len(handles), frameon=False)
    return figure


def save(figure: Any, folder: Path) -> None:
    """Write `figure` into `folder` as figure.svg and figure.png, and forget it."""
    for kind in ("svg", "png"):
        figure.savefig(folder / f"figure.{kind}", dpi=150)
    plt.close(figure)


def _values(
    axis: Any, rows: Sequence[Mapping[str, Any]], starts: Mapping[str, float], people: float | None, *, joined: bool
) -> None:
    heights = range(len(rows))
    seeds = list(dict.fromkeys(seed for row in rows for seed in row["srcc"]["seeds"]))
    for seed in seeds:
        values = [row["srcc"]["seeds"].get(seed, {"value": None})["value"] for row in rows]
        points = [(value, height) for value, height in zip(values, heights, strict=True) if value is not None]
        if points:
            line = "-" if joined else "none"
            axis.plot(*zip(*points, strict=True), ls=line, marker="o", color=GRAY, lw=0.5, ms=2.5, label="a seed")
    for height, row in zip(heights, rows, strict=True):
        if (start := starts.get(row["condition"])) is not None:
            axis.vlines(start, height - 0.45, height + 0.45, ls="--", lw=1, color=ORANGE, label="cold start")
        if row["srcc"]["mean"] is not None:
            _interval(axis, height, row["srcc"], row["srcc"]["n"] - 1, "mean, 95% interval")
    if people is not None:
        axis.axvline(people, ls="--", lw=1, color=GREEN, label="half of the people with the other")
    axis.set_yticks(heights, [_name(row) for row in rows])
    axis.grid(axis="x", lw=0.3)


def _differences(axis: Any, rows: Sequence[Mapping[str, Any]], baseline: str) -> None:
    values = {row["condition"]: {seed: cell["value"] for seed, cell in row["srcc"]["seeds"].items()} for row in rows}
    differences = contrasts(values, baseline)
    for height, row in enumerate(rows):
        difference = differences.get(row["condition"])
        if row["condition"] == baseline:
            axis.plot(0, height, "o", color=BLUE, mfc="white", ms=4)
        elif difference is not None and difference["mean"] is not None:
            _interval(axis, height, difference, difference["df"], None)
    axis.axvline(0, lw=0.6, color="black")
    axis.xaxis.set_major_locator(MaxNLocator(4))
    axis.grid(axis="x", lw=0.3)


def _interval(axis: Any, height: float, estimate: Mapping[str, Any], df: int, label: str | None) -> None:
    """Draw a mean, and its interval unless a single degree of freedom makes it wider than the scale of correlations."""
    has_ends = estimate["low"] is not None and df > 1
    ends = [[estimate["mean"] - estimate["low"]], [estimate["high"] - estimate["mean"]]] if has_ends else None
    axis.errorbar(
        estimate["mean"], height, xerr=ends, fmt="o", ms=4, lw=1.5, capsize=2, color=BLUE, label=label, zorder=3
    )


def _name(row: Mapping[str, Any]) -> str:
    """Return a row's condition, with the number of seeds that have a value if some have none."""
    n, run = row["srcc"]["n"], row["srcc"]["run"]
    return row["condition"] if n == run else f"{row['condition']}\n{n} of {run} defined"


def _legend(axis: Any) -> tuple[list[Any], list[str]]:
    return axis.get_legend_handles_labels()
