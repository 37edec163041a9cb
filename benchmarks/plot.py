"""Seconds of a step against K, N and length, beside the arithmetic: benchmarks/results/SUITE.json -> a picture.

    python -m benchmarks.plot cpu docs/performance.svg

Bars: processor seconds of a step, median. Crosses: operations of the step (aes_r1.model.cost), scaled so that the first
workload's cross stands on ours; where bars grow as crosses do, time follows the arithmetic.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

from benchmarks.arithmetic import phase_flops

matplotlib.use("svg")

COLOURS = {"ours": "#1b6ca8", "ours_plain": "#8fb8d8", "trl": "#d98032"}


def operations(row: dict[str, Any]) -> float:
    """Of one step, by the plan. TRL's path is the plain one: prompts once per output in reference and update."""
    return sum(phase_flops(row).values())


def main() -> None:
    import matplotlib.pyplot as plt

    suite, target = sys.argv[1], Path(sys.argv[2])
    result = json.loads((Path(__file__).parent / "results" / f"{suite}.json").read_text())
    rows = result["rows"]
    keys = list(dict.fromkeys((row["model"], row["K"], row["N"], row["new_tokens"]) for row in rows))
    figure, axes = plt.subplots(figsize=(1.6 + 1.7 * len(keys), 3.6), layout="constrained")
    by_key = {(row["model"], row["K"], row["N"], row["new_tokens"], row["system"]): row for row in rows}
    first = by_key[(*keys[0], "ours")]
    scale = first["cpu_s"] / operations(first)
    systems = [name for name in COLOURS if any(row["system"] == name for row in rows)]
    for offset, system in enumerate(systems):
        for place, key in enumerate(keys):
            row = by_key[(*key, system)]
            x = place + (offset - (len(systems) - 1) / 2) * 0.26
            label = system if place == 0 else None
            axes.bar(x, row["cpu_s"], width=0.24, color=COLOURS[system], label=label)
            label = "arithmetic" if place == 0 and offset == 0 else None
            axes.plot(x, scale * operations(row), "kx", label=label)
    axes.set_xticks(range(len(keys)), [f"{model}\nK {K}  N {N}  T {T}" for model, K, N, T in keys])
    axes.set_ylabel("processor seconds of a step")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, metadata={"Date": None})
    print(target)


if __name__ == "__main__":
    main()
