"""Plot processor seconds of a step against its operations: benchmarks/results/SUITE.json -> a picture.

    python -m benchmarks.plot cpu docs/performance.svg        # systems side by side, a panel per model
    python -m benchmarks.plot scaling docs/scaling.svg        # phases of ours against K, N and length

Crosses and dashed lines are the plan's operations (benchmarks.arithmetic) divided by one speed per model or phase: the
median over its rows of ours. Where the measured time matches them, it grows like the operations.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.arithmetic import PHASES, phase_flops, read, speeds

matplotlib.use("svg")

COLOURS = {"ours": "#1b6ca8", "ours_plain": "#8fb8d8", "trl": "#d98032"}
PHASE_COLOURS = dict(zip(PHASES, ("#2f8f6b", "#8a6bb8", "#1b6ca8"), strict=True))
AXES = {"K": "outputs per picture, K", "N": "pictures per step, N", "new_tokens": "tokens per output, T"}


def operations(row: dict[str, Any]) -> float:
    """Return the operations of one step by the plan, for TRL those of the plain path.

    TRL computes the prompt once per output in reference and update.
    """
    return sum(phase_flops(row).values())


def compared(rows: Sequence[dict[str, Any]]) -> Any:
    """Plot bars of every system by workload, with a panel per model."""
    import matplotlib.pyplot as plt

    models = list(dict.fromkeys(row["model"] for row in rows))
    keys = {model: list(dict.fromkeys(workload(row) for row in rows if row["model"] == model)) for model in models}
    widths = [len(keys[model]) for model in models]
    figure, panels = plt.subplots(
        1, len(models), figsize=(1.2 + 1.9 * sum(widths), 3.4), width_ratios=widths, layout="constrained", squeeze=False
    )
    for model, axes in zip(models, panels[0], strict=True):
        mine = [row for row in rows if row["model"] == model]
        speed = statistics.median(operations(row) / row["cpu_s"] for row in mine if row["system"] == "ours")
        systems = [name for name in COLOURS if any(row["system"] == name for row in mine)]
        for row in mine:
            offset = systems.index(row["system"]) - (len(systems) - 1) / 2
            x = keys[model].index(workload(row)) + 0.27 * offset
            axes.bar(x, row["cpu_s"], width=0.25, color=COLOURS[row["system"]], label=row["system"])
            if row["system"] != "ours":
                ratio = f"{row['cpu_s_over_ours']:.1f}×"
                axes.text(x, 0.02 * max(r["cpu_s"] for r in mine), ratio, ha="center", va="bottom", fontsize=8)
            axes.plot(x, operations(row) / speed, "kx", ms=5, label="arithmetic")
        axes.set_xticks(range(len(keys[model])), [f"K {K}  N {N}  T {T}" for K, N, T in keys[model]])
        axes.set_title({"50m": "50 M parameters", "tiny": "1.2 M parameters"}.get(model, model), fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0, 0].set_ylabel("processor seconds of a step")
    labels = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))
    panels[0, 0].legend(labels.values(), labels.keys(), frameon=False, fontsize=8)
    return figure


def scaled(rows: Sequence[dict[str, Any]]) -> Any:
    """Plot seconds by phase against each of K, N and T, the other two fixed at their most common values."""
    import matplotlib.pyplot as plt

    middle = {name: statistics.mode(row[name] for row in rows) for name in AXES}
    found = speeds(list(rows))
    figure, panels = plt.subplots(1, len(AXES), figsize=(10, 3.2), layout="constrained")
    for axes, (name, title) in zip(panels, AXES.items(), strict=True):
        mine = [row for row in rows if all(row[other] == middle[other] for other in AXES if other != name)]
        mine.sort(key=lambda row: row[name])
        places = [row[name] for row in mine]
        for phase, colour in PHASE_COLOURS.items():
            planned = [phase_flops(row)[phase] / found[row["system"], row["model"], phase] for row in mine]
            axes.plot(
                places, [row[phase] for row in mine], "o-", color=colour, ms=4, label=phase.removesuffix("_cpu_s")
            )
            axes.plot(places, planned, "--", color=colour, lw=1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(places, [str(place) for place in places])
        axes.yaxis.set_major_formatter("{x:g}")
        axes.set_xlabel(title)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("processor seconds of a step")
    panels[0].plot([], [], "k--", lw=1, label="arithmetic")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def workload(row: dict[str, Any]) -> tuple[int, int, int]:
    return row["K"], row["N"], row["new_tokens"]


def main() -> None:
    suite, target = sys.argv[1], Path(sys.argv[2])
    rows = read(suite)
    figure = (compared if any(row["system"] != "ours" for row in rows) else scaled)(rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    print(target)


if __name__ == "__main__":
    main()
